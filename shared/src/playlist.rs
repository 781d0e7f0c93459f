//! What an HLS playlist names, for those who look after objects and do not play them.

use std::collections::BTreeSet;

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
}
