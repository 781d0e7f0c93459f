//! From settings to an open store, and which version of the layout lies in it.

use std::{path::Path, sync::Arc};

use super::{
    Embedded, Etcd, EtcdLogin, EtcdOptions, EtcdTls, Guard, MetaStore, MetadataUrl, OpenError, StoreError, Txn, keys,
};
use crate::{config::StoreConfig, time::Clock};

/// Name of the embedded store's file within the data folder.
const EMBEDDED_FILE: &str = "metadata.redb";

/// Opens the store that is configured. An etcd is not spoken to yet.
///
/// # Errors
/// [`OpenError`].
pub fn open(config: &StoreConfig, data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetaStore>, OpenError> {
    match etcd_options(config)? {
        None => Ok(Arc::new(Embedded::open(&data_dir.join(EMBEDDED_FILE), clock)?)),
        Some(options) => Ok(Arc::new(Etcd::new(options, clock)?)),
    }
}

/// What the settings say of an etcd; none: the store is embedded.
fn etcd_options(config: &StoreConfig) -> Result<Option<EtcdOptions>, OpenError> {
    let MetadataUrl::Etcd {
        tls,
        login,
        endpoints,
        prefix,
    } = config.url.clone()
    else {
        return Ok(None);
    };
    let problem = |problem: String| OpenError {
        store: config.url.to_string(),
        problem,
    };
    let tls = match (tls, &config.ca_file) {
        (false, _) => None,
        (true, None) => {
            return Err(problem(
                "etcds:// needs store.ca_file, the authority that signed the members' certificates".to_owned(),
            ));
        }
        (true, Some(ca_file)) => Some(EtcdTls {
            ca_file: ca_file.clone(),
            identity: config.cert_file.clone().zip(config.key_file.clone()),
        }),
    };
    let login = match (login, &config.user, &config.password_file) {
        (None, Some(user), Some(file)) => Some(EtcdLogin::File {
            user: user.clone(),
            password_file: file.clone(),
        }),
        (login, ..) => login.map(EtcdLogin::Given),
    };
    Ok(Some(EtcdOptions {
        endpoints,
        prefix,
        tls,
        login,
    }))
}

/// Version of what lies where ([`keys`]) that this program reads and writes.
pub const LAYOUT: u32 = 1;

/// Checks that what lies in the store is of a layout that this program knows; marks an empty store as such a one.
///
/// # Errors
/// [`StoreError::Corrupt`] for a later layout; those of the store.
pub async fn ensure_layout(store: &dyn MetaStore) -> Result<(), StoreError> {
    let refused = |problem| StoreError::Corrupt {
        key: keys::LAYOUT.to_owned(),
        problem,
    };
    loop {
        if let Some(entry) = store.get(keys::LAYOUT).await? {
            let text = String::from_utf8_lossy(&entry.value).into_owned();
            return match text.parse::<u32>() {
                Ok(LAYOUT) => Ok(()),
                Ok(found) => Err(refused(format!(
                    "the store is of layout {found}, this program knows {LAYOUT}; use a newer program, or another prefix"
                ))),
                Err(_) => Err(refused(format!(
                    "{text:?} is no layout; is the prefix somebody else's?"
                ))),
            };
        }
        let mark = Txn::new()
            .guard(Guard::Absent(keys::LAYOUT.to_owned()))
            .put(keys::LAYOUT, LAYOUT.to_string());
        match store.commit(mark).await {
            // Another was quicker; its mark is read.
            Ok(_) | Err(StoreError::Stale { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::Model, time::System};

    #[tokio::test]
    async fn a_later_layout_is_refused() {
        let store = Model::new(Arc::new(System::new()));
        ensure_layout(&store).await.unwrap();
        ensure_layout(&store).await.unwrap();
        for (value, said) in [("2", "newer program"), ("x", "somebody else's")] {
            store.commit(Txn::new().put(keys::LAYOUT, value)).await.unwrap();
            let refused = ensure_layout(&store).await.unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
