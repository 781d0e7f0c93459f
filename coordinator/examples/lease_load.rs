//! Measures a coordinator: publishes that ask for leases, commit a file and end, so many at a time.
//!
//! ```text
//! cargo run --release -p coordinator --example lease_load -- http://127.0.0.1:7070 10000 100
//! ```
//!
//! The arguments are the coordinator's address, how many publishes in all, and how many at a time. The streams stay in
//! the library of that coordinator: give it a folder of its own.

use std::{
    error::Error,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::v1::{self, acquire_lease_response::Outcome, workers_client::WorkersClient};
use shared::{
    ids::{FileId, IdGen as _, PublishId, Random},
    time::{Clock as _, System},
};
use tokio::sync::Semaphore;
use tonic::transport::Channel;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Times of one publish's calls.
struct Took {
    acquire: Duration,
    commit: Duration,
}

async fn publish(mut client: WorkersClient<Channel>, worker: String, number: usize) -> Result<Took> {
    let now = System::new().now();
    let publish_id = PublishId::generate(&Random, now).to_string();
    let stream = v1::StreamKey {
        domain: "load.example.com".into(),
        app: "live".into(),
        stream: format!("s{number}"),
    };
    let begin = Instant::now();
    let request = v1::AcquireLeaseRequest {
        worker_id: worker,
        publish_id: publish_id.clone(),
        stream: Some(stream),
        started_ms: now.as_millis(),
        ..Default::default()
    };
    let Some(Outcome::Granted(granted)) = client.acquire_lease(request).await?.into_inner().outcome else {
        return Err("refused".into());
    };
    let acquire = begin.elapsed();
    let recording = granted
        .recordings
        .first()
        .ok_or("not recorded: start the coordinator with --record flv")?;
    let begin = Instant::now();
    let file = v1::MediaFile {
        file_id: FileId::generate(&Random, now).to_string(),
        format: v1::Format::Flv.into(),
        name: "x.flv".into(),
        object_key: "x/y.flv".into(),
        ..Default::default()
    };
    let recording_id = recording.recording_id.clone();
    client
        .commit_file(v1::CommitFileRequest {
            recording_id,
            epoch: granted.epoch,
            file: Some(file),
        })
        .await?;
    let commit = begin.elapsed();
    let release = v1::ReleaseLeaseRequest {
        publish_id,
        epoch: granted.epoch,
        ..Default::default()
    };
    client.release_lease(release).await?;
    Ok(Took { acquire, commit })
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get(times.len().saturating_sub(1) * share / 100)
            .copied()
            .unwrap_or_default()
    };
    format!("p50 {:.1?}  p99 {:.1?}  max {:.1?}", at(50), at(99), at(100))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let server = args.next().ok_or("give the coordinator's address")?;
    let count: usize = args.next().ok_or("give a number of publishes")?.parse()?;
    let at_a_time: usize = args.next().ok_or("give how many at a time")?.parse()?;
    let client = WorkersClient::new(Channel::from_shared(server)?.connect().await?);
    let worker = Random.uuid(System::new().now()).to_string();
    let places = Arc::new(Semaphore::new(at_a_time));
    let begin = Instant::now();
    let mut running = Vec::with_capacity(count);
    for number in 0..count {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (client, worker) = (client.clone(), worker.clone());
        running.push(tokio::spawn(async move {
            let took = publish(client, worker, number).await;
            drop(place);
            took
        }));
    }
    let (mut acquires, mut commits) = (Vec::new(), Vec::new());
    for task in running {
        let took = task.await??;
        acquires.push(took.acquire);
        commits.push(took.commit);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{count} publishes, {at_a_time} at a time: {:.0}/s",
        count as f64 / seconds
    )?;
    writeln!(out, "lease   {}", spread(acquires))?;
    writeln!(out, "commit  {}", spread(commits))?;
    Ok(())
}
