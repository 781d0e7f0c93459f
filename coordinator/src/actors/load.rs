//! Reads what a [`Planner`](crate::planner::Planner) decides upon from the store.

use shared::{
    composition::{Composition, CompositionState},
    config::CoordinatorConfig,
    ids::PublishId,
    lease::Grant,
    recording::Recording,
    store::{PublishRecord, Repo, StoreError, StreamRecord, keys},
    time::{Clock, Timestamp},
};
use tracing::error;

use crate::{
    catalog::Catalog,
    compositions::Compositions,
    doors::Doors,
    fleet::Fleet,
    leases::{self, Known, Leases},
    planner::State,
    pulls::Pulls,
    stitches::Stitches,
    tasks::Tasks,
};

/// Publishes that are in memory twice while they are read, at most.
const AT_ONCE: usize = 4_096;

impl State {
    /// Reads everything from the store.
    pub(crate) async fn load(repo: &Repo, config: &CoordinatorConfig, clock: &dyn Clock) -> Result<State, StoreError> {
        let catalog = Catalog::new(config, repo.all(keys::TEMPLATES).await?, repo.all(keys::RULES).await?);
        for template in catalog.misplaced() {
            let (template, place) = (&template.spec.name, &template.spec.place);
            error!(
                template,
                place,
                "a template names a place of objects that the settings here do not have: its recordings wait in their journals where workers do not have it either"
            );
        }
        let doors = Doors::new(
            config.known_domains_only,
            repo.all(keys::DOMAINS).await?,
            repo.all(keys::BANS).await?,
        );
        let streams: Vec<StreamRecord> = repo.all(keys::STREAMS).await?;
        let stitches = Stitches::new(repo.all(keys::STITCHES).await?);
        let mut fleet = Fleet::new(config.worker_timeout);
        let mono = clock.monotonic();
        for worker in stitches.workers() {
            fleet.expect(worker, mono);
        }
        let publishes: Vec<PublishId> = streams.iter().filter_map(|stream| stream.publish).collect();
        let mut leases = Leases::new(streams, stitches);
        for publishes in publishes.chunks(AT_ONCE) {
            for known in load_all(repo, publishes).await?.into_iter().flatten() {
                fleet.expect(known.record.worker, mono);
                leases.read(known, mono);
            }
        }
        let compositions = load_compositions(repo, clock.now()).await?;
        for worker in compositions.workers() {
            fleet.expect(worker, mono);
        }
        let pulls = Pulls::new(config.max_pulls, repo.all(keys::PULLS).await?);
        for worker in pulls.workers() {
            fleet.expect(worker, mono);
        }
        Ok(State {
            catalog,
            leases,
            fleet,
            pulls,
            tasks: Tasks::new(
                config.tasks.clone(),
                config.worker_timeout,
                repo.all(keys::OPEN_TASKS).await?,
                mono,
            ),
            doors,
            compositions,
        })
    }
}

/// All compositions. What the library says of their recordings counts: who led may not have heard of their end.
async fn load_compositions(repo: &Repo, now: Timestamp) -> Result<Compositions, StoreError> {
    let all: Vec<Composition> = repo.all(keys::COMPOSITIONS).await?;
    let begun = all.iter().filter(|one| one.state == CompositionState::Running);
    let at: Vec<String> = begun.map(|one| keys::recording(one.id)).collect();
    let recordings = repo.many::<Recording>(&at).await?;
    let mut compositions = Compositions::new(all);
    for recording in recordings
        .into_iter()
        .flatten()
        .filter(|recording| recording.state.is_terminal())
    {
        let ended = compositions.ended(recording.id, recording.state, &recording.reason, now)?;
        if let Some((txn, clear)) = ended {
            repo.store().commit(txn).await?;
            let kept = repo.file(clear.file()).await?.map(|file| file.epoch);
            repo.store().commit(clear.txn(kept, now)?).await?;
        }
    }
    Ok(compositions)
}

/// What the store has of a publish.
pub(crate) async fn load_known(repo: &Repo, publish: PublishId) -> Result<Option<Known>, StoreError> {
    Ok(load_all(repo, &[publish]).await?.pop().flatten())
}

/// What the library has of what a publish was granted.
pub(crate) async fn load_remembered(repo: &Repo, held: &Grant) -> Result<Vec<Recording>, StoreError> {
    let at: Vec<String> = held.recordings.iter().map(|held| keys::recording(held.id)).collect();
    Ok(repo.many(&at).await?.into_iter().flatten().collect())
}

/// What the store has of publishes, each where it is asked for.
async fn load_all(repo: &Repo, publishes: &[PublishId]) -> Result<Vec<Option<Known>>, StoreError> {
    let at: Vec<String> = publishes.iter().map(|publish| keys::publish(*publish)).collect();
    let records: Vec<Option<PublishRecord>> = repo.many(&at).await?;
    let ids = records.iter().flatten().flat_map(|record| &record.recordings);
    let at: Vec<String> = ids.map(|id| keys::recording(*id)).collect();
    let mut recordings = repo.many::<Recording>(&at).await?.into_iter();
    let known = records.into_iter().map(|record| {
        let record = record?;
        let mut granted = Vec::with_capacity(record.recordings.len());
        for id in &record.recordings {
            let window = record.windows.get(id).copied().unwrap_or_default();
            let recording = recordings.next().flatten();
            granted.extend(recording.map(|recording| leases::granted_of(recording, window)));
        }
        Some(Known {
            record,
            recordings: granted,
        })
    });
    Ok(known.collect())
}
