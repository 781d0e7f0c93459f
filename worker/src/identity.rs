//! Who a worker is.

use shared::config::WorkerConfig;
use shared::ids::WorkerId;

use crate::start::{Deps, StartError, directory};

/// The worker's identity, kept in its data directory.
pub(crate) fn worker_id(config: &WorkerConfig, deps: &Deps) -> Result<WorkerId, StartError> {
    let path = config.data_dir.join("worker-id");
    if let Some(id) = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        return Ok(id);
    }
    let id = WorkerId::generate(&*deps.ids, deps.clock.now());
    std::fs::write(&path, format!("{id}\n")).map_err(directory("worker identity", &path))?;
    Ok(id)
}
