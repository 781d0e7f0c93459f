//! The running index of a recording that goes on across publishes: its playlist, and in it one comment that says what the text cannot. Pure.
//!
//! Index and totals are one object, so they are never of different moments. Players ignore the comment (RFC 8216 §4.1).

use std::fmt::Write as _;

use media::hls;
use serde::{Deserialize, Serialize};
use shared::lease::{Epoch, Stitch};
use shared::playlist;
use shared::recording::{Gap, TOTALS, join_gaps};

/// The name of a gap: the stream was away, and what the publisher did not send nobody knows.
const INTERRUPTED: &str = "interrupted";
/// The name of a gap: what a worker had not stored when it was given up.
pub(crate) const LOST: &str = "worker_lost";
/// Indexes that were not complete are remembered, the latest of them, so that what their owners add later can be taken in.
const MAX_TRUSTED: usize = 64;
/// The comment's version: raised when a field changes meaning.
const VERSION: u32 = 1;
/// So often an earlier publish may be found not to have paused, though its worker was alive when this one began: about ten minutes.
const LOOKS: u32 = 300;

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
    /// Indexes that were taken over before they were complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trusted: Vec<Trusted>,
}

/// How far the index of an epoch was trusted whose owner had not said that it was complete: its totals then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trusted {
    pub(crate) epoch: Epoch,
    segments: u64,
    bytes: u64,
    duration_ms: i64,
    video_units: u64,
    audio_units: u64,
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
            let _ = writeln!(out, "{TOTALS}{json}");
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

    /// Ends what is taken over from `epoch` with a gap: the stream was away, or it is not known to be complete.
    pub(crate) fn taken_over(&mut self, epoch: Epoch, complete: bool) {
        self.gap_at_end(if complete { INTERRUPTED } else { LOST });
        if complete {
            return;
        }
        self.trusted.push(Trusted {
            epoch,
            segments: self.segments,
            bytes: self.bytes,
            duration_ms: self.duration_ms,
            video_units: self.video_units,
            audio_units: self.audio_units,
        });
        let forgotten = self.trusted.len().saturating_sub(MAX_TRUSTED);
        self.trusted.drain(..forgotten);
    }

    /// Counts what came to an index after it was trusted, `late` being its totals now.
    fn take_in(&mut self, trusted: &Trusted, late: &Self) {
        let longer = late.duration_ms - trusted.duration_ms;
        let at = trusted.duration_ms;
        let join = |gap: &Gap| gap.reason == LOST && gap.from_ms == at;
        if late.paused
            && let Some(gap) = self.gaps.iter_mut().rfind(|gap| join(gap))
        {
            INTERRUPTED.clone_into(&mut gap.reason);
        }
        for gap in self.gaps.iter_mut().filter(|gap| gap.from_ms >= at) {
            gap.from_ms += longer;
            gap.to_ms += longer;
        }
        let its: Vec<Gap> = late
            .gaps
            .iter()
            .filter(|gap| gap.from_ms >= at && !join(gap))
            .cloned()
            .collect();
        join_gaps(&mut self.gaps, &its);
        self.segments += late.segments - trusted.segments;
        self.bytes += late.bytes.saturating_sub(trusted.bytes);
        self.video_units += late.video_units.saturating_sub(trusted.video_units);
        self.audio_units += late.audio_units.saturating_sub(trusted.audio_units);
        self.duration_ms += longer;
        self.longest_ms = self.longest_ms.max(late.longest_ms);
        self.start_ms = self.start_ms.or(late.start_ms);
    }
}

impl Index {
    /// Reads an index. None: it is not one, or of a version that this program does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (_, behind) = text.split_once(TOTALS)?;
        let (json, lines) = behind.split_once('\n')?;
        let totals: Totals = serde_json::from_str(json).ok()?;
        (totals.version == VERSION).then(|| Self {
            totals,
            lines: lines.to_owned(),
        })
    }

    /// Its segments' lines for an index of another epoch, `epoch` being its own: what it names beside itself is named from there.
    pub(crate) fn rebased(&self, epoch: Epoch) -> String {
        playlist::rebased(&self.lines, epoch)
    }

    /// Takes in what the owner of a trusted index stored later, `late` being that index now and `epoch` this one's own.
    pub(crate) fn take_in(&mut self, epoch: Epoch, trusted: &Trusted, late: &Self) {
        if late.totals.segments < trusted.segments || late.totals.duration_ms < trusted.duration_ms {
            return;
        }
        let mut lines = self.rebased(epoch);
        let at = behind_segment(&lines, trusted.segments);
        let theirs = late.rebased(trusted.epoch);
        let mut more = theirs
            .get(behind_segment(&theirs, trusted.segments)..)
            .unwrap_or("")
            .to_owned();
        if trusted.segments == 0 && !more.is_empty() && !lines.is_empty() && !lines.starts_with(BREAK) {
            more.push_str(BREAK);
        }
        lines.insert_str(at, &more);
        self.lines = lines;
        self.totals.take_in(trusted, &late.totals);
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

/// Stands where a publish begins behind another.
const BREAK: &str = "#EXT-X-DISCONTINUITY\n";

/// Where, in segments' lines, so many segments end.
fn behind_segment(lines: &str, segments: u64) -> usize {
    let (mut at, mut left) = (0, segments);
    for line in lines.split_inclusive('\n') {
        if left == 0 {
            break;
        }
        at += line.len();
        if !line.starts_with('#') && line.len() > 1 {
            left -= 1;
        }
    }
    at
}

/// What a publish's part of a recording begins with: the lines and totals of what lies behind it. `found` is the first index that is there,
/// and whose it is, the latest publish's being 0; `looks` is how often that was found to be still at work. None: look again in a while.
pub(crate) fn join(behind: &Stitch, looks: u32, found: Option<(usize, &[u8])>) -> Option<(String, Totals)> {
    let which = found.map_or(0, |(which, _)| which);
    let found = found.and_then(|(_, bytes)| Index::parse(bytes));
    let paused = which == 0 && found.as_ref().is_some_and(|index| index.totals.paused);
    if !paused && !behind.lost && looks < LOOKS {
        return None;
    }
    let epoch = behind.before.get(which).copied().unwrap_or_default();
    let lines = found.as_ref().map(|index| index.rebased(epoch)).unwrap_or_default();
    let mut totals = found.map(|index| index.totals).unwrap_or_default();
    let latest = behind.before.first().copied().unwrap_or_default();
    totals.taken_over(latest, paused);
    Some((lines, totals))
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

    /// An index of this epoch's own segments behind what `before` gives, each of one second.
    fn grown(before: &Index, epoch: u64, own: u32, paused: bool) -> Index {
        let mut totals = before.totals.clone();
        let mut lines = before.lines.clone();
        for number in 0..own {
            if number == 0 && totals.segments > 0 {
                lines.push_str(BREAK);
            }
            let _ = writeln!(lines, "#EXTINF:1.000,\n{number:06}.ts");
            totals.segments += 1;
            totals.bytes += epoch;
            totals.duration_ms += 1_000;
            totals.video_units += 25;
        }
        totals.paused = paused;
        Index { totals, lines }
    }

    /// What the publish behind `index` begins with.
    fn behind(index: &Index, epoch: u64) -> Index {
        let epoch = Epoch::new(epoch);
        let mut taken = Index {
            totals: index.totals.clone(),
            lines: index.rebased(epoch),
        };
        taken.totals.taken_over(epoch, index.totals.paused);
        taken
    }

    fn none() -> Index {
        Index {
            totals: Totals::default(),
            lines: String::new(),
        }
    }

    #[test]
    fn what_an_owner_stored_after_it_was_given_up_stands_at_its_place_in_the_end() {
        let early = grown(&none(), 1, 1, false);
        let mut last = grown(&behind(&early, 1), 2, 2, true);
        assert_eq!(last.totals.gaps[0].reason, LOST);
        let whole = grown(&none(), 1, 3, true);
        let [trusted] = last.totals.trusted[..] else {
            panic!("one index was trusted")
        };
        last.take_in(Epoch::new(2), &trusted, &whole);
        assert_eq!(
            last.lines,
            "#EXTINF:1.000,\n../../e000001/hls/000000.ts\n#EXTINF:1.000,\n../../e000001/hls/000001.ts\n#EXTINF:1.000,\n../../e000001/hls/000002.ts\n\
             #EXT-X-DISCONTINUITY\n#EXTINF:1.000,\n../../e000002/hls/000000.ts\n#EXTINF:1.000,\n../../e000002/hls/000001.ts\n"
        );
        let totals = &last.totals;
        assert_eq!(
            (totals.segments, totals.bytes, totals.duration_ms, totals.video_units),
            (5, 7, 5_000, 125)
        );
        let gap = &totals.gaps[0];
        assert_eq!(
            (gap.reason.as_str(), gap.from_ms, totals.gaps.len()),
            (INTERRUPTED, 3_000, 1)
        );
    }

    #[test]
    fn what_was_given_up_with_nothing_comes_in_front() {
        let mut last = grown(&behind(&none(), 1), 2, 1, true);
        let [trusted] = last.totals.trusted[..] else {
            panic!("one index was trusted")
        };
        last.take_in(Epoch::new(2), &trusted, &grown(&none(), 1, 1, true));
        let ended = hls::MediaPlaylist::parse(&last.ended(Epoch::new(2))).unwrap();
        assert_eq!(ended.segments.len(), 2);
        assert!(!ended.segments[0].discontinuity && ended.segments[1].discontinuity);
    }

    #[test]
    fn several_that_were_given_up_come_in_from_the_last_to_the_first() {
        let second = grown(&behind(&grown(&none(), 1, 1, false), 1), 2, 1, false);
        let mut last = grown(&behind(&second, 2), 3, 1, true);
        let late = [
            grown(&none(), 1, 2, true),
            grown(&behind(&grown(&none(), 1, 1, false), 1), 2, 2, false),
        ];
        let trusted = last.totals.trusted.clone();
        for (trusted, late) in trusted.iter().zip(&late).rev() {
            last.take_in(Epoch::new(3), trusted, late);
        }
        let names: Vec<&str> = last.lines.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            names,
            [
                "e000001/hls/000000.ts",
                "e000001/hls/000001.ts",
                "e000002/hls/000000.ts",
                "e000002/hls/000001.ts",
                "e000003/hls/000000.ts"
            ]
            .map(|name| format!("../../{name}"))
        );
        let gaps: Vec<(&str, i64)> = last
            .totals
            .gaps
            .iter()
            .map(|gap| (gap.reason.as_str(), gap.from_ms))
            .collect();
        assert_eq!(
            gaps,
            [(INTERRUPTED, 2_000), (LOST, 4_000)],
            "the second is still not complete"
        );
        assert_eq!(last.totals.segments, 5);
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
