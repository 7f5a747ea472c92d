//! The daemon as a user meets it: the real binary, its commands, its HTTP address and its end.
