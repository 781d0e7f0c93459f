//! [`AccessKey`]: who may ask the HTTP API for what.

use serde::{Deserialize, Serialize};

use crate::{secret::Sealed, time::Timestamp};

/// What the holder of a key may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessScope {
    /// May change things; else only read.
    pub manage: bool,
    /// Push domains that it is for, in lower case; empty: all, and what belongs to no domain.
    pub domains: Vec<String>,
}

impl AccessScope {
    /// True if the key is for this domain, which is in lower case.
    #[must_use]
    pub fn covers(&self, domain: &str) -> bool {
        self.domains.is_empty() || self.domains.iter().any(|known| known == domain)
    }

    /// True if the key is for every domain.
    #[must_use]
    pub fn covers_all(&self) -> bool {
        self.domains.is_empty()
    }
}

/// A key of the HTTP API as it is stored: its secret is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// Its public part, the `SecretId`.
    pub id: String,
    /// Words about it.
    pub note: String,
    /// What its holder may do.
    pub scope: AccessScope,
    /// Its secret part, the `SecretKey`, sealed for [`AccessKey::purpose`].
    pub sealed: Sealed,
    /// When it was made.
    pub created: Timestamp,
    /// Since when it is not accepted.
    pub disabled: Option<Timestamp>,
}

impl AccessKey {
    /// What a key's secret is sealed for.
    #[must_use]
    pub fn purpose(id: &str) -> String {
        format!("access-key/{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_domain_means_every_domain() {
        let scope = |domains: &[&str]| AccessScope {
            manage: false,
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        };
        assert!(scope(&[]).covers("a") && scope(&[]).covers_all());
        assert!(scope(&["a", "b"]).covers("b") && !scope(&["a"]).covers("b") && !scope(&["a"]).covers_all());
    }
}
