//! The `Range` header: one range of bytes (RFC 9110, section 14.1.2).

use std::ops::Range;

/// The bytes of a file of `length` that the header `value` names: `bytes=a-b`, `bytes=a-` or `bytes=-n`, cut at the file's end.
/// `None` for everything else, several ranges and those past the end included.
pub fn parse(value: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let range = if first.is_empty() {
        length.saturating_sub(number(last)?)..length
    } else if last.is_empty() {
        number(first)?..length
    } else {
        number(first)?..number(last)?.saturating_add(1).min(length)
    };
    (range.start < range.end && range.start < length).then_some(range)
}

/// Decimal digits only: `u64::from_str` also takes a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}
