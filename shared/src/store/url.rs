//! [`MetadataUrl`]: where metadata lies.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where metadata lies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MetadataUrl {
    /// `embedded:`: a database file in the data folder, for one process.
    #[default]
    Embedded,
    /// `etcd://HOST:2379[,HOST:2379…]/PREFIX`.
    Etcd {
        /// `HOST:PORT`, at least one.
        endpoints: Vec<String>,
        /// Key prefix without slashes at its ends; not empty.
        prefix: String,
    },
}

/// Not a metadata URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("metadata URL {url:?}: {problem}; use embedded: or etcd://HOST:2379[,HOST:2379…]/PREFIX")]
pub struct MetadataUrlError {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl FromStr for MetadataUrl {
    type Err = MetadataUrlError;
    fn from_str(url: &str) -> Result<Self, MetadataUrlError> {
        let bad = |problem| MetadataUrlError {
            url: url.to_owned(),
            problem,
        };
        if url == "embedded:" || url == "embedded" {
            return Ok(MetadataUrl::Embedded);
        }
        let rest = url
            .strip_prefix("etcd://")
            .ok_or_else(|| bad("the scheme is unknown"))?;
        let (hosts, prefix) = rest.split_once('/').ok_or_else(|| bad("the prefix is missing"))?;
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
        Ok(MetadataUrl::Etcd {
            endpoints,
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetadataUrl::Embedded => f.write_str("embedded:"),
            MetadataUrl::Etcd { endpoints, prefix } => write!(f, "etcd://{}/{prefix}", endpoints.join(",")),
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
        for url in ["embedded:", "etcd://a:2379/aircheck", "etcd://a:2379,[::1]:2379/x/y"] {
            assert_eq!(url.parse::<MetadataUrl>().unwrap().to_string(), url);
        }
        for bad in [
            "",
            "etcd://a:2379",
            "etcd://a/x",
            "etcd://:1/x",
            "etcd://a:2379/",
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
}
