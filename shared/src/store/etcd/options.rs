//! [`EtcdOptions`]: members, prefix, credentials.

use std::path::{Path, PathBuf};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use tonic::transport::Endpoint;

use super::errors::deepest;
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

/// Certificates for connections to etcd, as PEM files. When they change, connections are made with the new ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdTls {
    /// The authority that signed the members' certificates.
    pub ca_file: PathBuf,
    /// Certificate and key that this process shows, where etcd asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What lies in the files of [`EtcdTls`].
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pems {
    ca: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdOptions {
    /// Reads the files; none without TLS.
    pub(super) fn pems(&self) -> Result<Option<Pems>, OpenError> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let identity = match &tls.identity {
            Some((cert, key)) => Some((self.read(cert)?, self.read(key)?)),
            None => None,
        };
        let ca = self.read(&tls.ca_file)?;
        Ok(Some(Pems { ca, identity }))
    }

    /// Makes the client's options with what the files hold. A certificate that is not one, or not of its key, is an error here.
    pub(super) fn connect_options(&self, pems: Option<&Pems>) -> Result<ConnectOptions, OpenError> {
        let mut options = ConnectOptions::new();
        if let Some(pems) = pems {
            let mut config = TlsOptions::new().ca_certificate(Certificate::from_pem(&pems.ca));
            if let Some((cert, key)) = &pems.identity {
                config = config.identity(Identity::from_pem(cert, key));
            }
            let tried = Endpoint::from_static("https://etcd").tls_config(config.clone());
            tried.map_err(|error| self.problem(format!("its certificates cannot be used: {}", deepest(&error))))?;
            options = options.with_tls(config);
        }
        if let Some(login) = &self.login {
            options = options.with_user(&login.user, login.password.reveal());
        }
        Ok(options)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, OpenError> {
        std::fs::read(path).map_err(|error| self.problem(format!("{} cannot be read: {error}", path.display())))
    }

    fn problem(&self, problem: String) -> OpenError {
        OpenError {
            store: format!("etcd://{}", self.endpoints.join(",")),
            problem,
        }
    }
}
