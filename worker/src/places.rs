//! Opens the places where a worker's media goes, as the settings name them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shared::config::{ObjectsConfig, WorkerConfig};
use shared::objects::{Bucket, ObjectsUrl, Places};
use shared::telemetry::WorkerMetrics;

use crate::start::{StartError, directory};
use crate::stream::adopt::NOTES;
use crate::upload::{Limits, Local, Mark, Needs, Objects, Remote, Sites};

/// Opens where media goes; directories of this machine are given back, to be synced with the journals.
pub(crate) fn open(
    config: &WorkerConfig,
    needs: &Needs,
    metrics: &WorkerMetrics,
) -> Result<(Sites, Vec<PathBuf>), StartError> {
    let mut directories = Vec::new();
    let places = Places::of_settings(&config.objects, |name, objects| {
        let root = match &objects.url {
            Some(ObjectsUrl::S3 { bucket, prefix }) => {
                return bucket_at(name, (bucket, prefix), objects, (needs, metrics)).map(Objects::Remote);
            }
            Some(ObjectsUrl::File(path)) => path.clone(),
            None => config.data_dir.join("objects"),
        };
        let local = Local::open(&root).map_err(directory("objects directory", &root))?;
        directories.push(root);
        Ok(Objects::Local(local))
    })?;
    let sites = Sites::new(places, metrics.clone()).map_err(StartError::Thread)?;
    Ok((sites, directories))
}

/// Refuses to work without a second place while recordings are under way there: what they have stored would not be found, and part of it be
/// stored anew in the first. Their journals stay as they are.
pub(crate) fn ensure_second(journals: &Path, sites: &Sites) -> Result<(), StartError> {
    if sites.buckets().iter().any(|(_, remote)| remote.second().is_some()) {
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

/// The bucket of a place, with the second behind it where that is a backup.
fn bucket_at(
    name: &str,
    url: (&str, &str),
    config: &ObjectsConfig,
    (needs, metrics): (&Needs, &WorkerMetrics),
) -> Result<Remote, StartError> {
    let setting = match name {
        "" => "objects.url".to_owned(),
        name => format!("objects.places.{name}.url"),
    };
    let (first, limits) = bucket(&setting, url, config)?;
    let remote = match name {
        "" => Remote::new(first, limits, metrics.clone()),
        name => Remote::named(name, first, limits, metrics.clone()),
    };
    let remote = remote.map_err(StartError::Thread)?;
    if let Some(backup) = config.backup()
        && let Some(ObjectsUrl::S3 { bucket: at, prefix }) = &backup.url
    {
        let second = bucket("objects.copy.url", (at, prefix), &backup)?;
        let when = (config.copy.after, needs.clone());
        return Ok(remote.with_backup(second, when, metrics.clone()));
    }
    Ok(remote)
}

fn bucket(name: &str, (bucket, prefix): (&str, &str), config: &ObjectsConfig) -> Result<(Bucket, Limits), StartError> {
    let bucket = Bucket::s3(bucket, prefix, config).map_err(|error| StartError::Setting(format!("{name}: {error}")))?;
    let limits = Limits {
        max_uploads: config.max_uploads,
        part_size: config.part_size.as_bytes(),
        max_bandwidth: config.max_bandwidth.as_bytes(),
    };
    Ok((bucket, limits))
}

/// Names where the objects of each place lie, for other workers to know whether they read the same. A directory is this machine's alone, and its
/// name is empty. The place without a name is that of `objects.url`.
pub(crate) fn storages(config: &ObjectsConfig) -> BTreeMap<String, String> {
    let name = |config: &ObjectsConfig| match &config.url {
        Some(url @ ObjectsUrl::S3 { .. }) => format!("{url} {}", config.endpoint.as_deref().unwrap_or_default()),
        _ => String::new(),
    };
    let places = config
        .places
        .keys()
        .filter_map(|place| Some((place.clone(), name(&config.place(place)?))));
    places.chain([(String::new(), name(config))]).collect()
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
        let sites = |objects: Objects| Sites::new(objects.into(), metrics.clone()).expect("opened");
        let alone = [
            sites(Objects::Remote(remote())),
            sites(Objects::Local(
                Local::open(&dir.path().join("objects")).expect("opened"),
            )),
        ];
        let when = (Duration::from_secs(1), Needs::default());
        let two = remote().with_backup((Bucket::in_memory(), limits), when, metrics.clone());
        let two = sites(Objects::Remote(two));
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
