//! Bodies that name their message and show whether a single byte was changed.

use crate::Message;
use bytes::Bytes;

/// What every body of the tests begins with.
const MAGIC: [u8; 4] = *b"RMQT";
/// Magic and message number.
pub const SMALLEST: usize = 12;

/// The body of `message`, `size` bytes long: its number, then bytes that follow from the number.
///
/// # Panics
/// When `size` is below [`SMALLEST`].
#[must_use]
pub fn of(message: Message, size: usize) -> Bytes {
    assert!(size >= SMALLEST, "a body has at least {SMALLEST} bytes");
    let mut body = Vec::with_capacity(size + 8);
    body.extend_from_slice(&MAGIC);
    body.extend_from_slice(&message.0.to_be_bytes());
    // xorshift64*, seeded by the message: cheap, and different for each one.
    let mut state = message.0 ^ 0x9e37_79b9_7f4a_7c15;
    while body.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        body.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    body.truncate(size);
    body.into()
}

/// Which message this body is, if it is one and every byte is right.
#[must_use]
pub fn message(body: &[u8]) -> Option<Message> {
    let number = body.strip_prefix(&MAGIC)?.first_chunk()?;
    let message = Message(u64::from_be_bytes(*number));
    (of(message, body.len()) == body).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_its_message_and_any_flipped_bit_shows() {
        let message = Message::new(7, 1234);
        let body = of(message, 100);
        assert_eq!(super::message(&body), Some(message));
        for at in 0..body.len() {
            let mut flipped = body.to_vec();
            flipped[at] ^= 1;
            assert_ne!(super::message(&flipped), Some(message), "byte {at}");
        }
        assert_eq!(super::message(b"short"), None);
    }
}
