//! The HLS of a recording as one link shows it, while it runs and afterwards. Pure.
//!
//! A recording that goes on after its stream was away has a playlist in each epoch's folder, of which the newest names the segments
//! of all. A player has one link and asks for it again and again: it is given whichever playlist is the current one, with every
//! name in it written from the recording's folder down, so that it does not matter in which folder that playlist lies.

use shared::{
    ids::RecordingId,
    lease::Epoch,
    recording::{Recording, RecordingState},
    template::Format,
};

use super::place::{HLS, is_epoch, is_plain};

/// Epochs whose playlists are looked for: an epoch that has begun has none until its first segment is stored.
const LOOK_BACK: u64 = 8;
/// What a playlist calls the folder of its recording.
const UP: &str = "../../";

/// What stands for a recording in links.
pub(crate) fn subject(id: RecordingId) -> String {
    format!("r-{id}")
}

/// True for a recording whose HLS may be asked for.
pub(crate) fn has_hls(recording: &Recording) -> bool {
    recording.template.formats.contains_key(&Format::Hls) && recording.state != RecordingState::Scheduled
}

/// Where the playlist of a recording that runs may lie, the newest first: folders below its own.
pub(crate) fn folders(recording: &Recording) -> Vec<String> {
    let newest = recording.epoch.get();
    let oldest = newest.saturating_sub(LOOK_BACK - 1).max(1);
    let folder = |epoch| format!("{}/{HLS}", Epoch::new(epoch).path_component());
    (oldest..=newest).rev().map(folder).collect()
}

/// True for the name of a segment from its recording's folder down, such as `e000001/hls/000000.ts`.
pub(crate) fn is_segment(tail: &str) -> bool {
    let parts: Vec<&str> = tail.split('/').collect();
    matches!(parts.as_slice(), [epoch, HLS, name] if is_epoch(epoch) && is_plain(name))
}

/// A playlist of the folder `below` its recording's, with every name written from the recording's folder down.
pub(crate) fn from_the_root(playlist: &str, below: &str) -> String {
    let named = |name: &str| match name.strip_prefix(UP) {
        Some(other) => other.to_owned(),
        None => format!("{below}/{name}"),
    };
    let mut out = String::with_capacity(playlist.len().saturating_mul(2));
    for line in playlist.lines() {
        match line
            .split_once("URI=\"")
            .and_then(|(tag, rest)| Some((tag, rest.split_once('"')?)))
        {
            Some((tag, (name, rest))) if tag.starts_with("#EXT") => {
                out += &format!("{tag}URI=\"{}\"{rest}", named(name));
            }
            _ if line.is_empty() || line.starts_with('#') => out += line,
            _ => out += &named(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_written_from_the_recording_s_folder_down() {
        let playlist = "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP:URI=\"../../e000001/hls/init-0.mp4\",X=1\n#EXTINF:4.000,\n../../e000001/hls/000000.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-0.mp4\"\n#EXTINF:4.000,\n000000.m4s\n";
        let shown = from_the_root(playlist, "e000003/hls");
        assert_eq!(
            shown,
            "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP:URI=\"e000001/hls/init-0.mp4\",X=1\n#EXTINF:4.000,\ne000001/hls/000000.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"e000003/hls/init-0.mp4\"\n#EXTINF:4.000,\ne000003/hls/000000.m4s\n"
        );
        let names = shown.lines().filter(|line| !line.starts_with('#'));
        assert!(
            names.clone().count() == 2 && names.into_iter().all(is_segment),
            "{shown}"
        );
    }

    #[test]
    fn nothing_but_segments_is_served_below_a_recording() {
        for tail in ["e000001/hls/000000.ts", "e000012/hls/init-1.mp4"] {
            assert!(is_segment(tail), "{tail}");
        }
        for tail in [
            "",
            "recording.json",
            "e000001/mp4/000000.mp4",
            "e000001/hls/../../x",
            "e000001/hls/",
            "e000001/hls/.hidden",
            "e000001/hls/a/b",
            "/e000001/hls/a",
            "e1/hls/a",
        ] {
            assert!(!is_segment(tail), "{tail}");
        }
    }
}
