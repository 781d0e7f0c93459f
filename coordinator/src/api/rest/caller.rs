//! [`Caller`]: who asks, and what that one may see. A handler that takes one is asked only by those who may ask at all.

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{Method, StatusCode, header},
    web,
};
use futures_util::future::LocalBoxFuture;
use proto::v1;
use shared::{
    access::{AccessKey, AccessScope},
    auth::bearer,
    store::keys,
};
use subtle::ConstantTimeEq as _;

use super::{Rest, problem::Problem};

/// The gRPC calls whose door this one shares.
const CLIENTS: &str = "/aircheck.v1.Templates/";
/// Longest name of a key that is looked up, bytes.
const MAX_ID: usize = 64;

/// Proof that the request may be carried out, as far as its scope reaches.
#[derive(Debug)]
pub(super) struct Caller {
    scope: AccessScope,
    /// It may make keys for others.
    operator: bool,
}

impl Caller {
    /// True if the caller may see what belongs to this stream.
    pub(super) fn sees(&self, stream: Option<&v1::StreamKey>) -> bool {
        self.scope.covers(stream.map_or("", |stream| &stream.domain))
    }

    /// A call of the caller's, for lists that leave out what it may not see.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(self.scope.clone());
        request
    }

    /// # Errors
    /// 403 unless the caller is for this domain.
    pub(super) fn domain(&self, domain: &str) -> Result<(), Problem> {
        match self.scope.covers(&domain.to_lowercase()) {
            true => Ok(()),
            false => Err(Problem::forbidden("the key is not for this domain")),
        }
    }

    /// # Errors
    /// 403 unless the caller may manage.
    pub(super) fn manages(&self) -> Result<(), Problem> {
        match self.scope.manage {
            true => Ok(()),
            false => Err(Problem::forbidden(
                "the key may read and change nothing, and sees no push keys",
            )),
        }
    }

    /// # Errors
    /// 403 unless the caller is for all domains.
    pub(super) fn everywhere(&self) -> Result<(), Problem> {
        match self.scope.covers_all() {
            true => Ok(()),
            false => Err(Problem::forbidden(
                "this belongs to all domains, and the key is for some only",
            )),
        }
    }

    /// # Errors
    /// 403 unless the caller runs the cluster.
    pub(super) fn operator(&self) -> Result<(), Problem> {
        match self.operator {
            true => Ok(()),
            false => Err(Problem::forbidden(
                "access keys are the operator's: show the API token (auth.api_token_file)",
            )),
        }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Caller, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let rest = request.app_data::<web::Data<Rest>>().cloned();
        let shown = request.headers().get(header::AUTHORIZATION);
        let shown = shown
            .and_then(|value| value.to_str().ok())
            .and_then(bearer)
            .map(str::to_owned);
        let reads = *request.method() == Method::GET;
        // A page of somebody else's that a browser has open beside a server which asks for no token.
        let from_a_page = request
            .headers()
            .get("sec-fetch-site")
            .is_some_and(|site| site == "cross-site");
        Box::pin(async move {
            let rest = rest.ok_or_else(Problem::internal)?;
            if from_a_page {
                return Err(Problem::forbidden("pages of other sites may not ask"));
            }
            let caller = match shown.as_deref().and_then(|shown| shown.split_once(':')) {
                Some((id, secret)) => known(&rest, id, secret).await?.map(|key| Caller {
                    scope: key.scope,
                    operator: false,
                }),
                None => rest.gate.check(CLIENTS, shown.as_deref(), false).ok().map(|()| Caller {
                    scope: AccessScope {
                        manage: true,
                        domains: vec![],
                    },
                    operator: true,
                }),
            };
            let caller = caller.ok_or_else(|| {
                Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "show the API token, or SECRETID:SECRETKEY of an access key, as bearer token",
                )
            })?;
            if !reads && !caller.scope.manage {
                return Err(Problem::forbidden("the key may read and change nothing"));
            }
            Ok(caller)
        })
    }
}

/// The access key that is shown, if it is one that is accepted.
async fn known(rest: &Rest, id: &str, secret: &str) -> Result<Option<AccessKey>, Problem> {
    // What cannot be a key's name is not looked up.
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(None);
    }
    let tools = &rest.api.tools;
    let read = tools.repo.get::<AccessKey>(&keys::access_key(id)).await;
    let read = read.map_err(Problem::unavailable)?;
    let Some((key, _)) = read.filter(|(key, _)| key.disabled.is_none()) else {
        return Ok(None);
    };
    let Ok(opened) = tools.vault.open(&AccessKey::purpose(id), &key.sealed) else {
        return Ok(None);
    };
    let same: bool = opened.reveal().as_bytes().ct_eq(secret.as_bytes()).into();
    Ok(same.then_some(key))
}
