//! AMF from anyone.

use media::amf::{Decoder, MAX_VALUES, Value, leading_string};

/// Reading does not panic; what was read can be written and read again, and then is the same.
pub fn amf(data: &[u8]) {
    let values = read_all(data);
    let written = write_all(&values);
    let again = read_all(&written);
    assert_eq!(again.len(), values.len());
    // Bytes, because NaN is not equal to itself.
    assert!(write_all(&again) == written, "{values:?}");
    if let Some((text, rest)) = leading_string(data) {
        assert_eq!(text.len() + rest.len() + 3, data.len());
    }
}

/// The values up to the end or the first error.
fn read_all(data: &[u8]) -> Vec<Value> {
    let mut decoder = Decoder::new(data);
    let mut values = Vec::new();
    while let Ok(Some(value)) = decoder.next_value() {
        values.push(value);
    }
    assert!(values.len() <= MAX_VALUES && decoder.remaining().len() <= data.len());
    values
}

fn write_all(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.encode(&mut out));
    out
}
