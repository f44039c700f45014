//! The body of a batch entry: commands one after the other behind a table of their lengths.
//!
//! ```text
//!  0        4           8                  4 + 4n
//!  ┌────────┬───────────┬───┬─────────────┬───────────┬─────┬───────────┐
//!  │ n: u32 │ len 1:u32 │ … │  len n: u32 │ command 1 │  …  │ command n │     little-endian
//!  └────────┴───────────┴───┴─────────────┴───────────┴─────┴───────────┘
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use commitlog::position::LogOffset;

use crate::Command;

/// Bytes of the table for `commands` commands.
pub(crate) const fn table_len(commands: usize) -> usize {
    4 + 4 * commands
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("batch of {body} bytes is malformed: {reason}")]
pub(crate) struct Malformed {
    pub(crate) body: usize,
    pub(crate) reason: &'static str,
}

/// Packs commands, each given in parts that are to follow each other. This is the only copy that
/// the proposing side makes of them.
///
/// # Panics
/// A command or their number exceeds `u32`: the batcher's limits are far below.
pub(crate) fn encode<'a>(commands: impl ExactSizeIterator<Item = &'a [Bytes]> + Clone) -> Bytes {
    let total: usize = commands.clone().flatten().map(Bytes::len).sum();
    let mut body = BytesMut::with_capacity(table_len(commands.len()) + total);
    body.put_u32_le(u32::try_from(commands.len()).expect("bounded by the batcher"));
    for parts in commands.clone() {
        let len: usize = parts.iter().map(Bytes::len).sum();
        body.put_u32_le(u32::try_from(len).expect("bounded by the batcher"));
    }
    for part in commands.flatten() {
        body.put_slice(part);
    }
    body.freeze()
}

/// The commands in a body whose first byte lies at `position`, without copying them.
pub(crate) fn decode(body: &Bytes, position: LogOffset) -> Result<Vec<Command>, Malformed> {
    let malformed = |reason| Malformed { body: body.len(), reason };
    let count = read_u32(body, 0).ok_or(malformed("no count"))?;
    let table = count.checked_mul(4).and_then(|len| len.checked_add(4));
    let mut at = table.filter(|&end| end <= body.len()).ok_or(malformed("table cut short"))?;
    let mut commands = Vec::with_capacity(count);
    for number in 0..count {
        let len = read_u32(body, 4 + 4 * number).ok_or(malformed("table cut short"))?;
        let end = at.checked_add(len).filter(|&end| end <= body.len());
        let end = end.ok_or(malformed("command cut short"))?;
        let position = LogOffset(position.0 + at as u64);
        commands.push(Command { position, bytes: body.slice(at..end) });
        at = end;
    }
    if at != body.len() {
        return Err(malformed("bytes after the last command"));
    }
    Ok(commands)
}

fn read_u32(body: &[u8], at: usize) -> Option<usize> {
    let bytes = body.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn commands_come_out_in_order_with_their_positions() {
        let commands = [parts(&["he", "llo"]), parts(&[]), parts(&["world"])];
        let body = encode(commands.iter().map(Vec::as_slice));
        let decoded = decode(&body, LogOffset(1000)).unwrap();
        let texts: Vec<&[u8]> = decoded.iter().map(|command| &command.bytes[..]).collect();
        assert_eq!(texts, [&b"hello"[..], b"", b"world"]);
        for command in &decoded {
            let at = usize::try_from(command.position.0 - 1000).unwrap();
            assert_eq!(&body[at..at + command.bytes.len()], &command.bytes[..]);
        }
    }

    #[test]
    fn decoding_does_not_copy() {
        let commands = [parts(&["hello"])];
        let body = encode(commands.iter().map(Vec::as_slice));
        let decoded = decode(&body, LogOffset(0)).unwrap();
        assert!(body.as_ptr_range().contains(&decoded[0].bytes.as_ptr()));
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let commands = [parts(&["hello"]), parts(&["world"])];
        let body = encode(commands.iter().map(Vec::as_slice));
        for len in 0..body.len() {
            assert!(decode(&body.slice(..len), LogOffset(0)).is_err(), "{len} bytes");
        }
        let longer = Bytes::from([&body[..], b"x"].concat());
        assert_eq!(
            decode(&longer, LogOffset(0)).unwrap_err().reason,
            "bytes after the last command"
        );
    }

    #[test]
    fn a_count_beyond_the_body_is_refused_before_memory_is_reserved() {
        let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decode(&body, LogOffset(0)).unwrap_err().reason, "table cut short");
    }
}
