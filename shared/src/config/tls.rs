//! Settings of certificates.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// `[tls]`: certificates, as PEM files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// This process's certificate and those that lead to its authority: gRPC and HTTP are served with it, and workers show it to coordinators.
    pub cert_file: Option<PathBuf>,
    /// Its key; together with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Name that coordinators' certificates have, whatever address a coordinator is called at: coordinators call each other so, workers and a standalone
    /// process theirs. Absent: the name in the address; of a standalone process `localhost`.
    pub coordinator_name: Option<String>,
    /// A certificate that `ca_file` signed stands for the token of whoever shows it. False: who calls must show a token, which is for an authority that
    /// signs others' certificates as well.
    pub admit_certificates: bool,
    /// The authority that signed the others' certificates: workers trust coordinators by it, and coordinators workers.
    pub ca_file: Option<PathBuf>,
    /// Between two looks whether the files were renewed, 10 ms to 1 h.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
}

impl Default for TlsConfig {
    fn default() -> Self {
        TlsConfig {
            cert_file: None,
            key_file: None,
            coordinator_name: None,
            admit_certificates: true,
            ca_file: None,
            reload_interval: Duration::from_secs(10),
        }
    }
}

impl TlsConfig {
    /// What is served is served over TLS.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Callers' certificates are looked at.
    #[must_use]
    pub fn certifies(&self) -> bool {
        self.admit_certificates && self.cert_file.is_some() && self.ca_file.is_some()
    }
}
