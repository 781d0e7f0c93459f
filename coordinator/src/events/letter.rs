//! [`Letter`]: the events of one thing that happened, as they are stored; [`body`]: an event as it goes out. Pure.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::{
    ids::{FileId, StreamKey},
    time::Timestamp,
};
use uuid::Uuid;

use super::Kind;

/// Seconds for which the signature of an event is good after its sending.
const SIGNED_FOR_S: i64 = 600;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Delivered,
    /// After every attempt that the settings give it, or because nobody is to be told any more.
    GivenUp,
}

/// The file that an event links to; the link is made when the event goes out, so that it is good for its whole time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MediaLink {
    pub(crate) file: FileId,
    pub(crate) depth: String,
    pub(crate) name: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The same whenever it is delivered, so that a receiver can drop doubles.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// All but what is made when it goes out: its signature and link.
    pub(crate) body: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<MediaLink>,
    #[serde(default)]
    pub(crate) attempts: u32,
    /// When it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tried: Option<Timestamp>,
    /// Why that failed, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) problem: String,
    /// None: it is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
}

/// The events of one change of one publish, recording or file, for one receiver, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    /// Its place among all; part of its key.
    pub(crate) sequence: u64,
    /// When it was written.
    pub(crate) at: Timestamp,
    /// The callback template that says where it goes.
    pub(crate) template: u64,
    /// The publish or recording that it is about: its events arrive in order.
    pub(crate) subject: Uuid,
    pub(crate) stream: StreamKey,
    pub(crate) events: Vec<Event>,
}

/// Something to tell, before it has a place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) body: Map<String, Value>,
    pub(crate) link: Option<MediaLink>,
}

impl Letter {
    pub(crate) fn new(
        sequence: u64,
        (at, template, subject, stream): (Timestamp, u64, Uuid, StreamKey),
        drafts: Vec<Draft>,
    ) -> Self {
        let event = |(index, draft): (usize, Draft)| {
            let mut body = draft.body;
            if draft.kind == Kind::Status {
                // A number of its own for each message, as text.
                let number = u128::from(sequence) * 64 + u128::try_from(index).unwrap_or(0);
                body.insert("seq".to_owned(), json!(number.to_string()));
            }
            Event {
                id: format!("{sequence:016x}-{index}"),
                kind: draft.kind,
                body,
                link: draft.link,
                attempts: 0,
                tried: None,
                problem: String::new(),
                outcome: None,
            }
        };
        Letter {
            sequence,
            at,
            template,
            subject,
            stream,
            events: drafts.into_iter().enumerate().map(event).collect(),
        }
    }

    /// True if nothing of it is on its way any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.events.iter().all(|event| event.outcome.is_some())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The signature of an event: lower-case hexadecimal MD5 of the key and the time as decimal digits.
pub(crate) fn sign(key: &str, t: i64) -> String {
    let mut hash = Md5::new();
    hash.update(key);
    hash.update(t.to_string());
    hex(&hash.finalize())
}

/// An event as it goes out now. Without a key it is not signed; the link is to the file that it tells of.
pub(crate) fn body(event: &Event, key: Option<&str>, link: Option<String>, now: Timestamp) -> String {
    let mut body = event.body.clone();
    body.insert("event_id".to_owned(), json!(event.id));
    if let Some(link) = link {
        body.insert("video_url".to_owned(), json!(link));
    }
    if let Some(key) = key {
        let t = now.as_millis().div_euclid(1_000) + SIGNED_FOR_S;
        body.insert("t".to_owned(), json!(t));
        body.insert("sign".to_owned(), json!(sign(key, t)));
    }
    Value::Object(body).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_published_example() {
        assert_eq!(
            sign("callbackKey123", 1_700_000_600),
            "136ee7637dd26a8f91586157bcc4564e"
        );
    }

    #[test]
    fn an_event_keeps_its_id_and_is_signed_for_the_time_it_goes_out() {
        let draft = Draft {
            kind: Kind::Status,
            body: Map::from_iter([("event_type".to_owned(), json!(332))]),
            link: None,
        };
        let stream = StreamKey::new("d", "a", "s").unwrap();
        let at = Timestamp::from_millis(1_700_000_000_000);
        let letter = Letter::new(7, (at, 1, Uuid::nil(), stream), vec![draft.clone(), draft]);
        let [first, second] = letter.events.as_slice() else {
            panic!("{letter:?}")
        };
        assert_ne!(first.id, second.id);
        assert_ne!(first.body["seq"], second.body["seq"]);
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let plain = read(body(first, None, None, at));
        assert!(plain.get("sign").is_none() && plain.get("t").is_none());
        let signed = read(body(first, Some("callbackKey123"), Some("http://x".to_owned()), at));
        assert_eq!(signed["t"], 1_700_000_600_i64);
        assert_eq!(signed["sign"], "136ee7637dd26a8f91586157bcc4564e");
        assert_eq!(
            (&signed["event_id"], &signed["video_url"]),
            (&json!(first.id), &json!("http://x"))
        );
    }
}
