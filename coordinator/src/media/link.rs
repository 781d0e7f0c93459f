//! [`Links`]: signed, expiring ways to one file, or to the HLS of one recording. Pure.
//!
//! `/media/EXPIRES-MAC/SUBJECT/NAME`: the subject is the file's id, or the recording's behind `r-`. The signature is a folder of the path and not a parameter, so that what a playlist names
//! beside itself is covered by the playlist's own link.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use shared::{
    ids::{FileId, RecordingId},
    time::Timestamp,
};

use super::live::subject;

/// What a name may hold in a path as it is.
const IN_A_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Bytes of the signature that a link carries.
const MAC_BYTES: usize = 16;

/// Makes and checks links.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// The first signs, all are accepted.
    keys: Vec<hmac::Key>,
}

impl Links {
    pub(crate) fn new<'a>(keys: impl Iterator<Item = &'a [u8; 32]>) -> Self {
        Links {
            keys: keys.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect(),
        }
    }

    /// What the link may carry, that of the key that signs first.
    fn macs(&self, expires_s: i64, subject: &str) -> impl Iterator<Item = String> {
        let signed = format!("{expires_s}/{subject}");
        self.keys.iter().map(move |key| {
            let tag = hmac::sign(key, signed.as_bytes());
            tag.as_ref()
                .iter()
                .take(MAC_BYTES)
                .fold(String::new(), |mut out, byte| {
                    // Writing to a string does not fail.
                    let _ = write!(out, "{byte:02x}");
                    out
                })
        })
    }

    /// Path and name of a link that is good until `expires`, beginning with `/media/`. `name` is what the file is called
    /// when it is saved; `depth` are the folders in front of it, empty or with a slash at the end.
    pub(crate) fn path(&self, file: FileId, depth: &str, name: &str, expires: Timestamp) -> String {
        self.written(&file.to_string(), depth, name, expires)
    }

    /// The same for the HLS of a recording, which may still run.
    pub(crate) fn recording_path(&self, recording: RecordingId, name: &str, expires: Timestamp) -> String {
        self.written(&subject(recording), "", name, expires)
    }

    fn written(&self, subject: &str, depth: &str, name: &str, expires: Timestamp) -> String {
        let expires_s = expires.as_millis().div_euclid(1_000);
        let name = utf8_percent_encode(name, IN_A_NAME);
        let mac = self.macs(expires_s, subject).next().unwrap_or_default();
        format!("/media/{expires_s}-{mac}/{subject}/{depth}{name}")
    }

    /// True if the folder of a link says that its subject may be read now.
    pub(crate) fn covers(&self, folder: &str, subject: &str, now: Timestamp) -> bool {
        use subtle::ConstantTimeEq as _;

        let Some((expires, mac)) = folder.split_once('-') else {
            return false;
        };
        let Ok(expires_s) = expires.parse::<i64>() else {
            return false;
        };
        let signed = self
            .macs(expires_s, subject)
            .any(|known| known.as_bytes().ct_eq(mac.as_bytes()).into());
        signed && now.as_millis().div_euclid(1_000) <= expires_s
    }
}

#[cfg(test)]
mod tests {
    use shared::ids::Seeded;

    use super::*;

    #[test]
    fn a_link_is_good_for_its_file_until_its_time() {
        let links = Links::new([[3; 32]].iter());
        let ids = Seeded::new(1);
        let at = |s: i64| Timestamp::from_millis(s * 1_000);
        let (file, other) = (FileId::generate(&ids, at(0)), FileId::generate(&ids, at(0)));
        let path = links.path(file, "", "live test/日.flv", at(100));
        assert!(path.ends_with("/live%20test%2F%E6%97%A5.flv"), "{path}");
        assert!(links.path(file, "a/b/", "x", at(100)).ends_with("/a/b/x"));
        let folder = path.split('/').nth(2).unwrap();
        assert!(links.covers(folder, &file.to_string(), at(100)));
        assert!(!links.covers(folder, &file.to_string(), at(101)));
        assert!(!links.covers(folder, &other.to_string(), at(100)));
        assert!(!Links::new([[4; 32]].iter()).covers(folder, &file.to_string(), at(100)));
        // A key that is replaced opens what it signed for as long as it is there.
        assert!(Links::new([[4; 32], [3; 32]].iter()).covers(folder, &file.to_string(), at(100)));
        // A recording's link is not a file's, whatever its id is.
        let recording = RecordingId::from_uuid(file.as_uuid());
        let path = links.recording_path(recording, "show.m3u8", at(100));
        assert!(path.ends_with(&format!("/r-{file}/show.m3u8")), "{path}");
        let own = path.split('/').nth(2).unwrap();
        assert!(links.covers(own, &subject(recording), at(100)) && !links.covers(own, &file.to_string(), at(100)));
        assert!(!links.covers(folder, &subject(recording), at(100)));
        let later = folder.replace("100-", "101-");
        assert!(!links.covers(&later, &file.to_string(), at(100)));
        for bad in ["", "100", "100-", "-", "x-y", "99999999999999999999-00"] {
            assert!(!links.covers(bad, &file.to_string(), at(0)), "{bad}");
        }
    }
}
