//! Windows over real journals: the units that the index says, whenever and in whatever steps they are rendered.

use std::cell::Cell;
use std::rc::Rc;

use journal::{IndexReader, Position};
use media::access_unit::{UnitInfo, UnitKind};
use media::segmenter::Segmenter;
use proptest::prelude::*;
use shared::template::Format;

use super::tests::World;
use super::{FinishedFile, Reach, Setting, Stepped};

/// Wall clock of the journal's first unit.
const BEGIN_MS: i64 = 1_000_000;
const SECONDS: u32 = 20;
/// A moment at which all has arrived.
const LATER: i64 = 3_000_000;

struct Journal {
    world: World,
    units: Vec<(u64, UnitInfo)>,
}

impl Journal {
    fn new() -> Self {
        let mut world = World::new();
        world.stream(SECONDS);
        let mut index = IndexReader::open(&world.dir.path().join("journal"), Position(0)).expect("an index");
        let mut units = Vec::new();
        while let Some(indexed) = index.next().expect("the index") {
            if matches!(indexed.info.kind, UnitKind::Video | UnitKind::Audio) {
                units.push((indexed.at.0, indexed.info));
            }
        }
        Self { world, units }
    }

    fn setting(&self, name: &str, format: Format, from_ms: Option<i64>) -> Setting {
        let interval_ms = if format == Format::Hls { 3_000 } else { 7_000 };
        Setting {
            from_ms,
            ..self.world.setting(name, format, interval_ms)
        }
    }

    /// What a recording between two moments must hold, pictures and sounds: by another way than the recorder's.
    fn expected(&self, from_ms: i64, until_ms: i64) -> (u64, u64) {
        let mut rule = Segmenter::new(0);
        let mut begin = None;
        for (index, (_, info)) in self.units.iter().enumerate() {
            if info.arrival_ms <= from_ms && rule.is_random_access(info) {
                begin = Some(index);
            }
            rule.push(info);
        }
        let first = self.units.iter().position(|(_, info)| info.arrival_ms > from_ms);
        // Before something arrives after its start, or the publish ends without that, there is no such recording.
        let begin = first.map_or(self.units.len(), |first| begin.unwrap_or(first));
        let end = self.units.partition_point(|(_, info)| info.arrival_ms <= until_ms);
        let units = self.units.get(begin..end.max(begin)).unwrap_or(&[]);
        let pictures = units.iter().filter(|(_, info)| info.kind == UnitKind::Video).count() as u64;
        (pictures, units.len() as u64 - pictures)
    }

    /// Renders as the actor does: in steps, told of the end once something arrived behind it.
    fn render(&self, setting: &Setting, until_ms: i64, every: usize, kill: impl Fn(usize) -> bool) -> Vec<Stepped> {
        let mut recorder = self.world.open(setting);
        let mut steps = Vec::new();
        for (n, end) in self.world.ends.iter().enumerate() {
            let last = n + 1 == self.world.ends.len();
            if n % every != every - 1 && !last {
                continue;
            }
            if kill(n) {
                recorder = self.world.open(setting);
            }
            let arrived = self
                .units
                .iter()
                .rfind(|(at, _)| at < end)
                .map_or(0, |(_, info)| info.arrival_ms);
            let until_ms = (arrived > until_ms).then_some(until_ms);
            let reach = Reach {
                end: *end,
                last,
                until_ms,
            };
            let stepped = self.world.advance(&mut recorder, reach);
            let done = stepped.done;
            steps.push(stepped);
            if done {
                return steps;
            }
        }
        panic!("never done")
    }

    fn objects(&self, setting: &Setting) -> Vec<(String, Vec<u8>)> {
        self.world.objects_below(&setting.prefix)
    }
}

fn files(steps: &[Stepped]) -> Vec<FinishedFile> {
    steps.iter().flat_map(|stepped| stepped.files.iter().cloned()).collect()
}

fn units(files: &[FinishedFile]) -> (u64, u64) {
    (
        files.iter().map(|f| f.video_units).sum(),
        files.iter().map(|f| f.audio_units).sum(),
    )
}

thread_local! {
    /// Journals that no test changes.
    static WHOLE: Rc<Journal> = Rc::new(Journal::new());
    /// One whose files go to a bucket.
    static REMOTE: Rc<Journal> = Rc::new({
        let mut journal = Journal::new();
        journal.world.use_a_bucket();
        journal
    });
    static USES: Cell<u32> = const { Cell::new(0) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Rendered while it is pushed, killed at any steps, or rendered when all is over: the units that the index says, the same bytes.
    #[test]
    fn a_window_holds_exactly_its_units(
        from in -2_000i64..22_000,
        length in 1i64..12_000,
        bucket in any::<bool>(),
        every in 1usize..9,
        kills in 1usize..5,
        format in prop::sample::select(vec![Format::Flv, Format::Mp4, Format::Hls, Format::Aac]),
    ) {
        let journal = if bucket { &REMOTE } else { &WHOLE }.with(Rc::clone);
        let (from, until) = (BEGIN_MS + from, BEGIN_MS + from + length);
        let nth = USES.replace(USES.get() + 1);
        let live = journal.setting(&format!("live-{nth}"), format, Some(from));
        let after = journal.setting(&format!("after-{nth}"), format, Some(from));
        let pushed = journal.render(&live, until, every, |n| n % kills == 0);
        let once = journal.render(&after, until, usize::MAX, |_| false);
        prop_assert_eq!(journal.objects(&live), journal.objects(&after));
        let (pictures, sounds) = journal.expected(from, until);
        let found = units(&files(&pushed));
        prop_assert_eq!(found, units(&files(&once)));
        if format == Format::Aac {
            prop_assert_eq!(found, (0, sounds));
        } else {
            prop_assert_eq!(found, (pictures, sounds));
        }
        for stepped in pushed.iter().chain(&once) {
            prop_assert!(stepped.left_out.is_empty(), "nothing within the window is missing");
            prop_assert!(stepped.files.iter().all(|file| file.gaps.is_empty()));
        }
        let last = files(&once).pop();
        prop_assert!(last.is_none_or(|file| file.start_ms <= until));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// What arrived in the window and is no longer kept is a gap by name: units in = units out + units in named gaps.
    #[test]
    fn what_is_no_longer_kept_is_named(from in 0i64..15_000, kept in 0i64..19_000, format in prop::sample::select(vec![Format::Flv, Format::Hls])) {
        let journal = Journal::new();
        let (from, until) = (BEGIN_MS + from, BEGIN_MS + 19_500);
        let at = journal.units.partition_point(|(_, info)| info.arrival_ms < BEGIN_MS + kept);
        let dir = journal.world.dir.path().join("journal");
        journal::retention::drop_bodies_before(&dir, Position(journal.units[at].0)).expect("retention");
        let setting = journal.setting("late", format, Some(from));
        let steps = journal.render(&setting, until, usize::MAX, |_| false);
        let files = files(&steps);
        let (pictures, sounds) = units(&files);
        let gaps: Vec<_> = files.iter().flat_map(|file| &file.gaps).collect();
        let lost: u64 = gaps.iter().map(|gap| gap.units).sum();
        let inside = journal.units.iter().filter(|(_, info)| info.arrival_ms > from && info.arrival_ms <= until).count() as u64;
        if lost == 0 {
            prop_assert_eq!((pictures, sounds), journal.expected(from, until));
        } else {
            prop_assert_eq!(pictures + sounds + lost, inside, "{:?}", gaps);
            prop_assert!(gaps.iter().all(|gap| ["preroll_expired", "before_first_key_frame"].contains(&gap.reason.as_str())));
        }
    }
}

#[test]
fn an_end_that_is_heard_of_late_ends_a_recording_where_it_has_come_to() {
    let journal = Journal::new();
    let setting = journal.setting("stopped", Format::Flv, Some(BEGIN_MS));
    let mut recorder = journal.world.open(&setting);
    let half = journal.world.ends[journal.world.ends.len() / 2];
    let reach = |end, until_ms| Reach {
        end,
        last: false,
        until_ms,
    };
    let mut files = journal.world.advance(&mut recorder, reach(half, None)).files;
    let all = *journal.world.ends.last().expect("an end");
    let stepped = journal.world.advance(&mut recorder, reach(all, Some(BEGIN_MS + 500)));
    assert!(stepped.done);
    files.extend(stepped.files);
    let rendered = journal.units.iter().filter(|(at, _)| *at < half).count() as u64;
    let (pictures, sounds) = units(&files);
    assert_eq!(pictures + sounds, rendered);
}

#[test]
fn a_window_in_which_nothing_arrived_is_empty() {
    let journal = Journal::new();
    for (name, from, until) in [("before", -5_000, -1_000), ("after", 60_000, 90_000)] {
        for format in [Format::Mp4, Format::Hls] {
            let setting = journal.setting(name, format, Some(BEGIN_MS + from));
            let steps = journal.render(&setting, BEGIN_MS + until, 3, |_| false);
            assert!(files(&steps).is_empty(), "{name} {format}");
            assert!(journal.objects(&setting).is_empty(), "{name} {format}");
        }
    }
    // Nothing is decided before something arrived in it: a later key picture may still come before the start.
    let setting = journal.setting("ahead", Format::Flv, Some(LATER));
    let reach = Reach {
        end: *journal.world.ends.last().expect("an end"),
        last: false,
        until_ms: None,
    };
    let stepped = journal.world.advance(&mut journal.world.open(&setting), reach);
    assert!(!stepped.done && stepped.files.is_empty() && stepped.retired == 0);
}
