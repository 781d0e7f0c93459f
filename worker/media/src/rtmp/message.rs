//! What messages say: their types, control messages, aggregates and commands. RTMP 1.0 §5.4, §6.2, §7.1.

use alloc::{string::String, vec::Vec};

use super::MediaTag;
use crate::amf::{self, AmfError, Value};

pub(super) const SET_CHUNK_SIZE: u8 = 1;
pub(super) const ABORT: u8 = 2;
pub(super) const ACKNOWLEDGEMENT: u8 = 3;
pub(super) const USER_CONTROL: u8 = 4;
pub(super) const WINDOW_ACK_SIZE: u8 = 5;
pub(super) const SET_PEER_BANDWIDTH: u8 = 6;
pub(super) const AUDIO: u8 = 8;
pub(super) const VIDEO: u8 = 9;
pub(super) const DATA_AMF3: u8 = 15;
pub(super) const COMMAND_AMF3: u8 = 17;
pub(super) const DATA_AMF0: u8 = 18;
pub(super) const COMMAND_AMF0: u8 = 20;
pub(super) const AGGREGATE: u8 = 22;

/// User control events. RTMP 1.0 §7.1.7.
pub(super) const STREAM_BEGIN: u16 = 0;
pub(super) const STREAM_EOF: u16 = 1;
pub(super) const SET_BUFFER_LENGTH: u16 = 3;
pub(super) const PING_REQUEST: u16 = 6;
pub(super) const PING_RESPONSE: u16 = 7;

/// The first four bytes as a number; what follows is ignored.
pub(super) fn leading_u32(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Event type and data of a user control message.
pub(super) fn user_control(payload: &[u8]) -> Option<(u16, &[u8])> {
    payload
        .split_first_chunk()
        .map(|(event, data)| (u16::from_be_bytes(*event), data))
}

/// A command: name, transaction, command object and what else there is. RTMP 1.0 §7.2.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: String,
    /// 0: no answer is wanted.
    pub(super) transaction: f64,
    /// Command object first.
    pub(super) arguments: Vec<Value>,
}

impl Command {
    /// Reads a whole payload. `Ok(None)`: it does not begin with a name.
    pub(super) fn read(payload: &[u8]) -> Result<Option<Self>, AmfError> {
        let mut decoder = amf::Decoder::new(payload);
        let Some(Value::String(name)) = decoder.next_value()? else {
            return Ok(None);
        };
        let transaction = decoder.next_value()?.and_then(|value| value.as_number()).unwrap_or(0.0);
        let mut arguments = Vec::new();
        while let Some(value) = decoder.next_value()? {
            arguments.push(value);
        }
        Ok(Some(Self {
            name,
            transaction,
            arguments,
        }))
    }

    /// The argument behind the command object.
    pub(super) fn argument(&self, index: usize) -> Option<&Value> {
        self.arguments.get(index.saturating_add(1))
    }
}

/// Messages of type 15 and 17 begin with a format selector, always 0, before AMF0. Some encoders leave it out; a
/// name's marker cannot be mistaken for it. Enhanced RTMP, "AMF0 and AMF3".
pub(super) fn without_selector(payload: &[u8]) -> &[u8] {
    match payload.split_first() {
        Some((0, rest)) => rest,
        _ => payload,
    }
}

/// A data message of type 15 as AMF0, if any of its values is AMF3.
fn data_to_amf0(body: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = amf::Decoder::new(body);
    let mut converted = Vec::new();
    while let Some(value) = decoder.next_value().ok()? {
        value.encode(&mut converted);
    }
    decoder.met_amf3().then_some(converted)
}

/// What of a data message stands in a file: all but the request to store it. `None`: nothing.
fn stored_data(body: &[u8]) -> Option<&[u8]> {
    match amf::leading_string(body) {
        Some((b"@setDataFrame", stored)) => Some(stored),
        Some((b"@clearDataFrame", _)) => None,
        _ => Some(body),
    }
}

/// Hands on what of a data message of either type stands in a file, as AMF0.
pub(super) fn with_stored_data(type_id: u8, payload: &[u8], hand_on: &mut dyn FnMut(&[u8])) {
    let converted;
    let mut body = payload;
    if type_id == DATA_AMF3 {
        body = without_selector(payload);
        converted = data_to_amf0(body);
        body = converted.as_deref().unwrap_or(body);
    }
    if let Some(body) = stored_data(body) {
        hand_on(body);
    }
}

/// The messages within an aggregate: FLV tags whose times count from the first one's, which is the aggregate's own.
/// RTMP 1.0 §7.1.6.
#[derive(Debug)]
pub(super) struct Aggregate<'a> {
    rest: &'a [u8],
    timestamp_ms: u32,
    first_ms: Option<u32>,
}

/// An aggregate ends within a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AggregateCut;

impl<'a> Aggregate<'a> {
    pub(super) fn new(timestamp_ms: u32, payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            timestamp_ms,
            first_ms: None,
        }
    }

    /// The next message, with its own type; `None` at the end.
    pub(super) fn next_tag(&mut self) -> Result<Option<MediaTag<'a>>, AggregateCut> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some((&[tag_type, l1, l2, l3, t1, t2, t3, t0, _, _, _], rest)) = self.rest.split_first_chunk() else {
            return Err(AggregateCut);
        };
        let len = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        let (body, rest) = rest.split_at_checked(len).ok_or(AggregateCut)?;
        // The last back pointer is missing from what some servers send.
        self.rest = rest.get(4..).unwrap_or_default();
        let tag_ms = u32::from_be_bytes([t0, t1, t2, t3]);
        let first_ms = *self.first_ms.get_or_insert(tag_ms);
        let timestamp_ms = self.timestamp_ms.wrapping_add(tag_ms.wrapping_sub(first_ms));
        Ok(Some(MediaTag {
            tag_type,
            timestamp_ms,
            body,
        }))
    }
}
