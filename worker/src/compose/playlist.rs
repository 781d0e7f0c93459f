//! [`Playlist`]: the segments of a stored HLS recording, in order; [`Runs`]: which of them have one time in common.

use std::vec;

use media::hls;
use media::mp4::FragmentSample;

use super::Stop;
use super::source::{damaged, missing, pts};
use super::window::WINDOW;
use crate::upload::Sites;

/// A segment, by keys.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The initialisation segment that holds from here on, where one is named.
    pub(super) map: Option<String>,
    /// The playlist's time in front of it, milliseconds.
    pub(super) at_ms: i64,
}

impl Entry {
    /// Each push has a folder of its own.
    pub(super) fn folder(&self) -> &str {
        self.key.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// A playlist that is walked.
pub(super) struct Playlist<'a> {
    pub(super) objects: &'a Sites,
    /// The playlist's folder.
    folder: String,
    fragments: bool,
    segments: vec::IntoIter<hls::Segment>,
    count: usize,
    read: usize,
    at_ms: i64,
}

impl<'a> Playlist<'a> {
    pub(super) async fn open(objects: &'a Sites, key: &str) -> Result<Self, Stop> {
        let list = objects.read(key, 0, WINDOW).await?.ok_or_else(|| missing(key))?;
        let text = std::str::from_utf8(&list.bytes).map_err(|error| damaged(key, error))?;
        let list = hls::MediaPlaylist::parse(text).map_err(|error| damaged(key, error))?;
        Ok(Self {
            objects,
            folder: key.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned(),
            fragments: list.segments.iter().any(|segment| segment.map.is_some()),
            count: list.segments.len(),
            segments: list.segments.into_iter(),
            read: 0,
            at_ms: 0,
        })
    }

    /// True if its segments are fragments of MP4; else they are transport streams.
    pub(super) fn is_fragments(&self) -> bool {
        self.fragments
    }

    pub(super) fn next(&mut self) -> Option<Entry> {
        let segment = self.segments.next()?;
        self.read += 1;
        let at_ms = self.at_ms;
        self.at_ms += i64::from(segment.duration_ms);
        Some(Entry {
            key: resolve(&self.folder, &segment.uri),
            map: segment.map.map(|map| resolve(&self.folder, &map)),
            at_ms,
        })
    }

    /// How much of it has been walked, of 1,000.
    pub(super) fn permille(&self) -> u64 {
        self.read as u64 * 1_000 / (self.count as u64).max(1)
    }
}

/// Segments of one push have one time: where it begins in the playlist's.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The push's folder, and what is to be added to its times.
    run: Option<(String, i64)>,
}

impl Runs {
    /// Whether a segment's times have nothing to do with those before, and what is to be added to them: the playlist's time.
    pub(super) fn place(&mut self, entry: &Entry, samples: &[FragmentSample]) -> (bool, i64) {
        if let Some((_, offset)) = self.run.as_ref().filter(|(known, _)| known == entry.folder()) {
            return (false, *offset);
        }
        let earliest = samples.iter().map(pts).min().unwrap_or(0);
        let offset = entry.at_ms - earliest;
        let before = self.run.replace((entry.folder().to_owned(), offset));
        (before.is_some(), offset)
    }
}

/// The key that a list in `folder` names so.
fn resolve(folder: &str, uri: &str) -> String {
    let (mut folder, mut uri) = (folder, uri);
    while let Some(above) = uri.strip_prefix("../") {
        folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
        uri = above;
    }
    format!("{folder}/{uri}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_lists_lead_from_the_list_s_folder() {
        assert_eq!(
            resolve("d/a/s/r/e000002/hls", "000001.m4s"),
            "d/a/s/r/e000002/hls/000001.m4s"
        );
        assert_eq!(
            resolve("d/a/s/r/e000002/hls", "../../e000001/hls/000001.m4s"),
            "d/a/s/r/e000001/hls/000001.m4s"
        );
    }
}
