//! Certificates from PEM files, for gRPC and HTTP, served and spoken. The files are read again while the process runs, for
//! certificates live shorter than processes: connections that begin after a renewal use the new ones. Files that cannot be
//! used are kept out: the certificates from before go on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use rustls::{
    RootCertStore, ServerConfig,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use thiserror::Error;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tracing::{error, info};

use crate::config::TlsConfig;

/// Certificates that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {setting} {path}")]
    File {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not PEM of what it should hold.
    #[error("{setting} {path}: {problem}")]
    Pem {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not fit.
    #[error("tls.cert_file and tls.key_file cannot be used together")]
    Pair(#[source] rustls::Error),
    /// The authority's certificates cannot be used.
    #[error("tls.ca_file cannot be used: {0}")]
    Authority(String),
}

/// What the files held.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    /// Certificate and key.
    pair: Option<(Vec<u8>, Vec<u8>)>,
    authority: Option<Vec<u8>>,
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let read = |setting, path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::File {
                setting,
                path: path.to_owned(),
                source,
            })
        };
        let pair = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => Some((read("tls.cert_file", cert)?, read("tls.key_file", key)?)),
            _ => None,
        };
        let authority = config.ca_file.as_deref().map(|path| read("tls.ca_file", path));
        Ok(Files {
            pair,
            authority: authority.transpose()?,
        })
    }
}

/// What was made of the files.
struct Made {
    files: Files,
    own: Option<Arc<CertifiedKey>>,
    grpc_server: Option<Arc<ServerConfig>>,
    grpc_client: ClientTlsConfig,
    http_client: Arc<rustls::ClientConfig>,
}

fn problem(setting: &'static str, path: Option<&PathBuf>, problem: impl ToString) -> TlsError {
    TlsError::Pem {
        setting,
        path: path.cloned().unwrap_or_default(),
        problem: problem.to_string(),
    }
}

fn certificates(
    setting: &'static str,
    path: Option<&PathBuf>,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| problem(setting, path, error))?;
    if found.is_empty() {
        return Err(problem(setting, path, "there is no certificate in it"));
    }
    Ok(found)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What is shown is fixed within one of these; who it comes from is not.
#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Made {
    fn of(config: &TlsConfig, files: Files) -> Result<Self, TlsError> {
        let mut own = None;
        let mut identity = None;
        if let Some((cert, key)) = &files.pair {
            let chain = certificates("tls.cert_file", config.cert_file.as_ref(), cert)?;
            let secret = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| problem("tls.key_file", config.key_file.as_ref(), error))?;
            own = Some((chain, secret));
            identity = Some(Identity::from_pem(cert, key));
        }
        let mut roots = None;
        if let Some(pem) = &files.authority {
            let mut store = RootCertStore::empty();
            // A bundle may hold certificates of kinds that are not known here.
            let bundle = certificates("tls.ca_file", config.ca_file.as_ref(), pem)?;
            let (known, _) = store.add_parsable_certificates(bundle);
            if known == 0 {
                let words = "none of its certificates can be trusted";
                return Err(problem("tls.ca_file", config.ca_file.as_ref(), words));
            }
            roots = Some(Arc::new(store));
        }
        let http_client = http_client(roots.as_ref(), own.as_ref())?;
        let own = own
            .map(|(chain, key)| CertifiedKey::from_der(chain, key, &provider()))
            .transpose()
            .map_err(TlsError::Pair)?
            .map(Arc::new);
        let grpc_server = own
            .as_ref()
            .map(|own| {
                let callers = roots.as_ref().filter(|_| config.certifies());
                grpc_server(callers, Arc::new(Fixed(Arc::clone(own))))
            })
            .transpose()?;
        let mut grpc_client = match &files.authority {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        if let Some(identity) = identity {
            grpc_client = grpc_client.identity(identity);
        }
        Ok(Made {
            files,
            own,
            grpc_server: grpc_server.map(Arc::new),
            grpc_client,
            http_client: Arc::new(http_client),
        })
    }
}

/// Clients may show a certificate of the authority, and none need to: what that means is [`super::Gate`]'s to say.
fn grpc_server(roots: Option<&Arc<RootCertStore>>, own: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::Authority(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder.with_cert_resolver(own);
    server.alpn_protocols.push(b"h2".to_vec());
    Ok(server)
}

fn http_client(
    roots: Option<&Arc<RootCertStore>>,
    own: Option<&(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<rustls::ClientConfig, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?;
    let builder = match roots {
        Some(roots) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
                .build()
                .map_err(|error| TlsError::Authority(error.to_string()))?;
            builder.with_webpki_verifier(verifier)
        }
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    match own {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(TlsError::Pair),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The certificates of a process as their files hold them now.
pub struct Certificates {
    config: TlsConfig,
    made: RwLock<Arc<Made>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files that are configured; with none of them, nothing is served over TLS and nobody is trusted by it.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(config: &TlsConfig) -> Result<Arc<Self>, TlsError> {
        let made = Made::of(config, Files::read(config)?)?;
        Ok(Arc::new(Certificates {
            config: config.clone(),
            made: RwLock::new(Arc::new(made)),
        }))
    }

    /// [`Certificates::load`], and reads them again every `tls.reload_interval` for as long as somebody holds them. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn follow(config: &TlsConfig) -> Result<Arc<Self>, TlsError> {
        let certificates = Self::load(config)?;
        if config.cert_file.is_some() || config.ca_file.is_some() {
            let (held, every) = (Arc::downgrade(&certificates), config.reload_interval);
            tokio::spawn(look_again(held, every));
        }
        Ok(certificates)
    }

    fn now(&self) -> Arc<Made> {
        Arc::clone(&self.made.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again; true if they hold something else now, which is used from here on.
    ///
    /// # Errors
    /// [`TlsError`]: what was used before is used still.
    pub fn look(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.config)?;
        if files == self.now().files {
            return Ok(false);
        }
        let made = Arc::new(Made::of(&self.config, files)?);
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(true)
    }

    /// How a gRPC connection that begins now is served; none: in the clear.
    #[must_use]
    pub fn grpc_server(&self) -> Option<Arc<ServerConfig>> {
        self.now().grpc_server.clone()
    }

    /// How a coordinator at an `https://` address is spoken to: trusted by the configured authority, or else by those of the
    /// system; and shown this process's certificate, if it has one. Its own must be for `tls.coordinator_name`, or else for
    /// `name`, or else for the host in the address.
    #[must_use]
    pub fn grpc_client(&self, name: Option<&str>) -> ClientTlsConfig {
        let client = self.now().grpc_client.clone();
        match self.coordinator_name().or(name) {
            Some(name) => client.domain_name(name),
            None => client,
        }
    }

    /// What coordinators' certificates are for, whatever their addresses.
    #[must_use]
    pub fn coordinator_name(&self) -> Option<&str> {
        self.config.coordinator_name.as_deref()
    }

    /// The same over HTTP; trusted by the configured authority alone.
    #[must_use]
    pub fn http_client(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.now().http_client)
    }

    /// How HTTP is served, each connection with the certificate of its moment; none: in the clear.
    ///
    /// # Errors
    /// [`TlsError`], never in practice.
    pub fn http_server(self: &Arc<Self>) -> Result<Option<ServerConfig>, TlsError> {
        if self.now().own.is_none() {
            return Ok(None);
        }
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(Some(server))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.now().own.clone()
    }
}

/// Looks again and again until nobody holds the certificates. Each failure is said once.
async fn look_again(held: Weak<Certificates>, every: Duration) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(every).await;
        let Some(certificates) = held.upgrade() else { return };
        // Files may lie on a file system that hangs.
        let Ok(looked) = tokio::task::spawn_blocking(move || certificates.look()).await else {
            continue;
        };
        match looked {
            Ok(renewed) => {
                said.clear();
                if renewed {
                    info!("certificates were renewed: connections that begin from now on use them");
                }
            }
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "renewed certificates cannot be used: the ones from before go on, mend the files"
                    );
                    said = text;
                }
            }
        }
    }
}
