//! Who a worker is, and where its objects lie.

use shared::config::WorkerConfig;
use shared::ids::WorkerId;
use shared::objects::ObjectsUrl;

use crate::start::{Deps, StartError, directory};

/// Names where objects lie, for other workers to know whether they read the same. A directory is this machine's alone.
pub(crate) fn storage(config: &WorkerConfig) -> String {
    match &config.objects.url {
        Some(url @ ObjectsUrl::S3 { .. }) => {
            format!("{url} {}", config.objects.endpoint.as_deref().unwrap_or_default())
        }
        _ => String::new(),
    }
}

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
