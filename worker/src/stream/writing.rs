//! [`Writing`]: documents on their way to storage, one at a time for each recording, so that the newest is the one that stays. Pure.

use std::collections::BTreeMap;

use shared::ids::RecordingId;

/// What is being written, and what is to be written next.
#[derive(Debug)]
pub(crate) struct Writing<T>(BTreeMap<RecordingId, Option<T>>);

impl<T> Default for Writing<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Writing<T> {
    /// Takes a new document. Gives it back if it is to be written now; else it waits, in place of an older one that waited.
    pub(crate) fn offer(&mut self, recording: RecordingId, document: T) -> Option<T> {
        match self.0.get_mut(&recording) {
            Some(next) => {
                *next = Some(document);
                None
            }
            None => {
                self.0.insert(recording, None);
                Some(document)
            }
        }
    }

    /// One is written; gives what is to be written next.
    pub(crate) fn written(&mut self, recording: RecordingId) -> Option<T> {
        let next = self.0.get_mut(&recording).and_then(Option::take);
        if next.is_none() {
            self.0.remove(&recording);
        }
        next
    }

    /// True while one of a recording is on its way.
    pub(crate) fn is_writing(&self, recording: RecordingId) -> bool {
        self.0.contains_key(&recording)
    }

    /// True when nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::Seeded;
    use shared::time::Timestamp;

    #[test]
    fn the_newest_document_is_written_last_and_those_between_not_at_all() {
        let id = RecordingId::generate(&Seeded::new(1), Timestamp::from_millis(1));
        let mut writing = Writing::default();
        assert_eq!(writing.offer(id, b"1".to_vec()), Some(b"1".to_vec()));
        assert_eq!(writing.offer(id, b"2".to_vec()), None);
        assert_eq!(writing.offer(id, b"3".to_vec()), None);
        assert_eq!(writing.written(id), Some(b"3".to_vec()));
        assert!(!writing.is_idle() && writing.is_writing(id));
        assert_eq!(writing.written(id), None);
        assert!(writing.is_idle() && !writing.is_writing(id));
    }
}
