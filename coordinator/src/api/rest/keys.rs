//! `/api/v1/access-keys`: for who runs the cluster, with the API token.

use actix_web::{
    get, post,
    web::{Data, Json, Path},
};
use proto::v1::{self, keys_server::Keys as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, Refusals, Request, Rest, caller::Caller, documents::instant, there};

/// An access key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccessKey {
    /// Its public part.
    secret_id: String,
    /// Words about it.
    note: String,
    /// It may only read.
    read_only: bool,
    /// Push domains that it is for; empty: all.
    domains: Vec<String>,
    /// When it was made.
    created: Option<String>,
    /// Since when it is refused; null: it is accepted.
    disabled: Option<String>,
}

impl From<v1::AccessKey> for AccessKey {
    fn from(key: v1::AccessKey) -> Self {
        AccessKey {
            secret_id: key.secret_id,
            note: key.note,
            read_only: key.read_only,
            domains: key.domains,
            created: instant(key.created_ms),
            disabled: instant(key.disabled_ms),
        }
    }
}

/// All access keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccessKeys {
    /// In the order of their ids; at most 1000.
    keys: Vec<AccessKey>,
}

/// An access key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    /// Words about it, at most 256 bytes.
    #[serde(default)]
    note: String,
    /// It may only read.
    #[serde(default)]
    read_only: bool,
    /// Push domains that it is for, at most 100; empty: all.
    #[serde(default)]
    domains: Vec<String>,
}

/// A key with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedKey {
    /// As stored.
    key: AccessKey,
    /// Its secret part; it is not shown again.
    secret_key: String,
}

/// Lists access keys.
#[utoipa::path(tag = "access-keys", responses((status = 200, body = AccessKeys), Refusals))]
#[get("/access-keys")]
pub(super) async fn list_keys(caller: Caller, rest: Data<Rest>) -> Answer<AccessKeys> {
    caller.operator()?;
    let request = Request::new(v1::ListKeysRequest {});
    let answer = rest.api.list_keys(request).await?.into_inner();
    Ok(Json(AccessKeys {
        keys: answer.keys.into_iter().map(AccessKey::from).collect(),
    }))
}

/// Makes an access key. Its secret is in the answer and nowhere else again.
#[utoipa::path(tag = "access-keys", responses((status = 200, body = CreatedKey), Refusals))]
#[post("/access-keys")]
pub(super) async fn create_key(caller: Caller, rest: Data<Rest>, key: Json<NewKey>) -> Answer<CreatedKey> {
    caller.operator()?;
    let NewKey {
        note,
        read_only,
        domains,
    } = key.into_inner();
    let request = v1::CreateKeyRequest {
        note,
        read_only,
        domains,
    };
    let answer = rest.api.create_key(Request::new(request)).await?.into_inner();
    Ok(Json(CreatedKey {
        key: there(answer.key)?.into(),
        secret_key: answer.secret_key,
    }))
}

/// Refuses an access key from now on. Repeating it changes nothing.
#[utoipa::path(tag = "access-keys", responses((status = 200, body = AccessKey), Refusals))]
#[post("/access-keys/{secret_id}/disable")]
pub(super) async fn disable_key(caller: Caller, rest: Data<Rest>, secret_id: Path<String>) -> Answer<AccessKey> {
    caller.operator()?;
    let request = v1::DisableKeyRequest {
        secret_id: secret_id.into_inner(),
    };
    let answer = rest.api.disable_key(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.key)?.into()))
}
