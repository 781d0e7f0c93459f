//! [`Bucket`]: object storage, and as one worker reaches it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use worker::sim::Object;

use crate::world::{Place, World, lock};

/// What lies in storage. Where workers store on their own disks each has one.
#[derive(Debug, Default)]
pub(crate) struct Stored(Mutex<BTreeMap<String, Object>>);

impl Stored {
    pub(crate) fn get(&self, key: &str) -> Option<Object> {
        lock(&self.0).get(key).cloned()
    }
}

/// Storage as one worker reaches it.
pub(crate) struct Bucket {
    pub(crate) world: Arc<World>,
    pub(crate) stored: Arc<Stored>,
    pub(crate) from: Place,
}

impl Bucket {
    async fn reach(&self) -> io::Result<()> {
        tokio::time::sleep(Duration::from_millis(self.world.between(2, 30))).await;
        if self.world.is_cut(self.from, Place::Bucket) {
            tokio::time::sleep(Duration::from_secs(2)).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.world.happens(self.world.weather().bucket_fails) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

#[async_trait]
impl worker::sim::Bucket for Bucket {
    async fn put(&self, object: Object) -> io::Result<()> {
        self.reach().await?;
        {
            let mut stored = lock(&self.stored.0);
            if let Some(before) = stored.get(&object.key)
                && let (Some(one), Some(other)) = (before.by, object.by)
            {
                if one != other {
                    self.world.broke(format!(
                        "object {} is written by publish {one} and by {other}",
                        object.key
                    ));
                }
                if !before.units.is_empty() && before.units != object.units {
                    self.world
                        .broke(format!("object {} is written again with other media", object.key));
                }
            }
            stored.insert(object.key.clone(), object);
        }
        // Stored, and the answer lost.
        if self.world.happens(self.world.weather().bucket_fails) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> io::Result<Option<Object>> {
        self.reach().await?;
        Ok(self.stored.get(key))
    }
}
