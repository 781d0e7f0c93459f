//! AMF3 values behind the AMF0 marker 0x11: enough to read what Flash-born clients put into commands and metadata.
//!
//! Each such value has its own tables of strings and traits. References to whole objects are read as `Null`: nothing
//! in RTMP uses them, and following them would let a few bytes unfold into gigabytes.

use alloc::{format, string::String, vec::Vec};

use super::{AmfError, Decoder, Value};

/// What the fields of an object are called. AMF3 §3.12.
#[derive(Debug, Clone)]
struct Traits {
    class: String,
    names: Vec<String>,
    dynamic: bool,
}

/// Reads one AMF3 value with its tables.
pub(super) struct Reader<'r, 'a> {
    decoder: &'r mut Decoder<'a>,
    strings: Vec<&'a [u8]>,
    traits: Vec<Traits>,
}

impl<'r, 'a> Reader<'r, 'a> {
    pub(super) fn new(decoder: &'r mut Decoder<'a>) -> Self {
        Self {
            decoder,
            strings: Vec::new(),
            traits: Vec::new(),
        }
    }

    /// The marker has not been read yet. AMF3 §3.1.
    pub(super) fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.decoder.count_value(depth)?;
        Ok(match self.decoder.u8()? {
            0x00 => Value::Undefined,
            0x01 => Value::Null,
            0x02 => Value::Boolean(false),
            0x03 => Value::Boolean(true),
            0x04 => Value::Number(f64::from(sign_extend(self.u29()?))),
            0x05 => Value::Number(self.decoder.f64()?),
            0x06 => Value::String(self.string()?),
            0x07 | 0x0B => match self.inline_len()? {
                Some(len) => {
                    let bytes = self.decoder.take(len)?;
                    Value::Xml(self.decoder.text(bytes)?)
                }
                None => Value::Null,
            },
            0x08 => match self.inline_len()? {
                Some(_) => Value::Date {
                    ms: self.decoder.f64()?,
                    tz: 0,
                },
                None => Value::Null,
            },
            0x09 => self.array(depth)?,
            0x0A => self.object(depth)?,
            // Bytes have no counterpart in AMF0; their length is kept for whoever reads a log.
            0x0C => match self.inline_len()? {
                Some(len) => Value::String(format!("{} bytes", self.decoder.take(len)?.len())),
                None => Value::Null,
            },
            0x0D => self.vector(4, |bytes| Some(f64::from(i32::from_be_bytes(bytes.try_into().ok()?))))?,
            0x0E => self.vector(4, |bytes| Some(f64::from(u32::from_be_bytes(bytes.try_into().ok()?))))?,
            0x0F => self.vector(8, |bytes| Some(f64::from_be_bytes(bytes.try_into().ok()?)))?,
            other => return Err(AmfError::Marker(other)),
        })
    }

    /// Dense values after named ones; without named ones a strict array. AMF3 §3.11.
    fn array(&mut self, depth: usize) -> Result<Value, AmfError> {
        let Some(dense) = self.inline_len()? else {
            return Ok(Value::Null);
        };
        let mut fields = Vec::new();
        self.dynamic_fields(&mut fields, depth)?;
        let mut values = Vec::new();
        for _ in 0..dense {
            values.push(self.value(depth.saturating_add(1))?);
        }
        if fields.is_empty() {
            return Ok(Value::StrictArray(values));
        }
        fields.extend(
            values
                .into_iter()
                .enumerate()
                .map(|(index, value)| (format!("{index}"), value)),
        );
        Ok(Value::EcmaArray(fields))
    }

    fn object(&mut self, depth: usize) -> Result<Value, AmfError> {
        let header = self.u29()?;
        if header & 1 == 0 {
            return Ok(Value::Null);
        }
        let traits = self.traits(header)?;
        let mut fields = Vec::new();
        for name in traits.names {
            // Names come from a table and so are cheap to repeat; their copies are counted.
            let name = self.decoder.text(name.as_bytes())?;
            fields.push((name, self.value(depth.saturating_add(1))?));
        }
        if traits.dynamic {
            self.dynamic_fields(&mut fields, depth)?;
        }
        if traits.class.is_empty() {
            Ok(Value::Object(fields))
        } else {
            Ok(Value::TypedObject {
                class: traits.class,
                fields,
            })
        }
    }

    /// Traits named by an object's header: by reference or in place. Externalizable ones cannot be read by anyone
    /// who does not know the class.
    fn traits(&mut self, header: u32) -> Result<Traits, AmfError> {
        if header & 0b10 == 0 {
            let index = usize::try_from(header >> 2).map_err(|_| AmfError::Reference)?;
            let traits = self.traits.get(index).ok_or(AmfError::Reference)?.clone();
            for name in &traits.names {
                self.decoder.count_value(1)?;
                self.decoder.text(name.as_bytes())?;
            }
            return Ok(traits);
        }
        if header & 0b100 != 0 {
            return Err(AmfError::Marker(0x0A));
        }
        let class = self.string()?;
        let mut names = Vec::new();
        for _ in 0..header >> 4 {
            self.decoder.count_value(1)?;
            names.push(self.string()?);
        }
        let traits = Traits {
            class,
            names,
            dynamic: header & 0b1000 != 0,
        };
        self.traits.push(traits.clone());
        Ok(traits)
    }

    /// Name and value pairs up to an empty name.
    fn dynamic_fields(&mut self, fields: &mut Vec<(String, Value)>, depth: usize) -> Result<(), AmfError> {
        loop {
            let name = self.string()?;
            if name.is_empty() {
                return Ok(());
            }
            fields.push((name, self.value(depth.saturating_add(1))?));
        }
    }

    /// A vector of numbers of `size` bytes each. AMF3 §3.15.
    fn vector(&mut self, size: usize, number: fn(&[u8]) -> Option<f64>) -> Result<Value, AmfError> {
        let Some(count) = self.inline_len()? else {
            return Ok(Value::Null);
        };
        let _fixed = self.decoder.u8()?;
        let mut values = Vec::new();
        for _ in 0..count {
            self.decoder.count_value(1)?;
            values.push(Value::Number(
                number(self.decoder.take(size)?).ok_or(AmfError::Truncated)?,
            ));
        }
        Ok(Value::StrictArray(values))
    }

    /// A string, from the table if it was there before. AMF3 §1.3.2.
    fn string(&mut self) -> Result<String, AmfError> {
        let header = self.u29()?;
        let index_or_len = usize::try_from(header >> 1).map_err(|_| AmfError::Truncated)?;
        let bytes = if header & 1 == 0 {
            self.strings.get(index_or_len).copied().ok_or(AmfError::Reference)?
        } else {
            let bytes = self.decoder.take(index_or_len)?;
            if !bytes.is_empty() {
                self.strings.push(bytes);
            }
            bytes
        };
        self.decoder.text(bytes)
    }

    /// Length of a value that follows; `None` where an earlier object is meant.
    fn inline_len(&mut self) -> Result<Option<usize>, AmfError> {
        let header = self.u29()?;
        if header & 1 == 0 {
            return Ok(None);
        }
        usize::try_from(header >> 1).map(Some).map_err(|_| AmfError::Truncated)
    }

    /// A 29-bit number in one to four bytes. AMF3 §1.3.1.
    fn u29(&mut self) -> Result<u32, AmfError> {
        let mut number = 0_u32;
        for _ in 0..3 {
            let byte = self.decoder.u8()?;
            number = number << 7 | u32::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Ok(number << 8 | u32::from(self.decoder.u8()?))
    }
}

/// Bit 28 is the sign of an AMF3 integer.
fn sign_extend(number: u32) -> i32 {
    (number << 3).cast_signed() >> 3
}
