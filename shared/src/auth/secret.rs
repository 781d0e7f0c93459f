//! [`Secret`]: a token that is compared in constant time and never shown, and where it comes from.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// Shortest legal secret, bytes: what can be guessed by trying protects nothing.
pub const MIN_SECRET_BYTES: usize = 16;
/// Longest legal secret, bytes: it travels in a header.
pub const MAX_SECRET_BYTES: usize = 512;

/// A token that somebody must show. `Debug` and the written form are `***`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(String);

/// Why a text is no secret, or none was found. Never quotes it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Under [`MIN_SECRET_BYTES`] or over [`MAX_SECRET_BYTES`].
    #[error(
        "a token has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, this has {0}: `openssl rand -hex 32` makes a good one"
    )]
    Length(usize),
    /// Not what a header can carry.
    #[error("a token consists of visible ASCII characters without spaces: `openssl rand -hex 32` makes a good one")]
    Characters,
    /// The file cannot be read.
    #[error("cannot read the token file {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Secret {
    /// Takes a token.
    ///
    /// # Errors
    /// [`SecretError::Length`], [`SecretError::Characters`].
    pub fn new(text: &str) -> Result<Self, SecretError> {
        if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&text.len()) {
            return Err(SecretError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Characters);
        }
        Ok(Secret(text.to_owned()))
    }

    /// Reads a token from a file, white space around it left out.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path).map_err(|source| SecretError::File {
            path: path.display().to_string(),
            source,
        })?;
        Secret::new(text.trim())
    }

    /// True if `shown` is this token. Takes the same time wherever they differ; only the length shows.
    #[must_use]
    pub fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    /// The token itself: to be shown to whoever asks for it, never to a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TryFrom<String> for Secret {
    type Error = SecretError;
    fn try_from(text: String) -> Result<Self, SecretError> {
        Secret::new(&text)
    }
}

impl From<Secret> for String {
    /// For printing settings: what was configured does not come out again.
    fn from(_: Secret) -> String {
        "***".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_owner_and_shown_to_nobody() {
        let secret = Secret::new("0123456789abcdef").unwrap();
        assert!(secret.is("0123456789abcdef"));
        for wrong in ["", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcde"] {
            assert!(!secret.is(wrong), "{wrong}");
        }
        assert_eq!(format!("{secret:?} {}", String::from(secret.clone())), "*** ***");
        assert!(Secret::new("short").unwrap_err().to_string().contains("openssl rand"));
        assert!(matches!(
            Secret::new("with spaces in it, long"),
            Err(SecretError::Characters)
        ));
    }

    #[test]
    fn a_file_holds_one_with_a_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(Secret::read(&path).unwrap().is("0123456789abcdef"));
        let missing = Secret::read(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
    }
}
