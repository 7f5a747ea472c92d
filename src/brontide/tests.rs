//! Tests.
pub(super) fn record(_bytes: &[u8]) {}
