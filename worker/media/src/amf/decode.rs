//! [`Decoder`]: AMF0 bytes to values.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use super::{MAX_DEPTH, MAX_TEXT, MAX_VALUES, Value, amf3, marker};

/// Why bytes are not AMF, or not AMF that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmfError {
    /// The bytes end within a value.
    #[error("AMF value cut short")]
    Truncated,
    /// No value starts with this byte.
    #[error("unknown AMF marker {0:#04x}")]
    Marker(u8),
    /// Values nest deeper than [`MAX_DEPTH`].
    #[error("AMF nested deeper than {MAX_DEPTH}")]
    Depth,
    /// There are more values than [`MAX_VALUES`].
    #[error("more than {MAX_VALUES} AMF values")]
    Values,
    /// The strings together are longer than [`MAX_TEXT`].
    #[error("more than {MAX_TEXT} bytes of AMF text")]
    Text,
    /// An AMF3 reference points behind what was read so far.
    #[error("AMF3 reference to nothing")]
    Reference,
}

/// Reads values off the front of a slice. After an error nothing more can be read.
#[derive(Debug)]
pub struct Decoder<'a> {
    input: &'a [u8],
    values_left: usize,
    text_left: usize,
    met_amf3: bool,
}

impl<'a> Decoder<'a> {
    /// Starts at the front of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            values_left: MAX_VALUES,
            text_left: MAX_TEXT,
            met_amf3: false,
        }
    }

    /// Reads the next value; `None` at the end of the input.
    ///
    /// # Errors
    /// Any [`AmfError`].
    pub fn next_value(&mut self) -> Result<Option<Value>, AmfError> {
        if self.input.is_empty() {
            Ok(None)
        } else {
            self.value(1).map(Some)
        }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.input
    }

    /// True once a value was AMF3.
    pub(crate) fn met_amf3(&self) -> bool {
        self.met_amf3
    }

    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.count_value(depth)?;
        Ok(match self.u8()? {
            marker::NUMBER => Value::Number(self.f64()?),
            marker::BOOLEAN => Value::Boolean(self.u8()? != 0),
            marker::STRING => Value::String(self.short_text()?),
            marker::OBJECT => Value::Object(self.fields(depth, false)?),
            marker::NULL => Value::Null,
            marker::UNDEFINED | marker::UNSUPPORTED => Value::Undefined,
            marker::REFERENCE => Value::Reference(self.u16()?),
            marker::ECMA_ARRAY => {
                let _count = self.u32()?;
                Value::EcmaArray(self.fields(depth, true)?)
            }
            marker::STRICT_ARRAY => Value::StrictArray(self.strict_array(depth)?),
            marker::DATE => Value::Date {
                ms: self.f64()?,
                tz: i16::from_be_bytes(self.array()?),
            },
            marker::LONG_STRING => Value::String(self.long_text()?),
            marker::XML => Value::Xml(self.long_text()?),
            marker::TYPED_OBJECT => Value::TypedObject {
                class: self.short_text()?,
                fields: self.fields(depth, false)?,
            },
            marker::AVMPLUS => {
                self.met_amf3 = true;
                amf3::Reader::new(self).value(depth)?
            }
            other => return Err(AmfError::Marker(other)),
        })
    }

    /// Fields up to the end marker. `open_end`: the input may also stop behind a field, as some encoders do it.
    fn fields(&mut self, depth: usize, open_end: bool) -> Result<Vec<(String, Value)>, AmfError> {
        let mut fields = Vec::new();
        loop {
            if open_end && self.input.is_empty() {
                return Ok(fields);
            }
            let name = self.short_text()?;
            if name.is_empty() && self.input.first() == Some(&marker::OBJECT_END) {
                self.u8()?;
                return Ok(fields);
            }
            fields.push((name, self.value(depth.saturating_add(1))?));
        }
    }

    /// The count is a claim: memory grows with what is read, not with what is announced.
    fn strict_array(&mut self, depth: usize) -> Result<Vec<Value>, AmfError> {
        let count = self.u32()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(depth.saturating_add(1))?);
        }
        Ok(values)
    }

    /// Counts one more value at this depth against the bounds.
    pub(super) fn count_value(&mut self, depth: usize) -> Result<(), AmfError> {
        if depth > MAX_DEPTH {
            return Err(AmfError::Depth);
        }
        self.values_left = self.values_left.checked_sub(1).ok_or(AmfError::Values)?;
        Ok(())
    }

    /// Copies text, counted against the bound.
    pub(super) fn text(&mut self, bytes: &[u8]) -> Result<String, AmfError> {
        self.text_left = self.text_left.checked_sub(bytes.len()).ok_or(AmfError::Text)?;
        Ok(match core::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(bytes).into_owned(),
        })
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], AmfError> {
        let (front, rest) = self.input.split_at_checked(len).ok_or(AmfError::Truncated)?;
        self.input = rest;
        Ok(front)
    }

    pub(super) fn u8(&mut self) -> Result<u8, AmfError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, AmfError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn f64(&mut self) -> Result<f64, AmfError> {
        self.array().map(f64::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, AmfError> {
        self.array().map(u16::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (front, rest) = self.input.split_first_chunk::<N>().ok_or(AmfError::Truncated)?;
        self.input = rest;
        Ok(*front)
    }

    fn short_text(&mut self) -> Result<String, AmfError> {
        let len = usize::from(self.u16()?);
        let bytes = self.take(len)?;
        self.text(bytes)
    }

    fn long_text(&mut self) -> Result<String, AmfError> {
        let len = usize::try_from(self.u32()?).map_err(|_| AmfError::Truncated)?;
        let bytes = self.take(len)?;
        self.text(bytes)
    }
}

/// Splits a leading AMF0 string (marker 0x02) off, without copying: its bytes and what follows.
#[must_use]
pub fn leading_string(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[first, high, low], rest) = input.split_first_chunk::<3>()?;
    (first == marker::STRING).then_some(())?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))
}
