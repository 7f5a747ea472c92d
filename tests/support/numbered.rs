//! Numbered custom messages of many sizes, so that a loss, a repetition or a change of order shows.

/// Message `number` of a stream: an odd custom type, the number, and up to 1,500 bytes that follow from it.
pub(crate) fn numbered(stream: u8, number: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(stream) << 32 | u64::from(number));
    let kind = 32_769 + 2 * random.u16(0..1000);
    let mut message = kind.to_be_bytes().to_vec();
    message.extend_from_slice(&number.to_be_bytes());
    // Mostly small, as traffic between nodes is, and now and then a large one.
    let length = if random.u8(0..8) == 0 {
        random.usize(0..1500)
    } else {
        random.usize(0..200)
    };
    message.extend(std::iter::repeat_with(|| random.u8(..)).take(length));
    message
}

/// The first `count` messages of a stream.
pub(crate) fn stream(stream: u8, count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| numbered(stream, number)).collect()
}

/// Fails with the first difference between what was sent and what came, not with ten thousand lines.
pub(crate) fn assert_same(what: &str, came: &[Vec<u8>], sent: &[Vec<u8>]) {
    let differs = came.iter().zip(sent).position(|(came, sent)| came != sent);
    assert_eq!(
        differs,
        None,
        "{what}: the first message that differs ({} came, {} sent)",
        came.len(),
        sent.len()
    );
    assert_eq!(
        came.len(),
        sent.len(),
        "{what}: lost or repeated at the end"
    );
}
