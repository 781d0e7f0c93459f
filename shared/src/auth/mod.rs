//! Credentials: tokens ([`Secret`], [`Tokens`]) and certificates ([`tls`]).
//!
//! Workers show the *join token*, clients the *API token*, as `authorization: Bearer TOKEN`. A certificate that the configured
//! authority signed stands for the join token. What is not configured is not asked for; `config` refuses to listen beyond
//! loopback then.

mod secret;
pub mod tls;

use std::sync::Arc;

pub use self::secret::{MAX_SECRET_BYTES, MIN_SECRET_BYTES, Secret, SecretError};
use opentelemetry::propagation::Injector;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    service::Interceptor,
    transport::Endpoint,
};

use self::tls::Certificates;
use crate::{config::AuthConfig, trace};

/// The tokens of a process, read.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Of workers.
    pub join: Option<Secret>,
    /// Of clients.
    pub api: Option<Secret>,
}

impl Tokens {
    /// Reads the files that are configured.
    ///
    /// # Errors
    /// A file cannot be read, or holds no token.
    pub fn load(config: &AuthConfig) -> Result<Self, SecretError> {
        let one = |token: &Option<Secret>, file: &Option<std::path::PathBuf>| match (token, file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => Secret::read(path).map(Some),
            (None, None) => Ok(None),
        };
        Ok(Tokens {
            join: one(&config.join_token, &config.join_token_file)?,
            api: one(&config.api_token, &config.api_token_file)?,
        })
    }
}

/// Whom a gRPC method is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Health, reflection, and the autoscaler's questions: KEDA cannot show a token, and the answer is one number.
    Anyone,
    Worker,
    Client,
}

fn door(path: &str) -> Door {
    match path {
        path if ["/grpc.health.", "/grpc.reflection.", "/externalscaler."]
            .iter()
            .any(|open| path.starts_with(open)) =>
        {
            Door::Anyone
        }
        path if path.starts_with("/aircheck.v1.Workers/") => Door::Worker,
        _ => Door::Client,
    }
}

/// The token in an `authorization` header.
#[must_use]
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What this process shows to coordinators: a bearer token with every call, and a certificate where the connection has TLS.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    authorization: Option<MetadataValue<Ascii>>,
    tls: Option<Arc<Certificates>>,
}

impl Caller {
    /// Shows this token, and speaks so to `https://` addresses.
    ///
    /// # Errors
    /// [`SecretError::Characters`]: no header can carry the token.
    pub fn new(token: Option<&Secret>, tls: Option<Arc<Certificates>>) -> Result<Self, SecretError> {
        let header = |token: &Secret| {
            let mut value =
                MetadataValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| SecretError::Characters)?;
            // Kept out of logs of headers.
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Caller {
            authorization: token.map(header).transpose()?,
            tls,
        })
    }

    /// Prepares the connection to a coordinator, with the certificates of this moment.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn endpoint(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        self.endpoint_of(endpoint, None)
    }

    /// [`Caller::endpoint`] at an address of a coordinator whose certificate is for `name`, unless `tls.coordinator_name` says another.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn endpoint_of(&self, endpoint: Endpoint, name: Option<&str>) -> Result<Endpoint, tonic::transport::Error> {
        match &self.tls {
            Some(tls) if endpoint.uri().scheme_str() == Some("https") => endpoint.tls_config(tls.grpc_client(name)),
            _ => Ok(endpoint),
        }
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        trace::inject(&mut Metadata(request.metadata_mut()));
        Ok(request)
    }
}

/// Where a call says to which trace it belongs.
struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

/// What a coordinator asks of who calls it.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    tokens: Tokens,
    /// Certificates of an authority are looked at.
    certificates: bool,
}

impl Gate {
    /// Asks for these tokens; with `certificates`, for a certificate where there is no token to ask for.
    #[must_use]
    pub fn new(tokens: Tokens, certificates: bool) -> Self {
        Gate { tokens, certificates }
    }

    /// Lets a call of the gRPC method at `path` in. `shown` is its bearer token, `certified` says that it came with a
    /// certificate of the configured authority.
    ///
    /// # Errors
    /// In words: what is wanted, and where it is set.
    pub fn check(&self, path: &str, shown: Option<&str>, certified: bool) -> Result<(), &'static str> {
        let (token, may_certify, refusal) = match door(path) {
            Door::Anyone => return Ok(()),
            Door::Worker => (
                &self.tokens.join,
                true,
                "this coordinator takes workers that show its join token (auth.join_token_file, or AIRCHECK_JOIN_TOKEN) or a certificate of its authority (tls.cert_file)",
            ),
            // A worker's certificate opens what workers need, not what operators do, once operators have a token.
            Door::Client => (
                &self.tokens.api,
                self.tokens.api.is_none(),
                "this coordinator wants its API token: give --token-file, or set AIRCHECK_API_TOKEN",
            ),
        };
        let known = shown.is_some_and(|shown| token.as_ref().is_some_and(|token| token.is(shown)));
        let open = token.is_none() && !self.certificates;
        if open || known || (certified && may_certify) {
            Ok(())
        } else {
            Err(refusal)
        }
    }

    /// Lets an HTTP request for what is only for operators in.
    #[must_use]
    pub fn operator(&self, shown: Option<&str>) -> bool {
        let token = &self.tokens.api;
        token.is_none() || shown.is_some_and(|shown| token.as_ref().is_some_and(|token| token.is(shown)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: &str = "/aircheck.v1.Workers/AcquireLease";
    const CLIENTS: &str = "/aircheck.v1.Rules/ListRules";
    const JOIN: &str = "join-join-join-join";
    const API: &str = "api-api-api-api-api";

    fn gate(join: bool, api: bool, certificates: bool) -> Gate {
        let token = |wanted: bool, text| wanted.then(|| Secret::new(text).unwrap());
        let tokens = Tokens {
            join: token(join, JOIN),
            api: token(api, API),
        };
        Gate::new(tokens, certificates)
    }

    #[test]
    fn each_token_opens_its_own_door() {
        let gate = gate(true, true, false);
        for (path, shown, opens) in [
            (WORKERS, Some(JOIN), true),
            (WORKERS, Some(API), false),
            (WORKERS, None, false),
            (CLIENTS, Some(API), true),
            (CLIENTS, Some(JOIN), false),
            (CLIENTS, None, false),
            ("/grpc.health.v1.Health/Check", None, true),
            ("/externalscaler.ExternalScaler/GetMetrics", None, true),
            ("/none", None, false),
        ] {
            assert_eq!(gate.check(path, shown, false).is_ok(), opens, "{path} {shown:?}");
        }
        assert!(gate.operator(Some(API)) && !gate.operator(None) && !gate.operator(Some(JOIN)));
    }

    #[test]
    fn a_certificate_stands_for_the_join_token() {
        let both = gate(true, true, true);
        assert!(both.check(WORKERS, None, true).is_ok());
        assert!(both.check(CLIENTS, None, true).is_err(), "a worker is no operator");
        let certificates_alone = gate(false, false, true);
        assert!(certificates_alone.check(WORKERS, None, false).is_err());
        assert!(certificates_alone.check(WORKERS, Some(JOIN), false).is_err());
        assert!(certificates_alone.check(CLIENTS, None, true).is_ok());
        assert!(certificates_alone.check(CLIENTS, None, false).is_err());
        let open = gate(false, false, false);
        assert!(open.check(WORKERS, None, false).is_ok() && open.check(CLIENTS, Some("x"), false).is_ok());
        assert!(open.operator(None));
    }

    #[test]
    fn bearer_tokens_are_read_as_http_has_them() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
