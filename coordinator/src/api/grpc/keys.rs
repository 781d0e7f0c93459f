//! Service `Keys`.

use std::sync::Arc;

use proto::v1;
use shared::{
    access::{AccessKey, AccessScope},
    ids::check_domain,
    secret::{Sealed, Secret, Vault, VaultError, random_text},
    store::{Guard, StoreError, Txn, keys},
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Api, status::Failure};
use crate::{
    actors::coordinator::Decide,
    doors::PushDomain,
    events::{book::KEY_PURPOSE, desk},
};

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

/// How many secrets there are, and how many of them were sealed anew.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    resealed: u32,
    total: u32,
}

impl Tally {
    /// Seals one secret with the newest key; true if it was with another.
    fn reseal(&mut self, vault: &Vault, purpose: &str, sealed: &mut Sealed) -> Result<bool, VaultError> {
        self.total = self.total.saturating_add(1);
        let Some(anew) = vault.reseal(purpose, sealed)? else {
            return Ok(false);
        };
        *sealed = anew;
        self.resealed = self.resealed.saturating_add(1);
        Ok(true)
    }
}

impl Api {
    /// Access keys, one after the other: one that changes meanwhile is looked at again.
    async fn reseal_access_keys(&self, tally: &mut Tally) -> Result<(), Failure> {
        let known: Vec<AccessKey> = self.tools.repo.all(keys::ACCESS_KEYS).await?;
        for AccessKey { id, .. } in known {
            loop {
                let place = keys::access_key(&id);
                let Some((mut key, revision)) = self.tools.repo.get::<AccessKey>(&place).await? else {
                    break;
                };
                let mut after = *tally;
                let purpose = AccessKey::purpose(&id);
                if after
                    .reseal(&self.tools.vault, &purpose, &mut key.sealed)
                    .map_err(unsealed)?
                {
                    let guard = Guard::AtRevision(place.clone(), revision);
                    let txn = Txn::new().guard(guard).put_json(place.clone(), &key)?;
                    match self.tools.repo.store().commit(txn).await {
                        Err(StoreError::Stale { key }) if key == place => continue,
                        committed => committed?,
                    };
                }
                *tally = after;
                break;
            }
        }
        Ok(())
    }

    /// Push keys, all at once.
    async fn reseal_push_keys(&self) -> Result<Tally, Failure> {
        let vault = Arc::clone(&self.tools.vault);
        let decide = Decide(Box::new(move |state, _| {
            let (mut tally, mut all) = (Tally::default(), Txn::new());
            let names: Vec<String> = state.doors.domains().map(|domain| domain.name.clone()).collect();
            for name in names {
                let mut auth = state.doors.domain(&name).map_err(Failure::internal)?.auth.clone();
                let mut changed = false;
                for sealed in [&mut auth.master, &mut auth.backup].into_iter().flatten() {
                    changed |= tally
                        .reseal(&vault, &PushDomain::purpose(&name), sealed)
                        .map_err(unsealed)?;
                }
                if changed {
                    let txn = state.doors.change_domain(&name, |domain| domain.auth = auth);
                    all.ops.extend(txn.map_err(Failure::internal)?.ops);
                }
            }
            Ok::<_, Failure>((tally, all))
        }));
        self.handle.ask(decide).await?
    }

    /// Callback keys, all at once.
    async fn reseal_callback_keys(&self) -> Result<Tally, Failure> {
        let vault = Arc::clone(&self.tools.vault);
        let resealed = desk::change(&self.tools.repo, move |book| {
            let mut tally = Tally::default();
            let each = book
                .keys_mut()
                .map(|sealed| tally.reseal(&vault, KEY_PURPOSE, sealed).map(drop));
            let done: Result<(), VaultError> = each.collect();
            Ok(done.map(|()| tally))
        });
        let resealed = resealed.await?.map_err(Failure::internal)?;
        resealed.map_err(unsealed)
    }
}

fn unsealed(error: VaultError) -> Failure {
    match error {
        VaultError::WrongKey => Failure::refused(error),
        other => Failure::internal(other),
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

    async fn reseal_secrets(
        &self,
        _: Request<v1::ResealSecretsRequest>,
    ) -> Result<Response<v1::ResealSecretsResponse>, Status> {
        let mut tally = Tally::default();
        self.reseal_access_keys(&mut tally).await?;
        for more in [self.reseal_push_keys().await?, self.reseal_callback_keys().await?] {
            tally.resealed = tally.resealed.saturating_add(more.resealed);
            tally.total = tally.total.saturating_add(more.total);
        }
        // From now on a coordinator that has not the newest key does not start.
        let note = Txn::new().put(keys::VAULT, self.tools.vault.fingerprint().as_bytes().to_vec());
        self.tools.repo.store().commit(note).await.map_err(Failure::from)?;
        info!(resealed = tally.resealed, total = tally.total, "secrets sealed anew");
        Ok(Response::new(v1::ResealSecretsResponse {
            resealed: tally.resealed,
            total: tally.total,
        }))
    }
}
