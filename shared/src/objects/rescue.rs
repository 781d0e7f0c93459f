//! [`Rescue`]: what completes a growing file as of a moment, kept as small objects beside it, so that it can be completed by whoever reads
//! them when its worker is lost.
//!
//! A growing file is a multipart upload whose body parts are stored and whose head and last bytes are not. Beside it lie `NAME.held`, the
//! body's first bytes, stored once, and `NAME.rescue`: one line of JSON, the head that fits what is stored, and the bytes behind the last
//! whole part. When the last parts are stored as well, and before the upload is completed, the line alone takes its place, with the ids of all
//! parts. Both go when the library has the file. A file that never grew in parts has such a line while the library does not answer.

use bytes::Bytes;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, ObjectError};
use crate::recording::FinishedFile;
use crate::template::Format;

/// Value of [`Rescue::schema`].
const SCHEMA: &str = "aircheck.rescue/1";
/// End of the key of what completes a file.
pub const RESCUE: &str = ".rescue";
/// End of the key of a body's first bytes.
pub const HELD: &str = ".held";

/// What completes a file as of a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescue {
    schema: String,
    /// What the service calls the upload; empty: there was none.
    pub upload: String,
    /// Ids of the body's stored parts: all but the first and the last of the upload; of a whole file of all parts.
    pub ids: Vec<String>,
    /// The file's last byte is stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Bytes of the body that stand in the first part behind the head.
    pub held: u64,
    /// Bytes of the head.
    pub head: u64,
    /// The file as it is then.
    pub file: FinishedFile,
    /// Times in its name are in this time zone, by its name; empty: UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

impl Rescue {
    /// Describes a file of which `ids` are stored.
    #[must_use]
    pub fn new(upload: String, ids: Vec<String>, (head, held): (u64, u64), (file, zone): (FinishedFile, &str)) -> Self {
        Rescue {
            schema: SCHEMA.to_owned(),
            upload,
            ids,
            whole: false,
            held,
            head,
            file,
            zone: zone.to_owned(),
        }
    }

    /// Describes a file of which everything is stored, in the parts of an upload or as an object.
    #[must_use]
    pub fn whole(upload: String, ids: Vec<String>, (file, zone): (FinishedFile, &str)) -> Self {
        Rescue {
            whole: true,
            ..Rescue::new(upload, ids, (0, 0), (file, zone))
        }
    }

    /// The time zone of its name: UTC where this machine does not know the one that is named.
    #[must_use]
    pub fn time_zone(&self) -> TimeZone {
        TimeZone::get(&self.zone).unwrap_or(TimeZone::UTC)
    }

    /// The object: this line, the head, and the bytes behind the last whole part.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_object(&self, head: Vec<u8>, tail: Vec<u8>) -> Result<Vec<Bytes>, serde_json::Error> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok([line, head, tail].into_iter().map(Bytes::from).collect())
    }

    /// Reads an object: the line, the head, the bytes behind the last whole part. None for anything else.
    #[must_use]
    pub fn parse(object: &Bytes) -> Option<(Self, Bytes, Bytes)> {
        let end = object.iter().position(|byte| *byte == b'\n')?;
        let read: Rescue = serde_json::from_slice(object.get(..end)?).ok()?;
        let head = usize::try_from(read.head).ok()?;
        let body = object.slice(end + 1..);
        (read.schema == SCHEMA && body.len() >= head).then(|| (read, body.slice(..head), body.slice(head..)))
    }

    /// Completes the file. True: it is there, whole, by this call or one before; false: the upload is no more.
    ///
    /// # Errors
    /// [`ObjectError`]; it may be repeated.
    pub async fn complete(
        &self,
        bucket: &Bucket,
        (head, held, tail): (Bytes, Bytes, Bytes),
    ) -> Result<bool, ObjectError> {
        let key = &self.file.key;
        if self.is_there(bucket.size(key).await?) {
            return Ok(true);
        }
        if self.upload.is_empty() {
            return Ok(false);
        }
        let completed = async {
            let parts = match self.whole {
                true => self.ids.clone(),
                false => self.parts(bucket, (head, held, tail)).await?,
            };
            let count = parts.len();
            match bucket.complete(key, &self.upload, parts).await {
                Err(ObjectError::Refused(refused)) => {
                    let known = bucket.known_ids(key, &self.upload, (count, self.file.size)).await;
                    match known {
                        Ok(Some(ids)) => bucket.complete(key, &self.upload, ids).await,
                        Err(ObjectError::Unavailable(error)) => Err(ObjectError::Unavailable(error)),
                        _ => Err(ObjectError::Refused(refused)),
                    }
                }
                done => done,
            }
        };
        match completed.await {
            // The answer to an earlier call was lost, or its worker was quicker, or nothing of it is left.
            Ok(()) | Err(ObjectError::Missing(_)) => Ok(self.is_there(bucket.size(key).await?)),
            Err(error) => Err(error),
        }
    }

    /// True for the size of the object that is the whole file.
    fn is_there(&self, size: Option<u64>) -> bool {
        match self.file.format {
            // The object is the list, which was vouched for when it was ended; the file's size is that of all that it names.
            Format::Hls => self.whole && size.is_some(),
            _ => size == Some(self.file.size),
        }
    }
}

impl Rescue {
    /// Stores the first part and the last; gives the ids of all.
    async fn parts(
        &self,
        bucket: &Bucket,
        (head, held, tail): (Bytes, Bytes, Bytes),
    ) -> Result<Vec<String>, ObjectError> {
        let key = &self.file.key;
        let chunks = [head, held].into_iter().filter(|chunk| !chunk.is_empty());
        let mut parts = vec![bucket.put_part(key, &self.upload, 0, chunks.collect()).await?];
        parts.extend(self.ids.iter().cloned());
        if !tail.is_empty() {
            let index = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            parts.push(bucket.put_part(key, &self.upload, index, vec![tail]).await?);
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, Faulty};
    use super::*;

    fn rescue(head: &[u8], held: &[u8], tail: &[u8], body: u64) -> Rescue {
        let file = FinishedFile {
            file_id: "f".to_owned(),
            format: Format::Mp4,
            sequence: 0,
            key: "r/e000001/mp4/000000.mp4".to_owned(),
            size: (head.len() + held.len() + tail.len()) as u64 + body,
            checksum: String::new(),
            duration_ms: 1,
            start_ms: 1,
            video_units: 1,
            audio_units: 1,
            gaps: vec![],
        };
        let lengths = (head.len() as u64, held.len() as u64);
        Rescue::new("u".to_owned(), vec![], lengths, (file, "Asia/Tokyo"))
    }

    #[test]
    fn an_object_reads_back_and_nothing_else_is_taken_for_one() {
        let one = rescue(b"he\nad", b"held", b"tail", 0);
        let object = Bytes::from(one.to_object(b"he\nad".to_vec(), b"tail".to_vec()).unwrap().concat());
        let (read, head, tail) = Rescue::parse(&object).unwrap();
        assert_eq!(
            (read, head.as_ref(), tail.as_ref()),
            (one.clone(), b"he\nad".as_slice(), b"tail".as_slice())
        );
        for end in 0..object.len() - 4 {
            assert!(Rescue::parse(&object.slice(..end)).is_none(), "cut to {end}");
        }
        assert!(Rescue::parse(&Bytes::from_static(b"{}\n")).is_none());
        let zone = |rescue: &Rescue| rescue.time_zone().iana_name().map(str::to_owned);
        assert_eq!(zone(&one).as_deref(), Some("Asia/Tokyo"));
        let older = one.to_object(vec![], vec![]).unwrap().concat();
        let older = String::from_utf8(older)
            .unwrap()
            .replace(",\"zone\":\"Asia/Tokyo\"", "")
            .replace("\"head\":5", "\"head\":0");
        let (older, ..) = Rescue::parse(&Bytes::from(older)).unwrap();
        assert_eq!(zone(&older).as_deref(), Some("UTC"), "one that names none");
    }

    #[tokio::test]
    async fn whoever_reads_it_completes_the_file_once() {
        let bucket = Bucket::in_memory();
        let mut one = rescue(b"head", b"held", b"tail", 4);
        let key = one.file.key.clone();
        one.upload = bucket.begin(&key).await.unwrap();
        one.ids = vec![
            bucket
                .put_part(&key, &one.upload, 1, vec!["body".into()])
                .await
                .unwrap(),
        ];
        // Its worker had stored a longer part behind it, which nobody has noted.
        bucket
            .put_part(&key, &one.upload, 2, vec!["tail and more".into()])
            .await
            .unwrap();
        let parts = || (Bytes::from("head"), Bytes::from("held"), Bytes::from("tail"));
        assert!(one.complete(&bucket, parts()).await.unwrap());
        assert_eq!(bucket.get(&key).await.unwrap(), "headheldbodytail");
        assert!(one.complete(&bucket, parts()).await.unwrap(), "again");
        one.file.key = "other".to_owned();
        assert!(!one.complete(&bucket, parts()).await.unwrap_or(false), "no such upload");
    }
    #[tokio::test(start_paused = true)]
    async fn parts_that_the_service_knows_by_other_ids_are_completed_by_those() {
        let storage = Faulty::default();
        let bucket = storage.bucket(std::time::Duration::from_secs(30));
        let part = Bytes::from(vec![7; 5 << 20]);
        let mut one = rescue(b"", &part, b"tail", part.len() as u64);
        let key = one.file.key.clone();
        one.upload = bucket.begin(&key).await.unwrap();
        storage.set(Some(Fault::StrangeId));
        let id = bucket.put_part(&key, &one.upload, 1, vec![part.clone()]).await.unwrap();
        storage.set(None);
        one.ids = vec![id];
        let parts = (Bytes::new(), part, Bytes::from("tail"));
        assert!(one.complete(&bucket, parts).await.unwrap());
        assert_eq!(bucket.size(&key).await.unwrap(), Some(one.file.size));
        assert!(storage.pending().is_empty());
    }
}
