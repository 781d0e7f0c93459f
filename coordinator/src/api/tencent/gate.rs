//! [`Gate`]: who may ask for what, and how often; decided before anything is done.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::{
    access::{AccessKey, AccessScope},
    secret::Vault,
    store::{Repo, keys},
    time::Clock,
};

use super::{
    actions::{self, Action},
    error::ApiError,
    limits::Buckets,
    params::Fields,
    replays::Replays,
    request::{Call, Signer},
    signature::Received,
};
use crate::actors::coordinator::Tools;

/// Requests a second with a wrong signature that are listened to from one address.
const FAILURES_PER_SECOND: u32 = 20;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) secret_id: String,
    pub(crate) scope: AccessScope,
}

impl Caller {
    /// Lets through who may act on this domain, which is in lower case.
    pub(crate) fn check_domain(&self, domain: &str) -> Result<(), ApiError> {
        match self.scope.covers(domain) {
            true => Ok(()),
            false => Err(ApiError::unauthorized(format!(
                "the key {} is not for the domain {domain}",
                self.secret_id
            ))),
        }
    }

    /// Lets through who may act on what belongs to no domain.
    pub(crate) fn check_all(&self) -> Result<(), ApiError> {
        match self.scope.covers_all() {
            true => Ok(()),
            false => Err(ApiError::unauthorized(format!(
                "the key {} is for single domains, and this belongs to all of them",
                self.secret_id
            ))),
        }
    }
}

/// A request that may be carried out.
pub(crate) struct Passed {
    pub(crate) caller: Caller,
    pub(crate) action: &'static Action,
    pub(crate) fields: Fields,
}

/// Checks requests. What it remembers is this process's alone and bounded.
pub(crate) struct Gate {
    repo: Repo,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    replays: Mutex<Replays>,
    rates: Mutex<Buckets<(String, &'static str)>>,
    failures: Mutex<Buckets<IpAddr>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    pub(crate) fn new(tools: &Tools) -> Self {
        Gate {
            repo: tools.repo.clone(),
            vault: Arc::clone(&tools.vault),
            clock: Arc::clone(&tools.clock),
            replays: Mutex::default(),
            rates: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Lets in who did not fail too often just now, before a byte of the body is read.
    pub(crate) fn admit(&self, peer: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(peer) = peer else { return Ok(()) };
        let has = locked(&self.failures).has(&peer, FAILURES_PER_SECOND, self.clock.monotonic());
        if has {
            return Ok(());
        }
        Err(ApiError::new(
            "RequestLimitExceeded.IPLimitExceeded",
            format!("more than {FAILURES_PER_SECOND} requests a second from {peer} failed to prove who they are"),
        ))
    }

    /// Checks signature, nonce, action, rate and right, in this order.
    ///
    /// # Errors
    /// The first that is wrong.
    pub(crate) async fn pass(&self, request: &Received<'_>, peer: Option<IpAddr>) -> Result<Passed, ApiError> {
        let proved = self.prove(request).await;
        if proved.is_err()
            && let Some(peer) = peer
        {
            locked(&self.failures).take(peer, FAILURES_PER_SECOND, self.clock.monotonic());
        }
        let (call, caller) = proved?;
        let action = actions::find(&call.version, &call.action)?;
        let bucket = (caller.secret_id.clone(), action.name);
        if !locked(&self.rates).take(bucket, action.per_second, self.clock.monotonic()) {
            return Err(ApiError::new(
                "RequestLimitExceeded",
                format!(
                    "{} is limited to {} requests a second for each key",
                    action.name, action.per_second
                ),
            ));
        }
        if action.changes && !caller.scope.manage {
            return Err(ApiError::unauthorized(format!(
                "the key {} may only read, and {} changes something",
                caller.secret_id, action.name
            )));
        }
        Ok(Passed {
            caller,
            action,
            fields: call.fields?,
        })
    }

    async fn prove(&self, request: &Received<'_>) -> Result<(Call, Caller), ApiError> {
        let now = self.clock.now();
        let call = Call::read(request, now)?;
        let id = call.secret_id();
        let Some((key, _)) = self.repo.get::<AccessKey>(&keys::access_key(id)).await? else {
            return Err(ApiError::new(
                "AuthFailure.SecretIdNotFound",
                format!("there is no key {id}"),
            ));
        };
        if key.disabled.is_some() {
            return Err(ApiError::new(
                "AuthFailure.InvalidSecretId",
                format!("the key {id} is disabled"),
            ));
        }
        let secret = self
            .vault
            .open(&AccessKey::purpose(&key.id), &key.sealed)
            .map_err(|error| ApiError::new("InternalError", error))?;
        call.verify(request, secret.reveal())?;
        if let Signer::V1(claim, _) = &call.signer {
            locked(&self.replays).note(&key.id, claim.timestamp, &claim.nonce, now)?;
        }
        let caller = Caller {
            secret_id: key.id,
            scope: key.scope,
        };
        Ok((call, caller))
    }
}
