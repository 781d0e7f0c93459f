//! AMF0, and as much of AMF3 as commands need: [`Value`] ↔ bytes.
//!
//! AMF0 is what every RTMP command and every FLV script tag is written in (AMF0 specification, 2007). AMF3 turns up
//! inside it behind the marker 0x11; it is read, never written.
//!
//! Bounds: [`MAX_DEPTH`], [`MAX_VALUES`] and [`MAX_TEXT`] for one decoder, so nothing nested can exhaust the stack
//! and nothing short can grow large.
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::indexing_slicing
    )
)]

mod amf3;
mod decode;

use alloc::{string::String, vec::Vec};

pub use decode::{AmfError, Decoder, leading_string};

/// Deepest nesting that is read: a bare value has depth 1. Real metadata stays below 5.
pub const MAX_DEPTH: usize = 32;

/// Most values that one decoder reads, nested ones counted. The key frame list of a day-long file has fewer.
pub const MAX_VALUES: usize = 1 << 16;

/// Most bytes of text that one decoder copies; AMF3 can name one long string again and again in two bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// First byte of a value in AMF0. AMF0 §2.1.
pub(crate) mod marker {
    pub(crate) const NUMBER: u8 = 0x00;
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const STRING: u8 = 0x02;
    pub(crate) const OBJECT: u8 = 0x03;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const UNDEFINED: u8 = 0x06;
    pub(crate) const REFERENCE: u8 = 0x07;
    pub(crate) const ECMA_ARRAY: u8 = 0x08;
    pub(crate) const OBJECT_END: u8 = 0x09;
    pub(crate) const STRICT_ARRAY: u8 = 0x0A;
    pub(crate) const DATE: u8 = 0x0B;
    pub(crate) const LONG_STRING: u8 = 0x0C;
    pub(crate) const UNSUPPORTED: u8 = 0x0D;
    pub(crate) const XML: u8 = 0x0F;
    pub(crate) const TYPED_OBJECT: u8 = 0x10;
    pub(crate) const AVMPLUS: u8 = 0x11;
}

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

impl Value {
    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The fields of an object or ECMA array, in the order sent.
    #[must_use]
    pub fn fields(&self) -> Option<&[(String, Value)]> {
        match self {
            Self::Object(fields) | Self::EcmaArray(fields) | Self::TypedObject { fields, .. } => Some(fields),
            _ => None,
        }
    }

    /// The first field of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields()?
            .iter()
            .find_map(|(field, value)| (field == name).then_some(value))
    }

    /// Appends the value as AMF0. The caller keeps values it makes itself shallower than [`MAX_DEPTH`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => write_number(out, *number),
            Self::Boolean(truth) => write_boolean(out, *truth),
            Self::String(text) => write_string(out, text),
            Self::Object(fields) => {
                start_object(out);
                write_fields(out, fields);
            }
            Self::EcmaArray(fields) => {
                start_ecma_array(out, len_u32(fields.len()));
                write_fields(out, fields);
            }
            Self::StrictArray(values) => {
                start_strict_array(out, len_u32(values.len()));
                for value in values {
                    value.encode(out);
                }
            }
            Self::Null => write_null(out),
            Self::Undefined => out.push(marker::UNDEFINED),
            Self::Date { ms, tz } => {
                out.push(marker::DATE);
                out.extend_from_slice(&ms.to_be_bytes());
                out.extend_from_slice(&tz.to_be_bytes());
            }
            Self::Xml(text) => {
                out.push(marker::XML);
                write_long(out, text);
            }
            Self::TypedObject { class, fields } => {
                out.push(marker::TYPED_OBJECT);
                write_name(out, class);
                write_fields(out, fields);
            }
            Self::Reference(index) => {
                out.push(marker::REFERENCE);
                out.extend_from_slice(&index.to_be_bytes());
            }
        }
    }
}

/// Appends a number.
pub fn write_number(out: &mut Vec<u8>, number: f64) {
    out.push(marker::NUMBER);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a truth value.
pub fn write_boolean(out: &mut Vec<u8>, truth: bool) {
    out.extend_from_slice(&[marker::BOOLEAN, u8::from(truth)]);
}

/// Appends a string, as a long string beyond 65535 bytes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    if text.len() <= usize::from(u16::MAX) {
        out.push(marker::STRING);
        write_name(out, text);
    } else {
        out.push(marker::LONG_STRING);
        write_long(out, text);
    }
}

/// Appends a null.
pub fn write_null(out: &mut Vec<u8>) {
    out.push(marker::NULL);
}

/// Begins an object: fields follow, each a [`write_name`] and a value, then [`end_object`].
pub fn start_object(out: &mut Vec<u8>) {
    out.push(marker::OBJECT);
}

/// Begins an ECMA array of about `count` fields; otherwise as [`start_object`].
pub fn start_ecma_array(out: &mut Vec<u8>, count: u32) {
    out.push(marker::ECMA_ARRAY);
    out.extend_from_slice(&count.to_be_bytes());
}

/// Begins an array of exactly `count` values, which follow without names and without an end.
pub fn start_strict_array(out: &mut Vec<u8>, count: u32) {
    out.push(marker::STRICT_ARRAY);
    out.extend_from_slice(&count.to_be_bytes());
}

/// Ends an object or an ECMA array.
pub fn end_object(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

/// Appends the name of a field. Names beyond 65535 bytes cannot be said and are cut at a character.
pub fn write_name(out: &mut Vec<u8>, name: &str) {
    let longest = name.floor_char_boundary(usize::from(u16::MAX));
    let name = name.get(..longest).unwrap_or_default();
    out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

fn write_fields(out: &mut Vec<u8>, fields: &[(String, Value)]) {
    for (name, value) in fields {
        write_name(out, name);
        value.encode(out);
    }
    end_object(out);
}

/// Text with a 32-bit length in front. Nothing in memory here is longer than 4 GiB.
fn write_long(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&len_u32(text.len()).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "amf_tests.rs"]
mod tests;
