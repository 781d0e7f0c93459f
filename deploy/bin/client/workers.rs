//! `aircheck worker list|drain`

use std::error::Error;
use std::time::Duration;

use proto::v1::fleet_client::FleetClient;
use proto::v1::{DrainWorkerRequest, ListWorkersRequest, Worker, WorkerState};
use serde_json::{Value, json};

use super::{Done, PAGE, Way, bytes, connect, length, print, said, table};
use crate::cli::{Client, WorkersCommand};

/// Time between two looks at a worker that is waited for.
const LOOK: Duration = Duration::from_millis(500);

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

async fn drain(worker: String, undo: bool, no_wait: bool, client: &Client) -> Done {
    let mut service = FleetClient::new(connect(client)?);
    let request = DrainWorkerRequest { worker, undo };
    let answer = service.drain_worker(request).await.map_err(said)?.into_inner();
    let id = answer.worker_id;
    let wanted = if undo {
        WorkerState::Alive
    } else {
        WorkerState::Draining
    };
    let mut shown = None;
    let worker = loop {
        let worker = all(&mut service)
            .await?
            .into_iter()
            .find(|worker| worker.worker_id == id);
        // One that is forgotten holds nothing.
        let Some(worker) = worker else { break None };
        let (streams, pulls) = (worker.streams, worker.pulls);
        if no_wait || worker.state() == wanted && (undo || streams == 0) {
            break Some(worker);
        }
        if shown.replace((streams, pulls)) != Some((streams, pulls)) {
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
