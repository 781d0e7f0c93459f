//! The interruption matrix: how often × for how long × what changes × which worker goes on.
//!
//! Every value of a column meets every value of each other at least once. `AIRCHECK_STITCH_MATRIX=all` runs the full product, in about an hour;
//! `AIRCHECK_STITCH_MATRIX=2/4` the second of four parts of it, which are about as long; and `AIRCHECK_STITCH_MATRIX=WORD,WORD` those cases
//! whose name holds one of the words.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::publisher::Publisher;
use support::server::Server;

use super::bench::{Bench, Change, keep, send, units};
use super::checks;

/// So many cases at a time: they mostly wait.
const AT_ONCE: usize = 12;

/// Time from the end of a push to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Blink,
    FiveSeconds,
    JustInTime,
    TooLate,
}

impl Away {
    const ALL: [Self; 4] = [Self::Blink, Self::FiveSeconds, Self::JustInTime, Self::TooLate];

    /// The time that the template waits; also the name of the application.
    fn window(self) -> Duration {
        Duration::from_secs(match self {
            Self::FiveSeconds => 12,
            Self::Blink | Self::JustInTime => 4,
            Self::TooLate => 1,
        })
    }

    fn pause(self) -> Duration {
        match self {
            Self::Blink => Duration::from_millis(200),
            Self::FiveSeconds => Duration::from_secs(5),
            Self::JustInTime => self.window() - Duration::from_secs(1),
            Self::TooLate => self.window() + Duration::from_secs(1),
        }
    }

    fn app(self) -> String {
        format!("w{}", self.window().as_secs())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// On with the same worker.
    Same,
    /// To another worker with each push.
    Other,
    /// On with the same worker, which was killed in each push and started again.
    Killed,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    interruptions: usize,
    away: Away,
    change: Change,
    goes: Goes,
}

const INTERRUPTIONS: [usize; 3] = [1, 2, 20];
const GOES: [Goes; 3] = [Goes::Same, Goes::Other, Goes::Killed];

impl Case {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for interruptions in INTERRUPTIONS {
            for away in Away::ALL {
                for change in Change::ALL {
                    for goes in GOES {
                        all.push(Self {
                            interruptions,
                            away,
                            change,
                            goes,
                        });
                    }
                }
            }
        }
        all
    }

    fn name(&self) -> String {
        let Self {
            interruptions,
            away,
            change,
            goes,
        } = self;
        format!("{interruptions}x-{away:?}-{}-{goes:?}", change.name()).to_lowercase()
    }

    /// The pairs of values that it covers.
    fn pairs(&self) -> Vec<String> {
        let values = [
            self.interruptions.to_string(),
            format!("{:?}", self.away),
            self.change.name().to_owned(),
            format!("{:?}", self.goes),
        ];
        let pair = |(at, one): (usize, &String)| {
            let others = values[at + 1..].iter();
            others.map(|other| format!("{one} {other}")).collect::<Vec<_>>()
        };
        values.iter().enumerate().flat_map(pair).collect()
    }

    /// The longest of all wait longest.
    fn weight(&self) -> Duration {
        let each = match self.goes {
            Goes::Killed => Duration::from_secs(4),
            _ => Duration::from_secs(1),
        };
        (self.away.pause() + each) * u32::try_from(self.interruptions).unwrap_or(1)
    }

    /// Media of each push, milliseconds: more than a segment, where there are few.
    fn len_ms(&self) -> u32 {
        if self.interruptions > 2 { 1_500 } else { 7_000 }
    }
}

/// Few cases that cover all pairs: each time the one that covers most of what is left, for the time it takes.
fn covering(all: &[Case]) -> Vec<Case> {
    let mut left: BTreeSet<String> = all.iter().flat_map(Case::pairs).collect();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        let worth = |case: &&Case| {
            let pairs = case.pairs().into_iter().filter(|pair| left.contains(pair)).count();
            pairs as u128 * 1_000_000 / (10_000 + case.weight().as_millis())
        };
        let Some(best) = all.iter().max_by_key(worth) else {
            break;
        };
        best.pairs().iter().for_each(|pair| {
            left.remove(pair);
        });
        chosen.push(*best);
    }
    chosen
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no setting of the product"
)]
fn wanted() -> Option<String> {
    std::env::var("AIRCHECK_STITCH_MATRIX").ok()
}

/// The cases that are asked for, the longest first. An error says what a share is that there is not.
fn selection(wanted: Option<&str>) -> Result<Vec<Case>> {
    let mut all = Case::all();
    all.sort_by_key(|case| std::cmp::Reverse(case.weight()));
    Ok(match wanted {
        None | Some("") => {
            let mut cases = covering(&all);
            cases.sort_by_key(|case| std::cmp::Reverse(case.weight()));
            cases
        }
        Some("all") => all,
        Some(words) => match words.split_once('/') {
            Some((share, of)) => dealt(all, share.parse()?, of.parse()?)?,
            None => {
                let named = |case: &Case| words.split(',').any(|word| case.name().contains(word));
                all.into_iter().filter(named).collect()
            }
        },
    })
}

/// Every `of`th case, from `share` on; dealt out by length, so that shares are about as long.
fn dealt(all: Vec<Case>, share: usize, of: usize) -> Result<Vec<Case>> {
    ensure!(
        (1..=of).contains(&share) && of <= all.len(),
        "AIRCHECK_STITCH_MATRIX={share}/{of}: write 1/4, 2/4, 3/4 or 4/4"
    );
    Ok(all.into_iter().skip(share - 1).step_by(of).collect())
}

/// The workers that a case pushes into.
enum Workers<'a> {
    Shared(&'a [Server]),
    Own(Box<Option<Server>>),
}

struct Run<'a> {
    case: Case,
    bench: &'a Bench,
    workers: Workers<'a>,
    app: String,
    stream: String,
    folder: PathBuf,
    /// Segments are fragments of MP4.
    fragments: bool,
}

impl<'a> Run<'a> {
    fn new(case: Case, attempt: usize, bench: &'a Bench, (shared, fragments): (&'a [Server], bool)) -> Result<Self> {
        let workers = match case.goes {
            Goes::Killed => Workers::Own(Box::new(Some(bench.worker().start()?))),
            _ => Workers::Shared(shared),
        };
        Ok(Self {
            case,
            bench,
            workers,
            app: case.away.app(),
            stream: format!("{}-{attempt}", case.name()),
            fragments,
            folder: bench.path(&format!("pushes/{}", case.name()))?,
        })
    }

    /// Pushes, interrupted as the case says; gives each push's media.
    fn push(&mut self) -> Result<Vec<PathBuf>> {
        let Case {
            interruptions,
            away,
            change,
            goes,
        } = self.case;
        let len_ms = self.case.len_ms();
        let mut files = Vec::new();
        let mut ended: Option<Instant> = None;
        for push in 0..=interruptions {
            let media = change.media(push, len_ms)?;
            files.push(keep(&self.folder, push, &media)?);
            let rtmp = match &self.workers {
                Workers::Shared(workers) if goes == Goes::Other => workers[push % workers.len()].rtmp(),
                Workers::Shared(workers) => workers[0].rtmp(),
                Workers::Own(worker) => (**worker).as_ref().context("the worker is down")?.rtmp(),
            };
            let publisher = send(rtmp, &self.app, &self.stream, &media, change.begin_ms(push, len_ms))?;
            // The coordinator decides a little after the worker has taken the push.
            let in_time = |ended: Instant| ended.elapsed() + Duration::from_millis(400) < away.window();
            ensure!(away != Away::JustInTime || ended.is_none_or(in_time), LATE);
            let end = self.end(publisher, units(&media), push)?;
            if push < interruptions {
                std::thread::sleep(away.pause().saturating_sub(end.elapsed()));
            }
            ended = Some(end);
        }
        Ok(files)
    }

    /// Ends a push; gives the moment from which on the next is waited for, or one shortly before.
    fn end(&mut self, publisher: Publisher, units: usize, push: usize) -> Result<Instant> {
        let away = self.case.away;
        let recordings = if away == Away::TooLate { push + 1 } else { 1 };
        let Workers::Own(worker) = &mut self.workers else {
            if self.case.goes == Goes::Other {
                // Pushes last longer than leases take: of two that wait for one, either may be the first.
                self.bench.arrived(&self.stream, units)?;
            }
            publisher.finish()?;
            // A window begins when the coordinator hears of the push's end.
            return match away {
                Away::TooLate => self.bench.interrupted(&self.stream, recordings).map(|_| Instant::now()),
                _ => Ok(Instant::now()),
            };
        };
        self.bench.arrived(&self.stream, units)?;
        let setup = worker.take().context("the worker is down")?.kill()?;
        drop(publisher);
        **worker = Some(setup.start()?);
        match away {
            Away::Blink => Ok(Instant::now()),
            // Between two looks the worker may have been lost and back.
            Away::TooLate => self.bench.finished(&self.stream, recordings).map(|_| Instant::now()),
            _ => self.bench.interrupted(&self.stream, recordings),
        }
    }

    /// Waits for the end of all, and checks all of it.
    fn check(&self, pushes: &[PathBuf]) -> Result<()> {
        let expected = if self.case.away == Away::TooLate {
            pushes.len()
        } else {
            1
        };
        let recordings = self.bench.finished(&self.stream, expected)?;
        ensure!(
            recordings.len() == expected,
            "{} recordings of {expected}: {recordings:#?}",
            recordings.len()
        );
        let folder = self.bench.fetch(&self.app, &self.stream)?;
        for (recording, fed) in recordings.iter().zip(pushes.chunks(pushes.len() / expected)) {
            let id = recording["recording_id"].as_str().context("no id")?;
            let gaps = recording["gaps"].as_array().cloned().unwrap_or_default();
            let named = gaps.iter().filter(|gap| gap["reason"] == "interrupted").count();
            // Times that begin anew are said as well.
            let others = gaps.iter().filter(|gap| {
                let reason = gap["reason"].as_str().unwrap_or("");
                !["interrupted", "worker_killed", "timestamp_jump"].contains(&reason)
            });
            ensure!(
                named + 1 == fed.len() && others.count() == 0,
                "{named} interruptions of {} pushes: {}",
                fed.len(),
                recording["gaps"]
            );
            let list = folder.join(self.bench.list(&self.stream, id)?.context("no list")?);
            checks::ensure_holds(&list, fed)?;
            // ffmpeg reads one initialisation segment, and takes the codecs of the first stretch for those of the list.
            match self.case.change == Change::Codec || self.fragments {
                true => checks::ensure_stretches_decode(&list)?,
                false => checks::ensure_decodes(&list)?,
            }
            for epoch in std::fs::read_dir(folder.join(id))? {
                let running = epoch?.path().join("hls/index.m3u8");
                if running.is_file() && running != list {
                    checks::ensure_sound(&running, true)?;
                }
            }
            // Chromium has no decoder for HEVC; what is of one push is any recording's affair.
            if self.case.change != Change::Codec && fed.len() > 1 {
                let sound = [Change::AudioLost, Change::AudioAppears].contains(&self.case.change);
                let said = match self.fragments && self.case.change == Change::NoAudio {
                    true => checks::ensure_reaches_its_end(&folder, &list)?,
                    false => checks::ensure_plays(&folder, &list, sound)?,
                };
                ensure!(
                    self.case.change == Change::AudioOnly || said["frames"].as_u64() > Some(0),
                    "{said:#}"
                );
            }
        }
        Ok(())
    }
}

/// A push that should have come in time came too late, for the machine's sake: the case is no case of its kind.
const LATE: &str = "the machine was too slow for this case";
/// So often such a case is tried.
const TRIES: usize = 3;

fn run(case: Case, bench: &Bench, (shared, fragments): (&[Server], bool)) -> Result<()> {
    for attempt in 1.. {
        let mut run = Run::new(case, attempt, bench, (shared, fragments))?;
        match run.push() {
            Ok(pushes) => return run.check(&pushes),
            Err(error) if attempt < TRIES && error.to_string() == LATE => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Runs cases, many at a time.
fn run_all(cases: &[Case], bench: &Bench, fragments: bool) -> Result<()> {
    ensure!(!cases.is_empty(), "AIRCHECK_STITCH_MATRIX names no case");
    let shared: Vec<Server> = (0..2).map(|_| bench.worker().start()).collect::<Result<_>>()?;
    let (next, begin) = (AtomicUsize::new(0), Instant::now());
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = run(*case, bench, (&shared, fragments));
                    let said = done
                        .as_ref()
                        .map_or_else(|fault| format!("{fault:#}"), |()| "ok".to_owned());
                    eprintln!("{:>5.1} s  {}: {said}", begin.elapsed().as_secs_f32(), case.name());
                    if let (Err(fault), Ok(mut faults)) = (done, faults.lock()) {
                        faults.push(format!("{}: {fault:#}", case.name()));
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().map_err(|_| anyhow::anyhow!("a case panicked"))?;
    ensure!(
        faults.is_empty(),
        "{} of {} cases:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n\n")
    );
    Ok(())
}

const SETTINGS: [&str; 2] = ["coordinator.heartbeat=500ms", "coordinator.worker_timeout=3s"];

#[test]
fn every_interruption_is_one_recording_that_plays() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    for away in Away::ALL.into_iter().filter(|away| *away != Away::Blink) {
        bench.wait_for(&away.app(), away.window(), &[])?;
    }
    run_all(&selection(wanted().as_deref())?, &bench, false)
}

#[test]
fn fragments_of_mp4_are_stitched_as_well() -> Result<()> {
    let bench = Bench::start(&SETTINGS)?;
    let away = Away::Blink;
    bench.wait_for(&away.app(), away.window(), &["--hls-segments", "fmp4"])?;
    let case = |(number, change): (usize, Change)| Case {
        interruptions: 2,
        away,
        change,
        goes: GOES[number % GOES.len()],
    };
    let cases: Vec<Case> = Change::ALL.into_iter().enumerate().map(case).collect();
    run_all(&cases, &bench, true)?;
    let codec = cases
        .iter()
        .find(|case| case.change == Change::Codec)
        .context("no such case")?;
    let folder = bench.path(&format!("fetched/{}/{}-1", away.app(), codec.name()))?;
    let recording = std::fs::read_dir(folder)?.next().context("no recording")??.path();
    for (epoch, entry) in [(1, b"avc1"), (2, b"hvc1"), (3, b"avc1")] {
        let init = std::fs::read(recording.join(format!("e{epoch:06}/hls/init-000000.mp4")))?;
        ensure!(
            init.windows(4).any(|word| word == entry),
            "the initialisation segment of push {epoch} is of another codec"
        );
    }
    Ok(())
}

#[test]
fn the_selection_covers_every_pair() {
    let all = Case::all();
    let chosen = covering(&all);
    let pairs = |cases: &[Case]| cases.iter().flat_map(Case::pairs).collect::<BTreeSet<_>>();
    assert_eq!(pairs(&chosen), pairs(&all));
    assert!(chosen.len() < 50, "{} cases", chosen.len());
}

#[test]
fn shares_of_the_matrix_are_all_of_it_once() -> Result<()> {
    let names = |wanted: &str| -> Result<Vec<String>> { Ok(selection(Some(wanted))?.iter().map(Case::name).collect()) };
    let mut shares = Vec::new();
    for share in 1..=4 {
        shares.extend(names(&format!("{share}/4"))?);
    }
    let mut all = names("all")?;
    shares.sort();
    all.sort();
    ensure!(shares == all && all.len() == 324, "{} of {}", shares.len(), all.len());
    for wrong in ["0/4", "5/4", "1/0", "1/325", "one/4"] {
        ensure!(selection(Some(wrong)).is_err(), "{wrong}");
    }
    Ok(())
}
