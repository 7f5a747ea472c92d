//! The few shapes of protobuf's encoding that `watchonly.proto` needs, said again from its text.

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
    out
}

fn tag(field: u32, kind: u64) -> Vec<u8> {
    varint(u64::from(field) << 3 | kind)
}

/// A number; zero is left out.
pub fn integer(field: u32, value: u64) -> Vec<u8> {
    if value == 0 {
        return Vec::new();
    }
    [tag(field, 0), varint(value)].concat()
}

/// A `true`.
pub fn truth(field: u32) -> Vec<u8> {
    integer(field, 1)
}

/// Bytes, a text or a message; an empty one is left out.
pub fn bytes(field: u32, content: &[u8]) -> Vec<u8> {
    if content.is_empty() {
        return Vec::new();
    }
    present(field, content)
}

/// The same where presence counts: a message, or one of several.
pub fn present(field: u32, content: &[u8]) -> Vec<u8> {
    let length = varint(content.len() as u64);
    [tag(field, 2), length, content.to_vec()].concat()
}
