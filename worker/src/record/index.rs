//! The running index of a recording that goes on across publishes: its playlist, and in it one comment that says what the text cannot. Pure.
//!
//! Index and totals are one object, so they are never of different moments. Players ignore the comment (RFC 8216 §4.1).

use std::fmt::Write as _;

use media::hls;
use serde::{Deserialize, Serialize};
use shared::lease::Epoch;
use shared::recording::{Gap, join_gaps};

/// What the comment begins with.
const TAG: &str = "#AIRCHECK:";
/// The comment's version: raised when a field changes meaning.
const VERSION: u32 = 1;

/// What an index says beside its segments: totals of everything in it, whichever publish it came with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    version: u32,
    /// The publish has ended and nothing will be added under this epoch.
    pub(crate) paused: bool,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    /// Longest segment, milliseconds.
    pub(crate) longest_ms: i64,
    /// Sum of all segments, milliseconds.
    pub(crate) duration_ms: i64,
    pub(crate) video_units: u64,
    pub(crate) audio_units: u64,
    /// Wall clock of the first unit's arrival, milliseconds since the Unix epoch; none: no segment yet.
    pub(crate) start_ms: Option<i64>,
    pub(crate) gaps: Vec<Gap>,
}

/// An index that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) totals: Totals,
    /// The segments with their tags, as they stand.
    lines: String,
}

/// Where the index of an epoch lies, below a recording's root.
pub(crate) fn key(root: &str, epoch: Epoch) -> String {
    format!("{root}/{}/hls/index.m3u8", epoch.path_component())
}

impl Totals {
    /// The comment, with its line feed.
    pub(crate) fn append(&self, out: &mut String) {
        let said = Self {
            version: VERSION,
            ..self.clone()
        };
        // Every field has a JSON form, and JSON has no line feed of its own.
        if let Ok(json) = serde_json::to_string(&said) {
            let _ = writeln!(out, "{TAG}{json}");
        }
    }

    /// Adds a gap where the list ends now.
    pub(crate) fn gap_at_end(&mut self, reason: &str) {
        let at = self.duration_ms;
        let gap = Gap {
            reason: reason.to_owned(),
            from_ms: at,
            to_ms: at,
            units: 0,
        };
        join_gaps(&mut self.gaps, &[gap]);
    }
}

impl Index {
    /// Reads an index. None: it is not one, or of a version that this program does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (_, behind) = text.split_once(TAG)?;
        let (json, lines) = behind.split_once('\n')?;
        let totals: Totals = serde_json::from_str(json).ok()?;
        (totals.version == VERSION).then(|| Self {
            totals,
            lines: lines.to_owned(),
        })
    }

    /// Its segments' lines for an index of another epoch, `epoch` being its own: what it names beside itself is named from there.
    pub(crate) fn rebased(&self, epoch: Epoch) -> String {
        let mut out = String::with_capacity(self.lines.len() * 2);
        for line in self.lines.lines() {
            let beside = |name: &str| !name.starts_with("../");
            match line.strip_prefix("#EXT-X-MAP:URI=\"") {
                Some(name) if beside(name) => {
                    let _ = writeln!(out, "#EXT-X-MAP:URI=\"../../{}/hls/{name}", epoch.path_component());
                }
                None if !line.starts_with('#') && !line.is_empty() && beside(line) => {
                    let _ = writeln!(out, "../../{}/hls/{line}", epoch.path_component());
                }
                _ => {
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
        out
    }

    /// The final playlist, to lie with another epoch than `epoch`, its own.
    pub(crate) fn ended(&self, epoch: Epoch) -> String {
        let longest = u32::try_from(self.totals.longest_ms).unwrap_or(u32::MAX);
        let header = hls::Header {
            version: hls::version(self.lines.contains("#EXT-X-MAP:")),
            target_duration_s: hls::rounded_s(longest).max(1),
            kind: Some(hls::Kind::Vod),
            media_sequence: 0,
            discontinuity_sequence: 0,
        };
        let mut text = String::new();
        header.append(&mut text);
        text.push_str(&self.rebased(epoch));
        hls::append_end(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> String {
        let totals = Totals {
            paused: true,
            segments: 2,
            bytes: 9,
            longest_ms: 6_400,
            duration_ms: 8_000,
            start_ms: Some(5),
            gaps: vec![Gap {
                reason: "a\nb".to_owned(),
                from_ms: 1,
                to_ms: 2,
                units: 3,
            }],
            ..Totals::default()
        };
        let mut text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:7\n".to_owned();
        totals.append(&mut text);
        text + "#EXTINF:6.400,\n../../e000001/hls/000000.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:1.600,\n000000.ts\n"
    }

    #[test]
    fn a_successor_reads_what_its_predecessor_wrote_and_names_it_from_where_it_lies() {
        let read = Index::parse(index().as_bytes()).unwrap();
        assert!(read.totals.paused);
        assert_eq!((read.totals.segments, read.totals.gaps[0].units), (2, 3));
        assert_eq!(
            read.rebased(Epoch::new(2)),
            "#EXTINF:6.400,\n../../e000001/hls/000000.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:1.600,\n../../e000002/hls/000000.ts\n"
        );
        let ended = hls::MediaPlaylist::parse(&read.ended(Epoch::new(2))).unwrap();
        assert!(ended.ended && ended.segments[1].discontinuity);
        assert_eq!(ended.header.target_duration_s, 6);
    }

    #[test]
    fn players_read_the_index_as_a_playlist() {
        let read = hls::MediaPlaylist::parse(&index()).unwrap();
        assert_eq!(read.segments.len(), 2);
    }

    #[test]
    fn what_is_no_index_or_of_another_version_is_not_taken_for_one() {
        let later = index().replace("\"version\":1", "\"version\":2");
        for text in [later.as_str(), "#EXTM3U\n", "", "#EXTM3U\n#AIRCHECK:{\n"] {
            assert_eq!(Index::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Index::parse(&[0xff, 0xfe]), None);
    }
}
