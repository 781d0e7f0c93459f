//! [`Place`]: where finished objects lie, as far as the coordinator serves them.
//!
//! No path comes from a stranger: a key stands in the library, and what a stranger may add below it, the name of an HLS
//! segment, is checked letter by letter. What is found must lie below the root even after symbolic links.

use std::{
    io,
    path::{Path, PathBuf},
};

use shared::{objects::ObjectsUrl, recording::MediaFile, template::Format};
use thiserror::Error;

/// Most parts of what a stranger may add.
const MAX_PARTS: usize = 4;
/// Longest of them, bytes.
const MAX_PART: usize = 128;
/// The folder of HLS within an epoch's.
pub(crate) const HLS: &str = "hls";

/// Why an object is not to be had.
#[derive(Debug, Error)]
pub(crate) enum PlaceError {
    /// There is none, or its name is not one.
    #[error("there is no such object")]
    NotFound,
    /// The disk.
    #[error("the object cannot be read")]
    Io(#[source] io::Error),
}

/// Where finished objects lie.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    url: Option<ObjectsUrl>,
}

/// Letters, digits and `-_.`, not hidden, not the parent.
pub(crate) fn is_plain(part: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !part.is_empty() && part.len() <= MAX_PART && !part.starts_with('.') && part.bytes().all(legal)
}

/// The folder of an epoch, such as `e000012`.
pub(crate) fn is_epoch(part: &str) -> bool {
    let digits = part.strip_prefix('e').unwrap_or_default();
    (6..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Of a playlist's key: its recording's folder, and the folder below that where it lies. A playlist of several pushes names
/// segments in the folders of earlier epochs, as `../../e000001/hls/000000.ts`.
pub(crate) fn recording_folder(key: &str) -> Option<(&str, &str)> {
    let (folder, _) = key.rsplit_once('/')?;
    let (above, hls) = folder.rsplit_once('/')?;
    let (recording, epoch) = above.rsplit_once('/')?;
    let below = folder.get(recording.len() + 1..)?;
    (hls == HLS && is_epoch(epoch)).then_some((recording, below))
}

/// What stands in front of a file's name in its links: with the playlist as deep below the link as in its recording, what it
/// names in other folders is covered by the same link.
pub(crate) fn depth(file: &MediaFile) -> String {
    let folder = (file.format == Format::Hls)
        .then(|| recording_folder(&file.object_key))
        .flatten();
    folder.map_or_else(String::new, |(_, below)| format!("{below}/"))
}

/// The key of what a stranger asks for within a file: of an HLS recording its playlist, under any name, a segment of any of its
/// epochs, or something beside the playlist; of any other the file itself, under any name.
pub(crate) fn key_within(file: &MediaFile, tail: &str) -> Option<String> {
    let is_playlist = Path::new(tail).extension().is_some_and(|extension| extension == "m3u8");
    if file.format != Format::Hls || is_playlist {
        return Some(file.object_key.clone());
    }
    let parts: Vec<&str> = tail.split('/').collect();
    if parts.len() > MAX_PARTS || !parts.iter().all(|part| is_plain(part)) {
        return None;
    }
    if let ([epoch, HLS, _], Some((recording, _))) = (parts.as_slice(), recording_folder(&file.object_key))
        && is_epoch(epoch)
    {
        return Some(format!("{recording}/{tail}"));
    }
    let (folder, _) = file.object_key.rsplit_once('/')?;
    Some(format!("{folder}/{tail}"))
}

/// Where a key lies below a folder; none for a key that would leave it.
fn below(root: &Path, key: &str) -> Option<PathBuf> {
    let legal = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    key.split('/').all(legal).then(|| root.join(key))
}

impl Place {
    pub(crate) fn new(url: Option<ObjectsUrl>) -> Self {
        Place { url }
    }

    fn root(&self) -> Result<&Path, PlaceError> {
        match &self.url {
            Some(ObjectsUrl::File(root)) => Ok(root),
            Some(ObjectsUrl::S3 { .. }) | None => Err(PlaceError::NotFound),
        }
    }

    /// The path of an object on this machine. Reads the disk.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub(crate) fn find(&self, key: &str) -> Result<PathBuf, PlaceError> {
        let root = self.root()?;
        let path = below(root, key).ok_or(PlaceError::NotFound)?;
        let real = |path: &Path| match path.canonicalize() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(PlaceError::NotFound)
            }
            other => other.map_err(PlaceError::Io),
        };
        let path = real(&path)?;
        match path.starts_with(real(root)?) && path.is_file() {
            true => Ok(path),
            false => Err(PlaceError::NotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::{
        ids::{FileId, RecordingId, Seeded, StreamKey},
        lease::Epoch,
        time::Timestamp,
    };

    use super::*;

    fn file(format: Format, key: &str) -> MediaFile {
        let (ids, at) = (Seeded::new(1), Timestamp::from_millis(5));
        MediaFile {
            id: FileId::generate(&ids, at),
            recording: RecordingId::generate(&ids, at),
            stream: StreamKey::new("d", "a", "s").unwrap(),
            format,
            sequence: 0,
            name: "n".to_owned(),
            object_key: key.to_owned(),
            size: 1,
            duration_ms: 1,
            start: at,
            end: at,
            checksum: String::new(),
            video_units: 0,
            audio_units: 0,
            gaps: vec![],
            epoch: Epoch::new(1),
            committed: at,
            expires: None,
            locked: false,
            copied: None,
        }
    }

    #[test]
    fn a_stranger_reaches_the_file_and_what_lies_beside_a_playlist_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("objects");
        for name in [
            "r/hls/index.m3u8",
            "r/hls/000000.ts",
            "r/hls/.hidden",
            "r/secret.txt",
            "r/a.flv",
        ] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), root.join("r/hls/link.ts")).unwrap();
        let place = Place::new(Some(ObjectsUrl::File(root.clone())));
        let found = |file: &MediaFile, tail: &str| {
            let path = place.find(&key_within(file, tail)?).ok()?;
            Some(std::fs::read_to_string(path).unwrap())
        };
        let hls = file(Format::Hls, "r/hls/index.m3u8");
        assert_eq!(found(&hls, "any name.m3u8").as_deref(), Some("r/hls/index.m3u8"));
        assert_eq!(found(&hls, "000000.ts").as_deref(), Some("r/hls/000000.ts"));
        for tail in [
            "",
            ".",
            "..",
            "../secret.txt",
            "..%2fsecret.txt",
            "/etc/passwd",
            "a//b",
            ".hidden",
            "link.ts",
            "000001.ts",
            "x/../000000.ts",
            "\0",
            "000000.ts/",
            "000000.ts/x",
        ] {
            assert_eq!(found(&hls, tail), None, "{tail:?}");
        }
        let flv = file(Format::Flv, "r/a.flv");
        assert_eq!(
            found(&flv, "../../x").as_deref(),
            Some("r/a.flv"),
            "the name is for people"
        );
        for key in ["../outside", "r/../../outside", "/etc/passwd", "", "r", "r//a.flv"] {
            assert_eq!(found(&file(Format::Flv, key), "x"), None, "{key}");
        }
        assert!(dir.path().join("outside").exists());
    }

    #[test]
    fn a_recording_of_several_pushes_is_served_with_all_its_epochs() {
        let dir = tempfile::tempdir().unwrap();
        let keys = [
            "d/r/e000001/hls/000000.ts",
            "d/r/e000001/mp4/000000.mp4",
            "d/r/e000002/hls/000000.ts",
            "d/r/e000003/hls/index.m3u8",
            "d/other/e000001/hls/000000.ts",
        ];
        for key in keys {
            let path = dir.path().join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let hls = file(Format::Hls, "d/r/e000003/hls/index.m3u8");
        assert_eq!(depth(&hls), "e000003/hls/");
        assert_eq!(depth(&file(Format::Mp4, "d/r/e000001/mp4/000000.mp4")), "");
        let place = Place::new(Some(ObjectsUrl::File(dir.path().to_owned())));
        let found = |tail: &str| key_within(&hls, tail).is_some_and(|key| place.find(&key).is_ok());
        // What a player makes of `../../e000001/hls/000000.ts` in a playlist at LINK/FILE/e000003/hls/show.m3u8.
        assert!(found("e000001/hls/000000.ts") && found("e000002/hls/000000.ts") && found("e000003/hls/show.m3u8"));
        for tail in [
            "e000001/mp4/000000.mp4",
            "other/hls/000000.ts",
            "e1/hls/000000.ts",
            "e000001/hls",
        ] {
            assert!(!found(tail), "{tail}");
        }
    }

    proptest! {
        #[test]
        fn no_tail_leaves_the_folder(tail in "[a-z./\\\\%0]{0,30}") {
            if let Some(key) = key_within(&file(Format::Hls, "r/hls/index.m3u8"), &tail) {
                prop_assert!(key.starts_with("r/hls/"));
                prop_assert!(!key.split('/').any(|part| part == ".." || part == "." || part.is_empty()));
            }
        }
    }
}
