//! Service `Keys`.

use proto::v1;
use shared::{
    access::{AccessKey, AccessScope},
    ids::check_domain,
    secret::{Secret, random_text},
    store::{Txn, keys},
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Api, status::Failure};

/// Most keys.
const MOST: usize = 1_000;
/// Most domains of a key.
const MAX_DOMAINS: usize = 100;
/// Longest note, bytes.
const MAX_NOTE: usize = 256;

fn written(key: &AccessKey) -> v1::AccessKey {
    v1::AccessKey {
        secret_id: key.id.clone(),
        note: key.note.clone(),
        read_only: !key.scope.manage,
        domains: key.scope.domains.clone(),
        created_ms: key.created.as_millis(),
        disabled_ms: key.disabled.map_or(0, |at| at.as_millis()),
    }
}

fn scope(read_only: bool, domains: Vec<String>) -> Result<AccessScope, Failure> {
    if domains.len() > MAX_DOMAINS {
        return Err(Failure::invalid(format!("domains: at most {MAX_DOMAINS} are allowed")));
    }
    let checked = |domain: String| check_domain(&domain).map_err(|error| Failure::invalid(format!("domains: {error}")));
    Ok(AccessScope {
        manage: !read_only,
        domains: domains.into_iter().map(checked).collect::<Result<_, _>>()?,
    })
}

impl Api {
    async fn put_key(&self, key: AccessKey) -> Result<(), Failure> {
        self.change(move |_, _| Ok(((), Txn::new().put_json(keys::access_key(&key.id), &key)?)))
            .await
    }
}

#[tonic::async_trait]
impl v1::keys_server::Keys for Api {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyResponse>, Status> {
        let v1::CreateKeyRequest {
            note,
            read_only,
            domains,
        } = request.into_inner();
        if note.len() > MAX_NOTE || note.chars().any(char::is_control) {
            return Err(Failure::invalid(format!("note: at most {MAX_NOTE} bytes without control characters")).into());
        }
        let scope = scope(read_only, domains)?;
        let known: Vec<AccessKey> = self.tools.repo.all(keys::ACCESS_KEYS).await.map_err(Failure::from)?;
        if known.len() >= MOST {
            return Err(Failure::full(format!("there are {MOST} keys, the most there may be")).into());
        }
        let id = format!("AKID{}", random_text(32).map_err(Failure::internal)?);
        let secret = Secret::new(random_text(40).map_err(Failure::internal)?);
        let sealed = self
            .tools
            .vault
            .seal(&AccessKey::purpose(&id), &secret)
            .map_err(Failure::internal)?;
        let key = AccessKey {
            id,
            note,
            scope,
            sealed,
            created: self.tools.clock.now(),
            disabled: None,
        };
        self.put_key(key.clone()).await?;
        info!(secret_id = key.id, manage = key.scope.manage, domains = ?key.scope.domains, "access key made");
        Ok(Response::new(v1::CreateKeyResponse {
            key: Some(written(&key)),
            secret_key: secret.reveal().to_owned(),
        }))
    }

    async fn list_keys(&self, _: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        let known: Vec<AccessKey> = self.tools.repo.all(keys::ACCESS_KEYS).await.map_err(Failure::from)?;
        Ok(Response::new(v1::ListKeysResponse {
            keys: known.iter().map(written).collect(),
        }))
    }

    async fn disable_key(
        &self,
        request: Request<v1::DisableKeyRequest>,
    ) -> Result<Response<v1::DisableKeyResponse>, Status> {
        let id = request.into_inner().secret_id;
        let known = self.tools.repo.get::<AccessKey>(&keys::access_key(&id)).await;
        let Some((mut key, _)) = known.map_err(Failure::from)? else {
            return Err(Failure::not_found(format!("no key {id}: `aircheck key list` shows what there is")).into());
        };
        if key.disabled.is_none() {
            key.disabled = Some(self.tools.clock.now());
            self.put_key(key.clone()).await?;
            info!(secret_id = key.id, "access key disabled");
        }
        Ok(Response::new(v1::DisableKeyResponse {
            key: Some(written(&key)),
        }))
    }
}
