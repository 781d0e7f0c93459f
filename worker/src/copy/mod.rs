//! Copies what has entered the library to the second place of objects, as the coordinator gives it out.
//!
//! What is to be copied stands in the metadata store, so nothing is lost with this process: [`run`] takes some of it, says now and then that it
//! is still at it, and what came of it. `object` copies. All of it runs on a thread of its own: hashing is work, and recording does not wait.

mod object;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use proto::v1::workers_client::WorkersClient;
use proto::v1::{CopyDone, CopyFailed, TradeCopiesRequest, TradeCopiesResponse};
use shared::auth::Caller;
use shared::config::WorkerConfig;
use shared::ids::WorkerId;
use shared::objects::{Archive, ObjectError, Places};
use shared::servers::{Manner, Servers};
use shared::telemetry::{Reason, WorkerMetrics};
use shared::time::Timestamp;
use shared::wire::Copy;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::object::{CopyError, Ways};
use crate::upload::Pace;

/// Between two words with the coordinator while there is nothing to say.
const POLL: Duration = Duration::from_secs(2);
/// Time for one call.
const CALL: Duration = Duration::from_secs(10);
/// Without an answer for so long what is under way is given up: the coordinator may have given it to another by then.
const SILENCE: Duration = Duration::from_secs(40);
/// First wait after the second place did not answer, doubled with each failure, and the longest: one copy is tried for all.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Copies until it is dropped.
#[derive(Debug)]
pub(crate) struct Copies(Option<Runtime>);

impl Drop for Copies {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why copying does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("objects.copy: {0}")]
    Place(#[from] ObjectError),
    #[error("worker.coordinator: {0}")]
    Servers(#[from] shared::servers::ServersError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// What a copy is called, and what came of it.
type Came = ((Uuid, Timestamp), Result<(), CopyError>);
type Client = WorkersClient<InterceptedService<Servers, Caller>>;

impl Copies {
    /// Begins, where there is a second place.
    pub(crate) fn start(
        config: &WorkerConfig,
        worker: WorkerId,
        caller: &Caller,
        metrics: WorkerMetrics,
    ) -> Result<Option<Self>, StartError> {
        let Some(second) = config.objects.copies() else {
            return Ok(None);
        };
        let (Some(from), Some(to)) = (Places::open(&config.objects)?, &second.url) else {
            return Ok(None);
        };
        let ways = Ways {
            from,
            to: Archive::open(to, &second)?,
            piece: config.objects.part_size.as_bytes(),
            pace: Pace::new(second.max_bandwidth.as_bytes()).into(),
            metrics: metrics.clone(),
        };
        let manner = Manner {
            limit: CALL,
            patience: None,
            first: 0,
        };
        let servers = Servers::new(&config.coordinator, caller, manner)?;
        let client = WorkersClient::new(InterceptedService::new(servers, caller.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("copy")
            .enable_all()
            .build()?;
        info!(to = %to, "copies go to a second place");
        runtime.spawn(run(client, worker, (ways, second.max_uploads), metrics));
        Ok(Some(Self(Some(runtime))))
    }
}

/// Longest text of a problem that is told, bytes.
const MAX_PROBLEM: usize = 1_024;

/// What came of copies and is not told yet.
#[derive(Debug, Default)]
struct News {
    done: Vec<CopyDone>,
    failed: Vec<CopyFailed>,
    /// How long to wait for the second place; none: it answers.
    away: Option<Duration>,
    again: Option<Instant>,
}

impl News {
    fn of(&mut self, (id, since): (Uuid, Timestamp), came: Result<(), CopyError>, metrics: &WorkerMetrics) {
        let id = id.to_string();
        let Err(error) = came else {
            self.away = None;
            let since_ms = since.as_millis();
            return self.done.push(CopyDone { id, since_ms });
        };
        let reason = error.reason();
        metrics.copy_errors.get_or_create(&Reason { reason }).inc();
        if error.is_away() {
            if self.away.is_none() {
                warn!(%error, "the second place of objects does not answer; copies wait");
            }
            let wait = self.away.map_or(FIRST_WAIT, |wait| (wait * 2).min(LONGEST_WAIT));
            self.away = Some(wait);
            self.again = Some(Instant::now() + wait);
        } else {
            self.away = None;
            debug!(id, %error, "not copied yet");
        }
        // A service may answer with a page; longer than the coordinator takes it would hold back all news.
        let mut problem = error.to_string();
        problem.truncate(problem.floor_char_boundary(MAX_PROBLEM));
        self.failed.push(CopyFailed { id, problem });
    }

    /// How many more to begin beside so many.
    fn wants(&self, held: usize, most: usize) -> usize {
        match (self.away, self.again) {
            (Some(_), Some(again)) => usize::from(held == 0 && Instant::now() >= again),
            _ => most - held.min(most),
        }
    }
}

async fn run(mut client: Client, worker: WorkerId, (ways, most): (Ways, usize), metrics: WorkerMetrics) {
    let mut at_work: JoinSet<Came> = JoinSet::new();
    let mut held: BTreeMap<Uuid, AbortHandle> = BTreeMap::new();
    let mut news = News::default();
    let mut heard = Instant::now();
    loop {
        let request = TradeCopiesRequest {
            worker_id: worker.to_string(),
            done: news.done.clone(),
            failed: news.failed.clone(),
            holding: held.keys().map(Uuid::to_string).collect(),
            want: u32::try_from(news.wants(held.len(), most)).unwrap_or(0),
        };
        match client.trade_copies(request).await {
            Ok(answer) => {
                heard = Instant::now();
                news.done.clear();
                news.failed.clear();
                take(answer.into_inner(), &mut held, &mut at_work, &ways);
            }
            Err(status) => {
                debug!(error = status.message(), "the coordinator does not say what to copy");
                if heard.elapsed() > SILENCE {
                    std::mem::take(&mut held).into_values().for_each(|task| task.abort());
                }
                // It is no use to ask at once because something is done.
                tokio::time::sleep(POLL).await;
            }
        }
        let first = tokio::select! {
            biased;
            Some(joined) = at_work.join_next() => Some(joined),
            () = tokio::time::sleep(POLL) => None,
        };
        let mut next = first;
        while let Some(joined) = next {
            // What was given up is nobody's here.
            if let Ok((name, came)) = joined
                && held.remove(&name.0).is_some()
            {
                news.of(name, came, &metrics);
            }
            next = at_work.try_join_next();
        }
    }
}

/// Begins what is new, and stops what is another's.
fn take(answer: TradeCopiesResponse, held: &mut BTreeMap<Uuid, AbortHandle>, at_work: &mut JoinSet<Came>, ways: &Ways) {
    for lost in answer.lost {
        if let Some(task) = lost.parse().ok().and_then(|id: Uuid| held.remove(&id)) {
            task.abort();
        }
    }
    for order in answer.orders {
        match Copy::try_from(order) {
            Ok(copy) => {
                let (id, ways) = (copy.id, ways.clone());
                let task = at_work.spawn(async move { ((id, copy.since), ways.copy(&copy).await) });
                held.insert(id, task);
            }
            Err(error) => warn!(%error, "what is to be copied cannot be read"),
        }
    }
}
