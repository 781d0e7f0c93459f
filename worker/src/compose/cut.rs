//! [`Cut`]: which samples of a file are in a piece of it. Pure.
//!
//! A piece begins with the key picture at or before the time that it is asked from (the file's beginning, where there is none), and ends in front of the key picture at or behind the time
//! that it is asked to: all that was asked for is in it, and it can be decoded from its beginning. Sound is cut at the frame. A file without
//! pictures is cut at its frames of sound.

use media::access_unit::Track;
use media::mp4::FragmentSample;

use super::source::pts;

/// Sound that is looked for behind a cut, milliseconds of decode time: interleaving keeps it nearer.
const FAR_MS: i64 = 10_000;

/// Looks for where to cut.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    from_ms: i64,
    to_ms: Option<i64>,
    /// Of pictures and of sound: where the piece begins and ends, by the file's time.
    found: [Bounds; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    /// There is something of this track.
    heard: Option<i64>,
    begin: Option<i64>,
    end: Option<i64>,
}

/// Where to cut, by the file's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    begin_ms: i64,
    /// None: at the file's end.
    end_ms: Option<i64>,
    inside: bool,
    over: bool,
}

impl Search {
    /// For what is asked from one time on, to another.
    pub(super) fn new(from_ms: i64, to_ms: Option<i64>) -> Self {
        Self {
            from_ms,
            to_ms,
            found: Default::default(),
        }
    }

    /// Looks at a batch; true if no more need be looked at.
    pub(super) fn look(&mut self, samples: &[FragmentSample], offset_ms: i64) -> bool {
        for sample in samples.iter().filter(|sample| sample.key) {
            let at = pts(sample).saturating_add(offset_ms);
            let bounds = match sample.track {
                Track::Video => &mut self.found[0],
                Track::Audio => &mut self.found[1],
            };
            bounds.heard = Some(at);
            if at <= self.from_ms {
                bounds.begin = Some(at);
            } else if self.to_ms.is_some_and(|to| at >= to) {
                bounds.end.get_or_insert(at);
            }
        }
        let [video, audio] = self.found;
        let far = |to: i64| audio.heard.is_some_and(|at| at > to.saturating_add(FAR_MS));
        match (video.heard, self.to_ms) {
            (Some(_), Some(_)) => video.end.is_some(),
            (None, Some(to)) => far(to),
            (_, None) => false,
        }
    }

    /// What was found; none: there is nothing.
    pub(super) fn cut(&self) -> Option<Cut> {
        let bounds = self.found.iter().find(|bounds| bounds.heard.is_some())?;
        Some(Cut {
            begin_ms: bounds.begin.unwrap_or(i64::MIN),
            end_ms: bounds.end,
            inside: bounds.begin.is_none(),
            over: false,
        })
    }
}

impl Cut {
    /// True if a sample is in the piece. To be asked of each, in order.
    pub(super) fn takes(&mut self, sample: &FragmentSample, offset_ms: i64) -> bool {
        let at = pts(sample).saturating_add(offset_ms);
        match sample.track {
            Track::Video => {
                if sample.key && !self.over {
                    self.inside |= at >= self.begin_ms;
                    self.over = self.inside && self.end_ms.is_some_and(|end| at >= end);
                }
                self.inside && !self.over
            }
            Track::Audio => at >= self.begin_ms && self.end_ms.is_none_or(|end| at < end),
        }
    }

    /// True if nothing that comes behind a batch is in the piece.
    pub(super) fn is_over(&self, samples: &[FragmentSample], offset_ms: i64) -> bool {
        let Some(end) = self.end_ms else { return false };
        let heard = |sample: &FragmentSample| sample.track == Track::Audio && pts(sample) + offset_ms >= end;
        let far = |sample: &FragmentSample| pts(sample) + offset_ms > end.saturating_add(FAR_MS);
        (self.over && samples.iter().any(heard)) || samples.iter().any(far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pts_ms: i64, key: bool) -> FragmentSample {
        FragmentSample {
            track: Track::Video,
            dts_ms: pts_ms - 40,
            cto_ms: 40,
            duration_ms: 40,
            size: 10,
            key,
        }
    }

    fn sound(at_ms: i64) -> FragmentSample {
        FragmentSample {
            track: Track::Audio,
            dts_ms: at_ms,
            cto_ms: 0,
            ..picture(0, true)
        }
    }

    /// A key picture every second, a picture every 200 ms, sound every 100 ms.
    fn stream() -> Vec<FragmentSample> {
        let at = |at| {
            let picture = (at % 200 == 0).then(|| picture(at, at % 1_000 == 0));
            [Some(sound(at)), picture]
        };
        (0..10_000).step_by(100).flat_map(at).flatten().collect()
    }

    fn taken(samples: &[FragmentSample], from: i64, to: Option<i64>) -> Vec<FragmentSample> {
        let mut search = Search::new(from, to);
        for batch in samples.chunks(7) {
            if search.look(batch, 0) {
                break;
            }
        }
        let mut cut = search.cut().unwrap();
        let mut out = Vec::new();
        for batch in samples.chunks(7) {
            out.extend(batch.iter().filter(|sample| cut.takes(sample, 0)).copied());
            if cut.is_over(batch, 0) {
                break;
            }
        }
        out
    }

    fn span(samples: &[FragmentSample], track: Track) -> (i64, i64) {
        let of = samples.iter().filter(|sample| sample.track == track).map(pts);
        (of.clone().min().unwrap(), of.max().unwrap())
    }

    #[test]
    fn a_piece_lies_between_key_pictures_around_what_was_asked() {
        let all = stream();
        for (from, to, pictures, sounds) in [
            (0, None, (0, 9_800), (0, 9_900)),
            (2_500, Some(4_100), (2_000, 4_800), (2_000, 4_900)),
            (2_000, Some(4_000), (2_000, 3_800), (2_000, 3_900)),
            (9_999, None, (9_000, 9_800), (9_000, 9_900)),
            (500, Some(99_000), (0, 9_800), (0, 9_900)),
            (2_400, Some(2_500), (2_000, 2_800), (2_000, 2_900)),
        ] {
            let taken = taken(&all, from, to);
            assert_eq!(span(&taken, Track::Video), pictures, "{from} {to:?}");
            assert_eq!(span(&taken, Track::Audio), sounds, "{from} {to:?}");
            assert!(taken[usize::from(taken[0].track == Track::Audio)].key);
        }
    }

    #[test]
    fn pieces_that_follow_each_other_hold_everything_once() {
        let all = stream();
        let mut joined = taken(&all, 0, Some(3_000));
        joined.extend(taken(&all, 3_000, Some(7_000)));
        joined.extend(taken(&all, 7_000, None));
        assert_eq!(joined, all);
    }

    #[test]
    fn what_lies_in_front_of_the_first_key_picture_is_the_beginning_s() {
        let mut all = stream();
        for sample in all.iter_mut().filter(|sample| sample.track == Track::Video) {
            sample.dts_ms += 50;
        }
        let first = taken(&all, 20, Some(1_000));
        assert_eq!(
            (span(&first, Track::Audio), span(&first, Track::Video)),
            ((0, 1_000), (50, 850))
        );
        let mut joined = first;
        joined.extend(taken(&all, 1_050, None));
        joined.sort_by_key(|sample| (pts(sample), sample.track));
        all.sort_by_key(|sample| (pts(sample), sample.track));
        assert_eq!(joined, all);
    }

    #[test]
    fn sound_alone_is_cut_at_its_frames() {
        let all: Vec<_> = stream().into_iter().filter(|s| s.track == Track::Audio).collect();
        let taken = taken(&all, 2_550, Some(4_010));
        assert_eq!(span(&taken, Track::Audio), (2_500, 4_000));
        assert!(Search::new(0, None).cut().is_none());
    }
}
