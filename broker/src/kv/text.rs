//! Names inside values.

use bytes::{Buf, BufMut};

/// Appends the length and the text.
///
/// # Panics
/// The text is longer than 64 KiB; names are far shorter.
pub(super) fn put(out: &mut Vec<u8>, text: &str) {
    out.put_u16(u16::try_from(text.len()).expect("names are bounded"));
    out.put_slice(text.as_bytes());
}

/// Takes a length and a text off the front.
pub(super) fn take(input: &mut &[u8]) -> Result<String, &'static str> {
    let len = usize::from(input.try_get_u16().map_err(|_| "text ends early")?);
    let (text, rest) = input.split_at_checked(len).ok_or("text ends early")?;
    *input = rest;
    Ok(str::from_utf8(text).map_err(|_| "text is not UTF-8")?.to_owned())
}

/// Takes a name off the front and checks it.
pub(super) fn name<T: std::str::FromStr>(input: &mut &[u8]) -> Result<T, &'static str> {
    take(input)?.parse().map_err(|_| "name is not valid")
}
