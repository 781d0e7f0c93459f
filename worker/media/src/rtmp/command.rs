//! Commands of a client and our answers. RTMP 1.0 §7.2.
//!
//! | Command | Answer |
//! |---|---|
//! | `connect` | window, bandwidth, chunk size, `_result` with what enhanced RTMP we take |
//! | `createStream` | `_result` with the next stream id |
//! | `publish` | `onStatus`: `NetStream.Publish.Start`, or what the caller says and the end of the session |
//! | `deleteStream`, `closeStream`, `FCUnpublish` | `onStatus`: `NetStream.Unpublish.Success`, if they end the publish |
//! | `releaseStream`, `FCPublish`, `getStreamLength`, `_checkbw` | `_result` with nothing |
//! | `play`, `play2` | `onStatus`: `NetStream.Play.Failed`, and the end of the session |
//! | `_result`, `_error`, `onStatus` and others with transaction 0 | none |
//! | any other | `_error` |

use alloc::{borrow::ToOwned, format, vec::Vec};

use super::{
    Handler, SessionError, Unpublish, Verdict,
    address::{self, Connect},
    message::{self, Command},
    session::{Publish, Talk, WINDOW_ACK_SIZE},
};
use crate::amf::{self, Value};

/// Chunk stream of answers and of statuses.
const COMMAND_CSID: u32 = 3;
const STATUS_CSID: u32 = 5;

/// What we cut our answers into: each is one chunk.
const CHUNK_SIZE: u32 = 4096;

/// "The peer may change the limit": the limit type of `SetPeerBandwidth` that asks for nothing hard. RTMP 1.0 §5.4.5.
const DYNAMIC: u8 = 2;

/// Codecs whose enhanced RTMP form we record in every format. Others are kept in FLV as they come.
const VIDEO_FOURCC: [&str; 2] = ["avc1", "hvc1"];
const AUDIO_FOURCC: [&str; 2] = ["mp4a", ".mp3"];

/// `FourCcInfoMask.CanForward`: a recorder neither decodes nor encodes. Enhanced RTMP, "Enhancing NetConnection".
const CAN_FORWARD: f64 = 4.0;

impl Talk {
    /// Answers one command that came on this message stream.
    pub(super) fn answer<H: Handler + ?Sized>(
        &mut self,
        stream_id: u32,
        command: &Command,
        handler: &mut H,
    ) -> Result<(), SessionError> {
        match command.name.as_str() {
            "connect" => self.on_connect(command),
            "createStream" => {
                self.last_stream_id = self.last_stream_id.wrapping_add(1);
                let stream_id = f64::from(self.last_stream_id);
                self.result(command, |out| amf::write_number(out, stream_id))
            }
            "publish" => self.on_publish(stream_id, command, handler),
            "deleteStream" => {
                let named = command.argument(0).and_then(Value::as_number);
                // Who publishes on stream 0, the connection's own, still deletes the one it created.
                let ends = |publish: &Publish| {
                    publish.stream_id == 0 || named.is_none_or(|id| id == f64::from(publish.stream_id))
                };
                self.unpublish(Unpublish::DeleteStream, ends, handler)
            }
            "closeStream" => self.unpublish(Unpublish::CloseStream, |_| true, handler),
            "FCUnpublish" => {
                let named = command.argument(0).and_then(Value::as_str).map(bare);
                let ends = |publish: &Publish| named.is_none_or(|name| name == bare(&publish.name));
                self.result(command, |out| out.push(amf::marker::UNDEFINED))?;
                self.unpublish(Unpublish::FcUnpublish, ends, handler)
            }
            "releaseStream" | "FCPublish" | "_checkbw" => self.result(command, |out| out.push(amf::marker::UNDEFINED)),
            "getStreamLength" => self.result(command, |out| amf::write_number(out, 0.0)),
            "play" | "play2" => {
                self.status(
                    stream_id,
                    "error",
                    "NetStream.Play.Failed",
                    "this server records and does not play",
                )?;
                Err(SessionError::Play)
            }
            "_result" | "_error" | "onStatus" => Ok(()),
            name => self.error(command, "NetConnection.Call.Failed", &format!("unknown command {name}")),
        }
    }

    fn on_connect(&mut self, command: &Command) -> Result<(), SessionError> {
        if self.connect.is_some() {
            return self.error(command, "NetConnection.Connect.Rejected", "already connected");
        }
        let object = command.arguments.first();
        self.connect = Some(Connect::new(object));
        let [w0, w1, w2, w3] = WINDOW_ACK_SIZE.to_be_bytes();
        self.control(message::WINDOW_ACK_SIZE, &[w0, w1, w2, w3])?;
        self.control(message::SET_PEER_BANDWIDTH, &[w0, w1, w2, w3, DYNAMIC])?;
        self.control(message::SET_CHUNK_SIZE, &CHUNK_SIZE.to_be_bytes())?;
        self.writer.set_chunk_size(CHUNK_SIZE)?;

        let encoding = object
            .and_then(|it| it.get("objectEncoding"))
            .and_then(Value::as_number)
            .unwrap_or(0.0);
        let mut answer = Vec::new();
        amf::write_string(&mut answer, "_result");
        amf::write_number(&mut answer, command.transaction);
        amf::start_object(&mut answer);
        write_text(&mut answer, "fmsVer", "FMS/3,0,1,123");
        amf::write_name(&mut answer, "capabilities");
        amf::write_number(&mut answer, 31.0);
        write_enhanced(&mut answer);
        amf::end_object(&mut answer);
        write_info(
            &mut answer,
            "status",
            "NetConnection.Connect.Success",
            "connected",
            |out| {
                amf::write_name(out, "objectEncoding");
                amf::write_number(out, encoding);
            },
        );
        self.send(COMMAND_CSID, message::COMMAND_AMF0, 0, &answer)
    }

    fn on_publish<H: Handler + ?Sized>(
        &mut self,
        stream_id: u32,
        command: &Command,
        handler: &mut H,
    ) -> Result<(), SessionError> {
        let name = command
            .argument(0)
            .and_then(Value::as_str)
            .ok_or(SessionError::PublishName)?;
        let connect = self.connect.as_ref().ok_or(SessionError::NotConnected)?;
        if self.publish.is_some() {
            let reason = "this connection is publishing already";
            return self.status(stream_id, "error", "NetStream.Publish.BadConnection", reason);
        }
        let request = connect.publish_request(name, command.argument(1).and_then(Value::as_str));
        match handler.on_publish(&request) {
            Verdict::Accept => {
                self.publish = Some(Publish {
                    stream_id,
                    name: name.to_owned(),
                });
                self.user_control(message::STREAM_BEGIN, stream_id.to_be_bytes())?;
                self.status(stream_id, "status", "NetStream.Publish.Start", "publishing")
            }
            Verdict::Refuse { code, reason } => {
                self.status(stream_id, "error", code, &reason)?;
                Err(SessionError::Refused { code })
            }
        }
    }

    /// Ends the publish, if there is one that the command means.
    fn unpublish<H: Handler + ?Sized>(
        &mut self,
        why: Unpublish,
        ends: impl Fn(&Publish) -> bool,
        handler: &mut H,
    ) -> Result<(), SessionError> {
        let Some(publish) = self.publish.take_if(|publish| ends(publish)) else {
            return Ok(());
        };
        handler.on_unpublish(why);
        self.status(
            publish.stream_id,
            "status",
            "NetStream.Unpublish.Success",
            "unpublished",
        )
    }

    /// Writes `_result` with one value behind a null, if an answer is wanted.
    fn result(&mut self, command: &Command, value: impl FnOnce(&mut Vec<u8>)) -> Result<(), SessionError> {
        if command.transaction == 0.0 {
            return Ok(());
        }
        let mut answer = Vec::new();
        amf::write_string(&mut answer, "_result");
        amf::write_number(&mut answer, command.transaction);
        amf::write_null(&mut answer);
        value(&mut answer);
        self.send(COMMAND_CSID, message::COMMAND_AMF0, 0, &answer)
    }

    /// Writes `_error`, if an answer is wanted.
    fn error(&mut self, command: &Command, code: &str, description: &str) -> Result<(), SessionError> {
        if command.transaction == 0.0 {
            return Ok(());
        }
        let mut answer = Vec::new();
        amf::write_string(&mut answer, "_error");
        amf::write_number(&mut answer, command.transaction);
        amf::write_null(&mut answer);
        write_info(&mut answer, "error", code, description, |_| {});
        self.send(COMMAND_CSID, message::COMMAND_AMF0, 0, &answer)
    }

    /// Writes `onStatus` on a message stream. RTMP 1.0 §7.2.2.
    pub(super) fn status(
        &mut self,
        stream_id: u32,
        level: &str,
        code: &str,
        description: &str,
    ) -> Result<(), SessionError> {
        let mut status = Vec::new();
        amf::write_string(&mut status, "onStatus");
        amf::write_number(&mut status, 0.0);
        amf::write_null(&mut status);
        write_info(&mut status, level, code, description, |_| {});
        self.send(STATUS_CSID, message::COMMAND_AMF0, stream_id, &status)
    }
}

/// A stream name without its query.
fn bare(name: &str) -> &str {
    address::split_query(name).0
}

/// The object that says how something went.
fn write_info(out: &mut Vec<u8>, level: &str, code: &str, description: &str, more: impl FnOnce(&mut Vec<u8>)) {
    amf::start_object(out);
    write_text(out, "level", level);
    write_text(out, "code", code);
    write_text(out, "description", description);
    more(out);
    amf::end_object(out);
}

fn write_text(out: &mut Vec<u8>, name: &str, text: &str) {
    amf::write_name(out, name);
    amf::write_string(out, text);
}

/// What of enhanced RTMP we take, in the fields of its first and of its second version. `capsEx` names no multitrack.
fn write_enhanced(out: &mut Vec<u8>) {
    amf::write_name(out, "fourCcList");
    amf::start_strict_array(out, 4);
    for fourcc in VIDEO_FOURCC.into_iter().chain(AUDIO_FOURCC) {
        amf::write_string(out, fourcc);
    }
    for (map, codecs) in [
        ("videoFourCcInfoMap", VIDEO_FOURCC),
        ("audioFourCcInfoMap", AUDIO_FOURCC),
    ] {
        amf::write_name(out, map);
        amf::start_object(out);
        for fourcc in codecs {
            amf::write_name(out, fourcc);
            amf::write_number(out, CAN_FORWARD);
        }
        amf::end_object(out);
    }
    amf::write_name(out, "capsEx");
    amf::write_number(out, f64::from(address::CAPS_RECONNECT));
}
