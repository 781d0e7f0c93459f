//! What lets another machine complete the open file, should this one be lost: stored beside it when enough of its parts are new.

use shared::objects::{HELD as HELD_KEY, RESCUE, Rescue};

use super::sink::Sink;
use super::{FileRecorder, Pen};
use crate::record::RecordError;
use crate::upload::{Object, Objects, Rest, Store};

/// Parts that a file has when it is next worth a rescue: each of the first few, then when a quarter came to it.
fn next(parts: u32) -> u32 {
    parts + (parts / 4).max(1)
}

impl FileRecorder {
    /// What is to be stored so that the file can be completed as it is now; none while little is new.
    pub(super) fn rescue(&mut self) -> Result<Option<Store>, RecordError> {
        let Some(open) = self.state.open.clone().filter(|open| open.finishing.is_none()) else {
            self.rescued = 0;
            return Ok(None);
        };
        let (
            Some(upload),
            Some(Pen {
                sink: Sink::Remote(spool),
                ..
            }),
            Objects::Remote(_),
        ) = (&open.upload, &self.pen, &self.objects)
        else {
            self.rescued = 0;
            return Ok(None);
        };
        if self.rescued > 0 && open.parts() < next(self.rescued) {
            return Ok(None);
        }
        let fail = || RecordError::store(open.file_id.clone());
        let head = self.head(&open, self.state.cursor)?;
        let Rest { held, tail } = spool.rest(open.body_len, open.parts()).map_err(fail())?;
        let ids = spool.stored_ids(upload).map_err(fail())?;
        // The file is whole already, as what lies beside it says; see `Inner::id_within_whole`.
        if ids.iter().any(String::is_empty) {
            return Ok(None);
        }
        let file = self.finished(&open, &head, self.state.gaps.clone());
        let key = file.key.clone();
        let lengths = (head.len() as u64, held.len() as u64);
        let object = Rescue::new(upload.id.clone(), ids, lengths, (file, &self.setting.zone)).to_object(head, tail);
        let object = object.map_err(|error| fail()(error.into()))?;
        let mut objects = Vec::new();
        // Once, and once more after a start: it never changes.
        if self.rescued == 0 {
            objects.push(Object {
                key: format!("{key}{HELD_KEY}"),
                chunks: vec![held.into()],
                verify: false,
            });
        }
        objects.push(Object {
            key: format!("{key}{RESCUE}"),
            chunks: object,
            verify: false,
        });
        self.rescued = open.parts();
        Ok(Some(Store::Objects(objects)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_rescued_some_twenty_times() {
        let mut at = vec![1];
        while let Some(last) = at.last().copied().filter(|last| *last < 140) {
            at.push(next(last));
        }
        assert_eq!(at[..6], [1, 2, 3, 4, 5, 6]);
        assert!(at.len() < 24, "{at:?}");
        assert!(at.windows(2).skip(8).all(|pair| pair[1] - pair[0] <= pair[0] / 4 + 1));
    }
}
