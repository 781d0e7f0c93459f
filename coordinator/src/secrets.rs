//! Opens the [`Vault`] and makes sure that it is the one that the store's secrets were sealed with.

use std::{path::PathBuf, sync::Arc};

use shared::{
    config::CoordinatorConfig,
    secret::{Vault, VaultError},
    store::{Guard, MetaStore, StoreError, Txn, keys},
};
use thiserror::Error;
use tracing::warn;

/// Name of the key file within the data folder, where no other is configured.
const KEY_FILE: &str = "secrets.key";

/// Why secrets cannot be used.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// The key file, or another key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store.
    #[error("cannot compare the key file with the metadata store")]
    Store(#[from] StoreError),
}

/// Opens the key file, or makes it, and notes its fingerprint in a store that has none yet.
///
/// # Errors
/// [`SecretsError`]; [`VaultError::WrongKey`] when the store's secrets were sealed with another key than the configured one. A key that
/// nobody configured is then no more than unusable.
pub(crate) async fn open(config: &CoordinatorConfig, store: &dyn MetaStore) -> Result<Arc<Vault>, SecretsError> {
    let path: PathBuf = config
        .secrets_key_file
        .clone()
        .unwrap_or_else(|| config.data_dir.join(KEY_FILE));
    let vault = Vault::open_file(&path)?;
    let mine = vault.fingerprint().as_bytes();
    if store.get(keys::VAULT).await?.is_none() {
        let note = Txn::new()
            .guard(Guard::Absent(keys::VAULT.to_owned()))
            .put(keys::VAULT, mine.to_vec());
        match store.commit(note).await {
            // Another coordinator was quicker: compare with what it noted.
            Ok(_) | Err(StoreError::Stale { .. }) => {}
            // A store that cannot write holds nobody up who only follows: the next start notes it.
            Err(error @ StoreError::Unavailable(_)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the key file's fingerprint is not noted yet"
                );
                return Ok(Arc::new(vault));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match store.get(keys::VAULT).await? {
        Some(entry) if vault.knows(&entry.value) => Ok(Arc::new(vault)),
        // Recording must not wait for keys that nobody may use; whoever uses them hears what to do.
        _ if config.secrets_key_file.is_none() => {
            warn!(
                "coordinator.secrets_key_file is not set and this coordinator's own key is not the cluster's: the HTTP API and push keys do not work while it leads"
            );
            Ok(Arc::new(vault.foreign()))
        }
        _ => Err(VaultError::WrongKey.into()),
    }
}

#[cfg(test)]
mod tests {
    use shared::{store::Model, time::System};

    use super::*;

    #[tokio::test]
    async fn another_key_than_the_store_s_is_refused_at_the_start() {
        let store = Model::new(Arc::new(System::new()));
        let dir = tempfile::tempdir().unwrap();
        let mut config = CoordinatorConfig {
            data_dir: dir.path().to_owned(),
            ..CoordinatorConfig::default()
        };
        let first = open(&config, &store).await.unwrap();
        let again = open(&config, &store).await.unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        config.data_dir = dir.path().join("another");
        std::fs::create_dir(&config.data_dir).unwrap();
        let unusable = open(&config, &store).await.unwrap();
        let secret = shared::secret::Secret::new("s");
        assert!(matches!(unusable.seal("p", &secret), Err(VaultError::WrongKey)));
        config.secrets_key_file = Some(dir.path().join("other.key"));
        let refused = open(&config, &store).await.unwrap_err();
        assert!(
            refused.to_string().contains("coordinator.secrets_key_file"),
            "{refused}"
        );
    }
}
