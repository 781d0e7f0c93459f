//! What an HLS playlist names, for those who look after objects and do not play them.

use std::collections::BTreeSet;

use crate::lease::Epoch;

/// Keys of the segments and initialisation segments that a playlist names; `key` is its own.
#[must_use]
pub fn named_by(playlist: &str, key: &str) -> BTreeSet<String> {
    let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
    let uri = |line: &str| match line.strip_prefix("#EXT-X-MAP:") {
        Some(map) => map
            .split_once("URI=\"")?
            .1
            .split_once('"')
            .map(|(uri, _)| uri.to_owned()),
        None if line.is_empty() || line.starts_with('#') => None,
        None => Some(line.to_owned()),
    };
    let resolve = |uri: String| {
        let mut parts: Vec<&str> = folder.split('/').collect();
        for part in uri.split('/') {
            match part {
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    };
    playlist
        .lines()
        .filter_map(|line| uri(line.trim_end()))
        .map(resolve)
        .collect()
}

/// Lines of the playlist of an epoch for one of another, which lies beside it: what it names in its own folder is named from there.
#[must_use]
pub fn rebased(lines: &str, epoch: Epoch) -> String {
    let folder = format!("../../{}/hls/", epoch.path_component());
    let mut out = String::with_capacity(lines.len() * 2);
    for line in lines.lines() {
        let (before, name) = match line.strip_prefix("#EXT-X-MAP:URI=\"") {
            Some(name) => ("#EXT-X-MAP:URI=\"", name),
            None => ("", line),
        };
        let is_own = !(name.is_empty() || name.starts_with('#') || name.starts_with("../"));
        let from = if is_own { folder.as_str() } else { "" };
        out.extend([before, from, name, "\n"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved_from_where_the_playlist_lies() {
        let text = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:1,\n../../e000001/hls/0.m4s\r\n#EXTINF:1,\n1.m4s\n";
        let keys: Vec<String> = named_by(text, "r/e000002/hls/index.m3u8").into_iter().collect();
        assert_eq!(
            keys,
            ["r/e000001/hls/0.m4s", "r/e000002/hls/1.m4s", "r/e000002/hls/init.mp4"]
        );
    }

    #[test]
    fn what_lies_beside_a_playlist_is_named_from_another_and_nothing_is_moved_twice() {
        let text = "#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:1,\n0.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:1,\n../../e000001/hls/0.m4s\n";
        let moved = rebased(text, Epoch::new(2));
        assert_eq!(
            moved,
            "#EXT-X-MAP:URI=\"../../e000002/hls/init.mp4\"\n#EXTINF:1,\n../../e000002/hls/0.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:1,\n\
             ../../e000001/hls/0.m4s\n"
        );
        assert_eq!(rebased(&moved, Epoch::new(3)), moved);
    }
}
