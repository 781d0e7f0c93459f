//! Reads what a [`Planner`](crate::planner::Planner) decides upon from the store.

use shared::{
    config::CoordinatorConfig,
    ids::PublishId,
    recording::Recording,
    store::{PublishRecord, Repo, StoreError, StreamRecord, keys},
    time::Clock,
};

use crate::{
    catalog::Catalog,
    doors::Doors,
    fleet::Fleet,
    leases::{self, Known, Leases},
    planner::State,
    pulls::Pulls,
    stitches::Stitches,
    tasks::Tasks,
};

impl State {
    /// Reads everything from the store.
    pub(crate) async fn load(repo: &Repo, config: &CoordinatorConfig, clock: &dyn Clock) -> Result<State, StoreError> {
        let catalog = Catalog::new(config, repo.all(keys::TEMPLATES).await?, repo.all(keys::RULES).await?);
        let doors = Doors::new(
            config.known_domains_only,
            repo.all(keys::DOMAINS).await?,
            repo.all(keys::BANS).await?,
        );
        let streams: Vec<StreamRecord> = repo.all(keys::STREAMS).await?;
        let stitches = Stitches::new(repo.all(keys::STITCHES).await?);
        let mut live = Vec::new();
        let mut fleet = Fleet::new(config.worker_timeout);
        let mono = clock.monotonic();
        for publish in streams.iter().filter_map(|stream| stream.publish) {
            if let Some(known) = load_known(repo, publish).await? {
                fleet.expect(known.record.worker, mono);
                live.push(known);
            }
        }
        for record in &mut live {
            for held in &mut record.recordings {
                held.stitch = stitches.of(held.id, record.record.epoch, |_| false);
            }
        }
        for worker in stitches.workers() {
            fleet.expect(worker, mono);
        }
        let pulls = Pulls::new(config.max_pulls, repo.all(keys::PULLS).await?);
        for worker in pulls.workers() {
            fleet.expect(worker, mono);
        }
        Ok(State {
            catalog,
            leases: Leases::new(streams, live, stitches, mono),
            fleet,
            pulls,
            tasks: Tasks::new(
                config.tasks.clone(),
                config.worker_timeout,
                repo.all(keys::OPEN_TASKS).await?,
                mono,
            ),
            doors,
        })
    }
}

/// What the store has of a publish.
pub(crate) async fn load_known(repo: &Repo, publish: PublishId) -> Result<Option<Known>, StoreError> {
    let Some((record, _)) = repo.get::<PublishRecord>(&keys::publish(publish)).await? else {
        return Ok(None);
    };
    let mut recordings = Vec::with_capacity(record.recordings.len());
    for id in &record.recordings {
        let recording: Option<Recording> = repo.recording(*id).await?;
        let window = record.windows.get(id).copied().unwrap_or_default();
        recordings.extend(recording.map(|recording| leases::granted_of(recording, window)));
    }
    Ok(Some(Known { record, recordings }))
}
