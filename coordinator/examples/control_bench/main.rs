//! Measures the control plane: a real etcd, two coordinators as processes, and simulated workers that hold sessions and leases
//! for so many streams. `make bench-control` runs it; `docs/performance.md` has its figures.
//!
//! ```text
//! cargo run --release -p coordinator --example control_bench -- --binary target/release/aircheck [--quick]
//!     [--streams 1000,10000,100000] [--seconds 30] [--idle 30] [--out target/bench]
//! ```
//!
//! For each number of streams, from nothing: all streams are leased as fast as that goes; then publishes begin at a fixed rate,
//! 100 a second, whatever the answers take, each with a whole life of one file, while all others stay; then nothing happens
//! but heartbeats; then the leader is killed with SIGKILL, and every worker must be back with the other coordinator and all streams
//! answered for. Latency counts from the moment at which a publish was due.
//!
//! # Tour
//!
//! 1. `fleet`: simulated workers.
//! 2. `plane`: the processes, and what they and etcd say of themselves.
//! 3. `report`, `plot`: the result.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program that prints its result"
)]

mod fleet;
mod plane;
mod plot;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::Instant;

use self::{
    fleet::Fleet,
    plane::Plane,
    report::{Row, Spread},
};

/// Publishes a second in the measured stretch.
const RATE: u32 = 100;
/// Streams of one simulated worker.
const STREAMS_PER_WORKER: usize = 500;
/// Time for a phase that must end by itself.
const LIMIT: Duration = Duration::from_secs(600);

struct Settings {
    binary: PathBuf,
    streams: Vec<usize>,
    stretch: Duration,
    idle: Duration,
    out: PathBuf,
    docs: Option<PathBuf>,
}

fn settings() -> Result<Settings> {
    let mut settings = Settings {
        binary: PathBuf::from("target/release/aircheck"),
        streams: vec![1_000, 10_000, 100_000],
        stretch: Duration::from_secs(30),
        idle: Duration::from_secs(30),
        out: PathBuf::from("target/bench"),
        docs: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--quick" {
            settings.streams = vec![200, 1_000];
            (settings.stretch, settings.idle) = (Duration::from_secs(5), Duration::from_secs(5));
            continue;
        }
        let value = args.next().with_context(|| format!("{flag} wants a value"))?;
        match flag.as_str() {
            "--binary" => settings.binary = value.into(),
            "--streams" => settings.streams = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--seconds" => settings.stretch = Duration::from_secs(value.parse()?),
            "--idle" => settings.idle = Duration::from_secs(value.parse()?),
            "--out" => settings.out = value.into(),
            "--docs" => settings.docs = Some(value.into()),
            other => bail!("{other}? There are --quick, --binary, --streams, --seconds, --idle, --out and --docs"),
        }
    }
    Ok(settings)
}

/// One number of streams, from nothing.
async fn measure(settings: &Settings, streams: usize) -> Result<Row> {
    let mut plane = Plane::start(&settings.binary)?;
    let empty = plane.leader_usage()?;
    let workers = streams.div_ceil(STREAMS_PER_WORKER);
    let mut fleet = Fleet::start(&plane.servers(), workers)?;
    fleet.all_welcome(LIMIT).await?;

    let etcd_before = plane.etcd().await?;
    let begin = Instant::now();
    fleet.fill(streams).await?;
    let fill = begin.elapsed();
    plane.knows(streams, LIMIT).await?;
    let filled = plane.leader_usage()?;
    let etcd_filled = plane.etcd().await?;
    println!("{streams} streams: leased in {fill:.1?}");

    let (usage, etcd) = (plane.leader_usage()?, plane.etcd().await?);
    let begin = Instant::now();
    let stretch = fleet.publish(RATE, settings.stretch).await?;
    let busy = plane.leader_usage()?.since(&usage, begin.elapsed());
    let etcd_busy = plane.etcd().await?.since(&etcd);
    let lives = stretch.len();
    let lease = Spread::of(stretch);
    println!("{streams} streams: lease {lease}");

    let (usage, etcd) = (plane.leader_usage()?, plane.etcd().await?);
    let begin = Instant::now();
    tokio::time::sleep(settings.idle).await; // what is measured: nothing but heartbeats
    let idle_for = begin.elapsed();
    let idle = plane.leader_usage()?.since(&usage, idle_for);
    let etcd_idle = plane.etcd().await?.since(&etcd);
    let list = plane.newest_page().await?;

    let known = plane.count_streams().await?;
    fleet.forget_welcomes();
    let begin = Instant::now();
    plane.kill_leader()?;
    let probe = fleet.publish_until_granted();
    let (back, granted) = tokio::join!(fleet.all_welcome(LIMIT), probe);
    back?;
    let sessions = granted?.duration_since(begin).max(begin.elapsed());
    let renewed = fleet.renew_all().await?;
    let failover = begin.elapsed();
    plane.knows(streams, LIMIT).await?;
    ensure!(
        renewed.strangers == 0,
        "{} streams were unknown to the new leader",
        renewed.strangers
    );
    println!("{streams} streams: failover {failover:.2?}, of it until every worker's session {sessions:.2?}");
    ensure!(
        known >= streams,
        "{known} of {streams} streams were known before the kill"
    );
    Ok(Row {
        streams,
        workers,
        fill,
        lease,
        lives,
        busy,
        idle,
        rss_empty: empty.rss,
        rss_filled: filled.rss,
        writes_fill: etcd_filled.since(&etcd_before),
        writes_life: etcd_busy,
        writes_idle: etcd_idle,
        idle_for,
        list,
        sessions,
        failover,
        rss_heir: plane.leader_usage()?.rss,
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    let settings = settings()?;
    ensure!(
        settings.binary.is_file(),
        "{} is not there: `make bench-control` builds it",
        settings.binary.display()
    );
    shared::objects::install_tls();
    let before = plane::load_average()?;
    let mut rows = Vec::new();
    for streams in &settings.streams {
        let row = measure(&settings, *streams).await;
        rows.push(row.with_context(|| format!("with {streams} streams"))?);
    }
    std::fs::create_dir_all(&settings.out)?;
    let text = report::text(&rows, before, plane::load_average()?);
    println!("\n{text}");
    std::fs::write(settings.out.join("control.md"), text)?;
    let drawing = plot::svg(&rows);
    std::fs::write(settings.out.join("control.svg"), &drawing)?;
    if let Some(docs) = &settings.docs {
        std::fs::write(docs.join("control-plane.svg"), drawing)?;
    }
    Ok(())
}
