//! Certificates from PEM files, for gRPC and HTTP. The files are read at the start; who renews them restarts the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use thiserror::Error;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

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
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File {
        setting,
        path: path.to_owned(),
        source,
    })
}

fn identity(config: &TlsConfig) -> Result<Option<Identity>, TlsError> {
    let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) else {
        return Ok(None);
    };
    // Once for itself: the error then says which file is wrong.
    http_server(config)?;
    Ok(Some(Identity::from_pem(
        read("tls.cert_file", cert)?,
        read("tls.key_file", key)?,
    )))
}

fn authority(config: &TlsConfig) -> Result<Option<Certificate>, TlsError> {
    let Some(path) = &config.ca_file else { return Ok(None) };
    let pem = read("tls.ca_file", path)?;
    certificates("tls.ca_file", path, &pem)?;
    Ok(Some(Certificate::from_pem(pem)))
}

fn certificates(setting: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |problem: String| TlsError::Pem {
        setting,
        path: path.to_owned(),
        problem,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

/// How gRPC is served: none, in the clear. Clients may show a certificate of the authority, and none need to: what that
/// means is [`super::Gate`]'s to say.
///
/// # Errors
/// [`TlsError`].
pub fn grpc_server(config: &TlsConfig) -> Result<Option<ServerTlsConfig>, TlsError> {
    let Some(identity) = identity(config)? else {
        return Ok(None);
    };
    let mut tls = ServerTlsConfig::new().identity(identity);
    if let Some(authority) = authority(config)? {
        tls = tls.client_ca_root(authority).client_auth_optional(true);
    }
    Ok(Some(tls))
}

/// How a coordinator at an `https://` address is spoken to: trusted by the configured authority, or else by those of the
/// system; and shown this process's certificate, if it has one.
///
/// # Errors
/// [`TlsError`].
pub fn grpc_client(config: &TlsConfig) -> Result<ClientTlsConfig, TlsError> {
    let tls = match authority(config)? {
        Some(authority) => ClientTlsConfig::new().ca_certificate(authority),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    Ok(match identity(config)? {
        Some(identity) => tls.identity(identity),
        None => tls,
    })
}

/// How HTTP is served: none, in the clear.
///
/// # Errors
/// [`TlsError`].
pub fn http_server(config: &TlsConfig) -> Result<Option<rustls::ServerConfig>, TlsError> {
    let (Some(cert_path), Some(key_path)) = (&config.cert_file, &config.key_file) else {
        return Ok(None);
    };
    let chain = certificates("tls.cert_file", cert_path, &read("tls.cert_file", cert_path)?)?;
    let key = PrivateKeyDer::from_pem_slice(&read("tls.key_file", key_path)?).map_err(|error| TlsError::Pem {
        setting: "tls.key_file",
        path: key_path.clone(),
        problem: error.to_string(),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Pair)?;
    Ok(Some(server))
}
