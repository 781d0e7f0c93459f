//! Who signed a request: TC3-HMAC-SHA256 ([`tc3`]) and the older HMAC-SHA1 and HMAC-SHA256 ([`v1`]). Pure: bytes and the
//! time come in, a verdict goes out.
//!
//! Signatures are computed over the bytes as they were received. Where clients differ in what they sign (with or without
//! the port of the host, the real path or `/`), each of the few readings is tried; every comparison takes constant time.

pub(crate) mod tc3;
pub(crate) mod v1;

use shared::time::Timestamp;

use super::error::ApiError;

/// Most seconds that a request's time may lie off the server's, either way.
pub(crate) const MAX_SKEW_S: i64 = 300;

/// A request's bytes as far as signatures cover them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// Upper case.
    pub(crate) method: &'a str,
    /// Path of the request line, with its `/`.
    pub(crate) path: &'a str,
    /// Query of the request line as it was sent, without `?`.
    pub(crate) query: &'a str,
    /// Names in lower case and values as sent, in their order.
    pub(crate) headers: &'a [(String, String)],
    /// The whole body.
    pub(crate) body: &'a [u8],
}

impl<'a> Received<'a> {
    /// The value of a header that must not be there twice.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        let mut found = self
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str());
        let first = found.next();
        if found.next().is_some() {
            return Err(ApiError::invalid(format!("the header {name} is there twice")));
        }
        Ok(first)
    }

    /// The host as sent, and without its port.
    fn hosts(&self) -> Result<Vec<&'a str>, ApiError> {
        let host = self.header("host")?.unwrap_or_default();
        let mut hosts = vec![host];
        if let Some((bare, port)) = host.rsplit_once(':')
            && !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
        {
            hosts.push(bare);
        }
        Ok(hosts)
    }
}

/// Reads a time in seconds since the Unix epoch and compares it with the server's.
///
/// # Errors
/// `AuthFailure.SignatureExpire` when it is off by more than [`MAX_SKEW_S`], `InvalidParameterValue` when it is no time.
pub(crate) fn check_time(text: &str, now: Timestamp) -> Result<i64, ApiError> {
    let said: i64 = text.parse().map_err(|_| {
        ApiError::new(
            "InvalidParameterValue",
            format!("Timestamp {text:?} is not in seconds since 1970"),
        )
    })?;
    let off = now.as_millis().div_euclid(1_000).saturating_sub(said);
    if off.saturating_abs() > MAX_SKEW_S {
        return Err(ApiError::new(
            "AuthFailure.SignatureExpire",
            format!(
                "the request was signed {off} s before the server's time; at most {MAX_SKEW_S} s either way are allowed: check the clocks"
            ),
        ));
    }
    Ok(said)
}

/// The verdict on a signature that none of the readings gives. It says nothing about what was expected.
fn mismatch() -> ApiError {
    ApiError::new(
        "AuthFailure.SignatureFailure",
        "the signature does not fit the request and the secret key: check the secret, and that nothing changes the request on its way",
    )
}

/// Bytes of a text of hexadecimal digits, either case.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// Lower-case hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            // Writing to a string does not fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_either_way_are_allowed_and_not_a_second_more() {
        let now = Timestamp::from_millis(1_700_000_000_999);
        for (said, legal) in [
            ("1700000000", true),
            ("1699999700", true),
            ("1700000300", true),
            ("1699999699", false),
            ("1700000301", false),
            ("-9223372036854775808", false),
        ] {
            assert_eq!(check_time(said, now).is_ok(), legal, "{said}");
        }
        assert_eq!(
            check_time("1699999000", now).unwrap_err().code(),
            "AuthFailure.SignatureExpire"
        );
        assert_eq!(check_time("soon", now).unwrap_err().code(), "InvalidParameterValue");
    }

    #[test]
    fn hexadecimal_digits_read_back() {
        assert_eq!(unhex("00fFa0").unwrap(), [0, 255, 160]);
        assert_eq!(hex(&[0, 255, 160]), "00ffa0");
        for bad in ["0", "0g", "+1", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
