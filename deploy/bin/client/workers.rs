//! `aircheck worker list|drain`

use std::error::Error;
use std::time::{Duration, Instant};

use proto::v1::fleet_client::FleetClient;
use proto::v1::{DrainWorkerRequest, ListWorkersRequest, Worker, WorkerState};
use serde_json::{Value, json};

use super::{Done, PAGE, Way, bytes, connect, length, print, said, table};
use crate::cli::{Client, WorkersCommand};

/// Time between two looks at a worker that is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// Time in which a worker is heard to do as it was told: it hears at once on its session, and says so with its next heartbeat.
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) async fn run(command: WorkersCommand) -> Done {
    match command {
        WorkersCommand::List { client } => list(&client).await,
        WorkersCommand::Drain {
            worker,
            undo,
            no_wait,
            client,
        } => drain(worker, undo, no_wait, &client).await,
    }
}

async fn all(service: &mut FleetClient<Way>) -> Result<Vec<Worker>, Box<dyn Error + Send + Sync>> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListWorkersRequest {
            page_size: PAGE,
            page_token,
        };
        let page = service.list_workers(request).await.map_err(said)?.into_inner();
        all.extend(page.workers);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// What the next look at a worker that was asked to leave, or to stay, says.
struct Asked {
    undo: bool,
    /// It was seen to drain.
    heard: bool,
}

impl Asked {
    /// Whether what was asked for has come about, `waited` after it was asked for.
    ///
    /// # Errors
    /// It will not: with the reason, and what to do.
    fn done(&mut self, state: WorkerState, streams: u32, waited: Duration) -> Result<bool, String> {
        let again = format!(
            "ask again with `aircheck worker drain{}`",
            if self.undo { " --undo" } else { "" }
        );
        match (self.undo, state) {
            (true, WorkerState::Alive) => return Ok(true),
            (true, WorkerState::Lost) => return Err("is lost; started again it takes streams".into()),
            (false, WorkerState::Draining) => {
                self.heard = true;
                return Ok(streams == 0);
            }
            // A process that has left and was stopped.
            (false, WorkerState::Lost) if self.heard && streams == 0 => return Ok(true),
            (false, WorkerState::Lost) => {
                return Err(format!(
                    "is lost with {streams} streams; they wait for their publishers as their templates say"
                ));
            }
            (false, WorkerState::Alive) if self.heard => {
                return Err(format!(
                    "takes streams again: it was started anew, or told to stay; {again}"
                ));
            }
            _ => {}
        }
        if !self.heard && waited >= ANSWER {
            return Err(format!("did not answer within {} s; {again}", ANSWER.as_secs()));
        }
        Ok(false)
    }
}

async fn drain(worker: String, undo: bool, no_wait: bool, client: &Client) -> Done {
    let mut service = FleetClient::new(connect(client)?);
    let request = DrainWorkerRequest { worker, undo };
    let answer = service.drain_worker(request).await.map_err(said)?.into_inner();
    let id = answer.worker_id;
    let mut asked = Asked { undo, heard: false };
    let since = Instant::now();
    let mut shown = None;
    let worker = loop {
        let worker = all(&mut service)
            .await?
            .into_iter()
            .find(|worker| worker.worker_id == id);
        // One that is forgotten holds nothing.
        let Some(worker) = worker else { break None };
        let done = no_wait
            || asked
                .done(worker.state(), worker.streams, since.elapsed())
                .map_err(|reason| format!("{} {reason}", worker.name))?;
        if done {
            break Some(worker);
        }
        let (streams, pulls) = (worker.streams, worker.pulls);
        if streams > 0 && shown.replace((streams, pulls)) != Some((streams, pulls)) {
            eprintln!("{}: {streams} streams, {pulls} of them fetched", worker.name);
        }
        tokio::time::sleep(LOOK).await;
    };
    let shown = worker.as_ref();
    let document = json!({ "worker": shown.map(document) });
    print(client, &document, || match shown {
        Some(worker) => format!("{} is {}, {} streams\n", worker.name, state(worker), worker.streams),
        None => format!("{id} is gone\n"),
    })
}

async fn list(client: &Client) -> Done {
    let all = all(&mut FleetClient::new(connect(client)?)).await?;
    let document = json!({ "workers": all.iter().map(document).collect::<Vec<_>>() });
    let headings = [
        "worker", "name", "state", "heard", "rtmp", "streams", "pulls", "rate", "cpu", "journals", "oldest", "waiting",
    ];
    print(client, &document, || {
        table(&headings, &all.iter().map(row).collect::<Vec<_>>())
    })
}

fn state(worker: &Worker) -> &'static str {
    match worker.state() {
        WorkerState::Unspecified => "unknown",
        WorkerState::Alive => "alive",
        WorkerState::Silent => "silent",
        WorkerState::Lost => "lost",
        WorkerState::Draining => "draining",
    }
}

fn document(worker: &Worker) -> Value {
    let load = worker.load.unwrap_or_default();
    json!({
        "worker_id": worker.worker_id,
        "name": worker.name,
        "rtmp": worker.rtmp_addr,
        "version": worker.version,
        "state": state(worker),
        "heard_ms_ago": worker.heard_ms_ago,
        "streams": worker.streams,
        "pulls": worker.pulls,
        "bits_per_second": load.bits_per_second,
        "cpu_milli": load.cpu_milli,
        "journal_bytes": load.journal_bytes,
        "journal_age_ms": load.journal_age_ms,
        "uploads_waiting": load.uploads_waiting,
    })
}

fn row(worker: &Worker) -> Vec<String> {
    let load = worker.load.unwrap_or_default();
    vec![
        worker.worker_id.clone(),
        worker.name.clone(),
        state(worker).to_owned(),
        format!("{} ago", length(worker.heard_ms_ago)),
        worker.rtmp_addr.clone(),
        worker.streams.to_string(),
        worker.pulls.to_string(),
        format!("{} kbit/s", load.bits_per_second / 1000),
        format!("{}%", load.cpu_milli / 10),
        bytes(load.journal_bytes),
        length(load.journal_age_ms),
        load.uploads_waiting.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn leave() -> Asked {
        Asked {
            undo: false,
            heard: false,
        }
    }

    #[test]
    fn a_worker_has_left_when_it_drains_and_holds_nothing() {
        let mut asked = leave();
        assert_eq!(
            asked.done(WorkerState::Alive, 0, NOW),
            Ok(false),
            "it has not heard yet"
        );
        assert_eq!(
            asked.done(WorkerState::Draining, 2, ANSWER * 9),
            Ok(false),
            "streams take their time"
        );
        assert_eq!(
            asked.done(WorkerState::Silent, 2, ANSWER * 9),
            Ok(false),
            "its session may come back"
        );
        assert_eq!(asked.done(WorkerState::Draining, 0, ANSWER * 9), Ok(true));
        assert_eq!(
            asked.done(WorkerState::Lost, 0, ANSWER * 9),
            Ok(true),
            "it was stopped behind that"
        );
    }

    #[test]
    fn a_worker_that_never_answers_is_not_waited_for() {
        for undo in [false, true] {
            let mut asked = Asked { undo, heard: false };
            assert_eq!(asked.done(WorkerState::Silent, 1, ANSWER / 2), Ok(false));
            let reason = asked.done(WorkerState::Silent, 1, ANSWER).unwrap_err();
            assert!(reason.contains("did not answer within 10 s"), "{reason}");
        }
    }

    #[test]
    fn a_worker_that_is_started_anew_or_lost_while_it_drains_ends_the_wait() {
        let mut asked = leave();
        assert_eq!(asked.done(WorkerState::Draining, 2, NOW), Ok(false));
        let reason = asked.done(WorkerState::Alive, 0, NOW).unwrap_err();
        assert!(reason.contains("started anew"), "{reason}");
        let reason = asked.done(WorkerState::Lost, 2, NOW).unwrap_err();
        assert!(reason.contains("lost with 2 streams"), "{reason}");
    }
}
