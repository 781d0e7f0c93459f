//! What comes over the wire within its bounds: names in filters, tokens of pages, moments.

use super::WireError;
use crate::{ids::MAX_NAME_BYTES, store::Page, time::Timestamp};

/// Longest name and key of a file, bytes: what object storage takes.
pub(super) const MAX_KEY_BYTES: usize = 1_024;
/// Longest token of a page, bytes: the longest key of a list with room.
const MAX_TOKEN_BYTES: usize = 1_024;
/// 9999-12-30 at 22 hours: later moments cannot be written as text in every time zone.
const LAST_MS: i64 = 253_402_207_200_000;

/// A name in a filter; empty: any.
///
/// # Errors
/// [`WireError`]: longer than any name.
pub fn wanted(field: &str, text: String) -> Result<Option<String>, WireError> {
    let name = self::text(field, text, MAX_NAME_BYTES)?;
    Ok((!name.is_empty()).then_some(name))
}

/// A text of at most so many bytes.
///
/// # Errors
/// [`WireError`]: it is longer.
pub fn text(field: &str, text: String, most: usize) -> Result<String, WireError> {
    if text.len() > most {
        let words = format!("has {} bytes, at most {most} are allowed", text.len());
        return Err(WireError::new(field, words));
    }
    Ok(text)
}

/// Which page of a list.
///
/// # Errors
/// [`WireError`]: the token cannot be one.
pub fn page(size: u32, token: String) -> Result<Page, WireError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(WireError::new(
            "page_token",
            "is none of a list: give the next_page_token of the page before, or none for the first",
        ));
    }
    Ok(Page { size, token })
}

/// A wall clock; 0 is the beginning of 1970, where the sender did not know it.
///
/// # Errors
/// [`WireError`]: before 1970 or after 9999.
pub fn clock(field: &str, ms: i64) -> Result<Timestamp, WireError> {
    if !(0..=LAST_MS).contains(&ms) {
        let words = format!("is {ms}: give milliseconds since 1970, at most {LAST_MS}, the end of the year 9999");
        return Err(WireError::new(field, words));
    }
    Ok(Timestamp::from_millis(ms))
}

/// A wall clock; 0 is none.
///
/// # Errors
/// As [`clock`].
pub fn clock_if_any(field: &str, ms: i64) -> Result<Option<Timestamp>, WireError> {
    let at = clock(field, ms)?;
    Ok((ms != 0).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_lie_between_1970_and_9999() {
        assert_eq!(clock_if_any("t", 0), Ok(None));
        assert_eq!(clock("t", LAST_MS), Ok(Timestamp::from_millis(LAST_MS)));
        assert!(Timestamp::from_millis(LAST_MS).to_string().starts_with("9999-12-30"));
        for bad in [-1, i64::MIN, LAST_MS + 1, i64::MAX] {
            assert!(clock("t", bad).unwrap_err().to_string().contains("1970"), "{bad}");
        }
    }
}
