//! [`MetadataUrl`]: where metadata lies.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What must not be shown: a password. It prints as `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Password(String);

impl Password {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Password(text.into())
    }

    /// The text itself, to be handed to whom it is for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Name.
    pub user: String,
    /// Password.
    pub password: Password,
}

/// Where metadata lies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MetadataUrl {
    /// `embedded:`: a database file in the data folder, for one process.
    #[default]
    Embedded,
    /// `etcd://[USER:PASSWORD@]HOST:2379[,HOST:2379…]/PREFIX`, or `etcds://` for TLS.
    Etcd {
        /// True for `etcds://`.
        tls: bool,
        /// What stands before the `@`.
        login: Option<Login>,
        /// `HOST:PORT`, at least one.
        endpoints: Vec<String>,
        /// Key prefix without slashes at its ends; not empty.
        prefix: String,
    },
}

/// Not a metadata URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "metadata URL {url:?}: {problem}; use embedded: or etcd://HOST:2379[,HOST:2379…]/PREFIX (etcds:// for TLS, USER:PASSWORD@ in front of the hosts)"
)]
pub struct MetadataUrlError {
    /// What was given, without its password.
    pub url: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Longest prefix, bytes.
const MAX_PREFIX_BYTES: usize = 256;

impl FromStr for MetadataUrl {
    type Err = MetadataUrlError;
    fn from_str(url: &str) -> Result<Self, MetadataUrlError> {
        let bad = |problem| MetadataUrlError {
            url: mask(url),
            problem,
        };
        if url == "embedded:" || url == "embedded" {
            return Ok(MetadataUrl::Embedded);
        }
        let (tls, rest) = match (url.strip_prefix("etcd://"), url.strip_prefix("etcds://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(bad("the scheme is unknown")),
        };
        let (authority, prefix) = rest.split_once('/').ok_or_else(|| bad("the prefix is missing"))?;
        let (login, hosts) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((login, hosts)) => {
                let (user, password) = login
                    .split_once(':')
                    .ok_or_else(|| bad("what stands before the @ is USER:PASSWORD"))?;
                let decode = |text| decode(text).ok_or_else(|| bad("a % is followed by two hexadecimal digits"));
                let user = decode(user)?;
                if user.is_empty() {
                    return Err(bad("the user is missing"));
                }
                let password = Password::new(decode(password)?);
                (Some(Login { user, password }), hosts)
            }
        };
        let endpoints: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if endpoints.iter().any(|endpoint| {
            !endpoint
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        }) {
            return Err(bad("each member is HOST:PORT"));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.is_empty() {
            return Err(bad("the prefix is missing"));
        }
        if prefix.len() > MAX_PREFIX_BYTES {
            return Err(bad("the prefix has more than 256 bytes"));
        }
        Ok(MetadataUrl::Etcd {
            tls,
            login,
            endpoints,
            prefix: prefix.to_owned(),
        })
    }
}

/// Undoes percent-encoding; none where it is not one, or not of UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Hides passwords in what may hold URLs: of `://USER:PASSWORD@` the middle.
#[must_use]
pub(crate) fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out += before;
        out += "://";
        let end = after.find(['/', '"', '\'', ' ', '\n']).unwrap_or(after.len());
        // A password may hold an @ that should have been encoded.
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((login, hosts)) if login.contains(':') => {
                out += login.split(':').next().unwrap_or_default();
                out += ":***@";
                out += hosts;
            }
            _ => out += authority,
        }
        rest = tail;
    }
    out + rest
}

impl fmt::Display for MetadataUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetadataUrl::Embedded => f.write_str("embedded:"),
            MetadataUrl::Etcd {
                tls,
                login,
                endpoints,
                prefix,
            } => {
                f.write_str(if *tls { "etcds://" } else { "etcd://" })?;
                if let Some(login) = login {
                    write!(f, "{}:{}@", login.user, login.password)?;
                }
                write!(f, "{}/{prefix}", endpoints.join(","))
            }
        }
    }
}

impl TryFrom<String> for MetadataUrl {
    type Error = MetadataUrlError;
    fn try_from(url: String) -> Result<Self, MetadataUrlError> {
        url.parse()
    }
}

impl From<MetadataUrl> for String {
    fn from(url: MetadataUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_and_written() {
        for url in [
            "embedded:",
            "etcd://a:2379/aircheck",
            "etcd://a:2379,[::1]:2379/x/y",
            "etcds://a:2379/x",
        ] {
            assert_eq!(url.parse::<MetadataUrl>().unwrap().to_string(), url);
        }
        for bad in [
            "",
            "etcd://a:2379",
            "etcd://a/x",
            "etcd://:1/x",
            "etcd://a:2379/",
            "etcd://user@a:2379/x",
            "etcd://:word@a:2379/x",
            "etcd://u:%4@a:2379/x",
            "redis://x",
        ] {
            assert!(
                bad.parse::<MetadataUrl>()
                    .unwrap_err()
                    .to_string()
                    .contains("use embedded:"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_password_is_read_and_never_shown() {
        let url: MetadataUrl = "etcds://me:p%40ss%2f@a:1/x".parse().unwrap();
        let MetadataUrl::Etcd { login: Some(login), .. } = &url else {
            panic!("{url}");
        };
        assert_eq!((login.user.as_str(), login.password.reveal()), ("me", "p@ss/"));
        assert_eq!(url.to_string(), "etcds://me:***@a:1/x");
        assert!(!format!("{url:?}").contains("p@ss"));
        let refused = "etcd://me:p@ss@a/x".parse::<MetadataUrl>().unwrap_err();
        assert!(!refused.to_string().contains("ss@"), "{refused}");
        assert_eq!(
            mask("url = \"etcd://u:p@h:1/x\" and http://h/y@z"),
            "url = \"etcd://u:***@h:1/x\" and http://h/y@z"
        );
    }
}
