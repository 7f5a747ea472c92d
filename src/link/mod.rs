//! One peer connection. This file only names its parts.

pub mod firewall;
