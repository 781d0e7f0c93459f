//! Opens the places where a worker's media goes, as the settings name them.

use std::path::PathBuf;

use shared::config::{ObjectsConfig, WorkerConfig};
use shared::objects::{Bucket, ObjectsUrl};
use shared::telemetry::WorkerMetrics;

use crate::start::{StartError, directory};
use crate::upload::{Limits, Local, Needs, Objects, Remote};

/// Opens where media goes; a directory of this machine is given back, to be synced with the journals.
pub(crate) fn open(
    config: &WorkerConfig,
    needs: &Needs,
    metrics: &WorkerMetrics,
) -> Result<(Objects, Option<PathBuf>), StartError> {
    let root = match &config.objects.url {
        Some(ObjectsUrl::S3 { bucket, prefix }) => {
            let (bucket, limits) = bucket_at("objects.url", (bucket, prefix), &config.objects)?;
            let mut remote = Remote::new(bucket, limits, metrics.clone()).map_err(StartError::Thread)?;
            if let Some(backup) = config.objects.backup()
                && let Some(ObjectsUrl::S3 { bucket, prefix }) = &backup.url
            {
                let second = bucket_at("objects.copy.url", (bucket, prefix), &backup)?;
                let when = (config.objects.copy.after, needs.clone());
                remote = remote.with_backup(second, when, metrics.clone());
            }
            return Ok((Objects::Remote(remote), None));
        }
        Some(ObjectsUrl::File(path)) => path.clone(),
        None => config.data_dir.join("objects"),
    };
    let local = Local::open(&root).map_err(directory("objects directory", &root))?;
    Ok((Objects::Local(local), Some(root)))
}

fn bucket_at(
    name: &str,
    (bucket, prefix): (&str, &str),
    config: &ObjectsConfig,
) -> Result<(Bucket, Limits), StartError> {
    let bucket = Bucket::s3(bucket, prefix, config).map_err(|error| StartError::Setting(format!("{name}: {error}")))?;
    let limits = Limits {
        max_uploads: config.max_uploads,
        part_size: config.part_size.as_bytes(),
        max_bandwidth: config.max_bandwidth.as_bytes(),
    };
    Ok((bucket, limits))
}
