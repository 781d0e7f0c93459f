//! [`EtcdOptions`]: members, prefix, credentials.

use std::path::{Path, PathBuf};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use tonic::transport::Endpoint;

use super::errors::deepest;
use crate::store::{Login, OpenError, Password};

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
    pub login: Option<EtcdLogin>,
}

/// Who this process is to etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdLogin {
    /// A user and its password.
    Given(Login),
    /// The password lies in a file, which may change.
    File {
        /// Name.
        user: String,
        /// The file; line feeds at its end are none of the password.
        password_file: PathBuf,
    },
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
struct Pems {
    ca: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// What connections are made with, as the files have it at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secrets {
    pems: Option<Pems>,
    login: Option<Login>,
}

impl EtcdOptions {
    /// True if any of it lies in files.
    pub(super) const fn has_files(&self) -> bool {
        self.tls.is_some() || matches!(self.login, Some(EtcdLogin::File { .. }))
    }

    /// Reads the files.
    pub(super) fn secrets(&self) -> Result<Secrets, OpenError> {
        let pems = self.tls.as_ref().map(|tls| self.pems(tls)).transpose()?;
        let login = match &self.login {
            Some(EtcdLogin::File { user, password_file }) => Some(self.login(user, password_file)?),
            Some(EtcdLogin::Given(login)) => Some(login.clone()),
            None => None,
        };
        Ok(Secrets { pems, login })
    }

    fn pems(&self, tls: &EtcdTls) -> Result<Pems, OpenError> {
        let identity = match &tls.identity {
            Some((cert, key)) => Some((self.read(cert)?, self.read(key)?)),
            None => None,
        };
        let ca = self.read(&tls.ca_file)?;
        Ok(Pems { ca, identity })
    }

    fn login(&self, user: &str, file: &Path) -> Result<Login, OpenError> {
        let bad = |what| self.problem(format!("store.password_file {} {what}", file.display()));
        let text = String::from_utf8(self.read(file)?).map_err(|_| bad("is not UTF-8"))?;
        // Editors end files with a line feed.
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(bad("is empty")),
            password => Ok(Login {
                user: user.to_owned(),
                password: Password::new(password),
            }),
        }
    }

    /// Makes the client's options with what the files hold. A certificate that is not one, or not of its key, is an error here.
    pub(super) fn connect_options(&self, secrets: &Secrets) -> Result<ConnectOptions, OpenError> {
        let mut options = ConnectOptions::new();
        if let Some(pems) = &secrets.pems {
            let mut config = TlsOptions::new().ca_certificate(Certificate::from_pem(&pems.ca));
            if let Some((cert, key)) = &pems.identity {
                config = config.identity(Identity::from_pem(cert, key));
            }
            let tried = Endpoint::from_static("https://etcd").tls_config(config.clone());
            tried.map_err(|error| self.problem(format!("its certificates cannot be used: {}", deepest(&error))))?;
            options = options.with_tls(config);
        }
        if let Some(login) = &secrets.login {
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
