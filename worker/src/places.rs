//! Opens the places where a worker's media goes, as the settings name them.

use std::path::{Path, PathBuf};

use shared::config::{ObjectsConfig, WorkerConfig};
use shared::objects::{Bucket, ObjectsUrl};
use shared::telemetry::WorkerMetrics;

use crate::start::{StartError, directory};
use crate::stream::adopt::NOTES;
use crate::upload::{Limits, Local, Mark, Needs, Objects, Remote};

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

/// Refuses to work without a second place while recordings are under way there: what they have stored would not be found, and part of it be
/// stored anew in the first. Their journals stay as they are.
pub(crate) fn ensure_second(journals: &Path, objects: &Objects) -> Result<(), StartError> {
    if matches!(objects, Objects::Remote(remote) if remote.second().is_some()) {
        return Ok(());
    }
    for journal in std::fs::read_dir(journals).map_err(directory("journal directory", journals))? {
        let notes = journal
            .map_err(directory("journal directory", journals))?
            .path()
            .join(NOTES);
        if let Some(mark) = Mark::find(&notes).map_err(directory("recorders' notes", &notes))? {
            return Err(StartError::Setting(format!(
                "a recording is under way in the second place of objects ({}), and the settings name none: set objects.copy as it was, with mode = \"backup\", \
                 until it has ended, and for as long as that place holds something",
                mark.display()
            )));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_takes_the_second_place_away_too_early_is_told_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let notes = dir.path().join("publish").join(NOTES);
        std::fs::create_dir_all(&notes).expect("made");
        std::fs::create_dir(dir.path().join("a publish without recorders")).expect("made");
        std::fs::write(notes.join("r-mp4.slot"), b"state").expect("written");
        let limits = Limits {
            max_uploads: 1,
            part_size: 5 << 20,
            max_bandwidth: 0,
        };
        let metrics = WorkerMetrics::default();
        let remote = || Remote::new(Bucket::in_memory(), limits, metrics.clone()).expect("threads");
        let alone = [
            Objects::Remote(remote()),
            Objects::Local(Local::open(&dir.path().join("objects")).expect("opened")),
        ];
        let when = (Duration::from_secs(1), Needs::default());
        let two = remote().with_backup((Bucket::in_memory(), limits), when, metrics.clone());
        let two = Objects::Remote(two);
        for objects in alone.iter().chain([&two]) {
            ensure_second(dir.path(), objects).expect("nobody has left the first");
        }

        let mark = Mark::of(&notes, "r-mp4");
        mark.set().expect("set");
        ensure_second(dir.path(), &two).expect("both are there");
        for objects in &alone {
            let refused = ensure_second(dir.path(), objects).expect_err("the second is gone");
            let said = refused.to_string();
            assert!(said.contains("r-mp4.second") && said.contains("objects.copy"), "{said}");
        }
        assert!(notes.join("r-mp4.slot").exists() && mark.is_set(), "all is as it was");
        mark.clear().expect("it came back");
        ensure_second(dir.path(), &alone[0]).expect("nobody is there any more");
    }
}
