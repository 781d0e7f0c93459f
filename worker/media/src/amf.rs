//! AMF0, and as much of AMF3 as commands need: [`Value`] ↔ bytes.
//!
//! AMF0 is what every RTMP command and every FLV script tag is written in (AMF0 specification, 2007). AMF3 turns up
//! inside it behind the marker 0x11 and in messages of the types 15 and 17; it is read, never written.
//!
//! Bounds: [`MAX_DEPTH`] and [`MAX_VALUES`] for one decoder, so nothing nested can exhaust the stack and nothing
//! short can grow large.

use alloc::{string::String, vec::Vec};

/// Deepest nesting that is read: a bare value has depth 1. Real metadata stays below 5.
pub const MAX_DEPTH: usize = 32;

/// Most values that one decoder reads, nested ones counted. The key frame list of a day-long file has fewer.
pub const MAX_VALUES: usize = 1 << 16;

/// One AMF value. Text is UTF-8; what is not is replaced by U+FFFD when read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Marker 0x00: the only number of AMF0.
    Number(f64),
    /// Marker 0x01.
    Boolean(bool),
    /// Marker 0x02, and 0x0C beyond 65535 bytes.
    String(String),
    /// Marker 0x03: fields in the order sent, names not necessarily unique.
    Object(Vec<(String, Value)>),
    /// Marker 0x08: as an object, but with a count that nobody relies on.
    EcmaArray(Vec<(String, Value)>),
    /// Marker 0x0A.
    StrictArray(Vec<Value>),
    /// Marker 0x05.
    Null,
    /// Marker 0x06; also what 0x0D (unsupported) is read as.
    Undefined,
    /// Marker 0x0B.
    Date {
        /// Milliseconds since the Unix epoch, UTC.
        ms: f64,
        /// Minutes; reserved, 0 in practice.
        tz: i16,
    },
    /// Marker 0x0F: an XML document, and AMF3's two kinds of XML.
    Xml(String),
    /// Marker 0x10: an object with a class name.
    TypedObject {
        /// The class name.
        class: String,
        /// As in `Object`.
        fields: Vec<(String, Value)>,
    },
    /// Marker 0x07: the how-manieth complex value of the message is meant. Not resolved.
    Reference(u16),
}
