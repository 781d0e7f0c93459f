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
pub(crate) struct Stored(Mutex<BTreeMap<String, Kept>>);

#[derive(Debug)]
struct Kept {
    object: Object,
    /// Whoever stored it was told so, and goes on from it. Before, it may still be another: the window's end may have moved.
    told: bool,
}

impl Stored {
    pub(crate) fn get(&self, key: &str) -> Option<Object> {
        lock(&self.0).get(key).map(|kept| kept.object.clone())
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
        if !object.units.is_empty() && self.world.loses_object() {
            return Ok(());
        }
        // Stored, and the answer lost.
        let told = !self.world.happens(self.world.weather().bucket_fails);
        {
            let mut stored = lock(&self.stored.0);
            let before = stored.get(&object.key);
            if let Some(Kept { object: before, told }) = before
                && let (Some(one), Some(other)) = (before.by, object.by)
            {
                if one != other {
                    self.world.broke(format!(
                        "object {} is written by publish {one} and by {other}",
                        object.key
                    ));
                }
                if *told && !before.units.is_empty() && before.units != object.units {
                    self.world
                        .broke(format!("object {} is written again with other media", object.key));
                }
            }
            let told = told || before.is_some_and(|before| before.told);
            stored.insert(object.key.clone(), Kept { object, told });
        }
        if !told {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> io::Result<Option<Object>> {
        self.reach().await?;
        Ok(self.stored.get(key))
    }
}
