//! What the publishes of a recording left of its list: the index of the last of them, with what others stored late.

use std::io;
use std::time::Duration;

use shared::lease::Epoch;
use tracing::info;

use crate::record::index::{self, Index};
use crate::upload::Shelf;

/// Seconds between looks for an index that must be there, complete, in a storage that answers: half a minute in all. Storage may show it late.
const LOOKS: [u64; 5] = [1, 2, 4, 8, 16];
/// Seconds between looks while a place that may have it does not answer.
const AGAIN: u64 = 2;

/// The list of all publishes, as far as it is found.
#[derive(Debug)]
pub(super) struct Left {
    /// The latest index that there is, and whose it is.
    pub(super) index: Option<(Epoch, Index)>,
    /// It is the last publish's, and that one had said that it is all.
    pub(super) is_all: bool,
}

/// Where the indexes of a recording lie.
pub(super) struct Folder<'a> {
    pub(super) shelf: &'a dyn Shelf,
    pub(super) root: &'a str,
}

impl Folder<'_> {
    /// The list of all publishes, whose epochs are given, the latest first. `lost`: not everything is in storage that should be, and what is
    /// not there now is not waited for.
    pub(super) async fn list(&self, epochs: &[Epoch], lost: bool) -> io::Result<Left> {
        let mut left = self.latest(epochs, lost).await?;
        if let Some((epoch, index)) = &mut left.index {
            // Owners that were given up may have come back, and stored what was not waited for.
            for trusted in index.totals.trusted.clone().iter().rev() {
                if let Some((_, late)) = self.latest(&[trusted.epoch], lost).await?.index {
                    index.take_in(*epoch, trusted, &late);
                }
            }
        }
        Ok(left)
    }

    /// The first index that there is of these epochs. One that is complete may be believed wherever it was found. Of what is not, another place
    /// may have more: none is left out for not answering, as long as it takes.
    async fn latest(&self, epochs: &[Epoch], lost: bool) -> io::Result<Left> {
        let mut looks = LOOKS.iter();
        let mut is_said = false;
        loop {
            let (mut first, mut is_sure) = (None, true);
            for epoch in epochs {
                let (found, whole) = self.index(*epoch).await?;
                is_sure &= whole;
                if let Some(found) = found {
                    first = Some((*epoch, found));
                    break;
                }
            }
            let is_all = |(epoch, index): &(Epoch, Index)| epochs.first() == Some(epoch) && index.totals.paused;
            let is_all = first.as_ref().is_some_and(is_all);
            let wait = match is_sure {
                _ if is_all => None,
                false => Some(&AGAIN),
                true if lost => None,
                true => looks.next(),
            };
            let Some(wait) = wait else {
                return Ok(Left { index: first, is_all });
            };
            if !is_said {
                is_said = true;
                info!(
                    root = self.root,
                    ?epochs,
                    is_sure,
                    "waits for the index that the last publish has stored"
                );
            }
            tokio::time::sleep(Duration::from_secs(*wait)).await;
        }
    }

    /// The index of an epoch, that of most where places have several, and whether it is certain that there is none with more.
    async fn index(&self, epoch: Epoch) -> io::Result<(Option<Index>, bool)> {
        let found = self.shelf.each(&index::key(self.root, epoch)).await?;
        let read = found.versions.iter().map(|bytes| Index::parse(bytes));
        let (mut most, mut is_read) = (None::<Index>, true);
        for index in read {
            is_read &= index.is_some();
            let holds = |index: &Index| (index.totals.paused, index.totals.segments);
            if index.as_ref().map(holds) > most.as_ref().map(holds) {
                most = index;
            }
        }
        if !is_read && most.as_ref().is_none_or(|most| !most.totals.paused) {
            // Another program's, perhaps a newer one's: what it names must not be dropped for that.
            return Err(io::Error::other(
                "the index that was found cannot be read by this version",
            ));
        }
        Ok((most, found.whole))
    }
}
