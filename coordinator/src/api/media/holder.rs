//! Which of two places gives an object: the first, and where that does not, the second. Of what is replaced under its key the second of a
//! backup has the newer, if it has one.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use shared::objects::{Archive, ObjectError};
use tokio::time::Instant;

use super::Media;
use crate::media::place::Place;

/// Time for a place to say whether it has an object; who plays does not wait longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A first place that did not answer is not asked for so long.
const DOUBT: Duration = Duration::from_secs(5);

/// Until when a place is taken for one that does not answer.
#[derive(Debug, Default)]
pub(super) struct Doubt(Mutex<Option<Instant>>);

impl Doubt {
    fn is_there(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether an object is there; none: no answer, or none a moment ago.
    async fn asked(&self, archive: &Archive, key: &str) -> Option<bool> {
        if self.is_there() {
            return None;
        }
        let has = asked(archive, key).await;
        if has.is_none() {
            self.begin();
        }
        has
    }

    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + DOUBT);
    }
}

/// Whether an object is there; none: no answer.
async fn asked(archive: &Archive, key: &str) -> Option<bool> {
    let answer = tokio::time::timeout(PATIENCE, archive.has(key)).await;
    answer.ok()?.ok()
}

impl Media {
    /// Where an object is to be had. Nothing is asked where there is only one place.
    ///
    /// # Errors
    /// Where the settings do not have its place.
    pub(super) async fn holder(&self, key: &str) -> Result<(Option<&Archive>, &Place), ObjectError> {
        let archive = self.tools.archive.as_ref().map(|places| places.of(key)).transpose()?;
        let first = (archive, self.places.of(key)?);
        let (Some(archive), Some(second)) = (archive, &self.tools.second) else {
            return Ok(first);
        };
        let then = (Some(second), &self.second_place);
        if self.is_backup && key.ends_with(".m3u8") {
            return Ok(match self.second_doubt.asked(second, key).await {
                Some(true) => then,
                _ => first,
            });
        }
        Ok(match self.doubts.of(key)?.asked(archive, key).await {
            Some(true) => first,
            _ if asked(second, key).await == Some(true) => then,
            _ => first,
        })
    }
}
