//! [`EtcdOptions`]: members, prefix, credentials.

use std::path::{Path, PathBuf};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::store::{Login, OpenError};

/// How to reach an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdOptions {
    /// `HOST:PORT` of each member, at least one.
    pub endpoints: Vec<String>,
    /// What all keys begin with, without slashes at its ends.
    pub prefix: String,
    /// Certificates; none: plain text.
    pub tls: Option<EtcdTls>,
    /// User and password, where etcd asks for them.
    pub login: Option<Login>,
}

/// Certificates for connections to etcd, as PEM files. They are read at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdTls {
    /// The authority that signed the members' certificates.
    pub ca_file: PathBuf,
    /// Certificate and key that this process shows, where etcd asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl EtcdOptions {
    /// Reads the files and makes the client's options.
    pub(super) fn connect_options(&self) -> Result<ConnectOptions, OpenError> {
        let mut options = ConnectOptions::new();
        if let Some(tls) = &self.tls {
            let mut config = TlsOptions::new().ca_certificate(Certificate::from_pem(self.read(&tls.ca_file)?));
            if let Some((cert, key)) = &tls.identity {
                config = config.identity(Identity::from_pem(self.read(cert)?, self.read(key)?));
            }
            options = options.with_tls(config);
        }
        if let Some(login) = &self.login {
            options = options.with_user(&login.user, login.password.reveal());
        }
        Ok(options)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, OpenError> {
        std::fs::read(path).map_err(|error| OpenError {
            store: format!("etcd://{}", self.endpoints.join(",")),
            problem: format!("{} cannot be read: {error}", path.display()),
        })
    }
}
