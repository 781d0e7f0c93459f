//! Chunk headers to their fields. RTMP 1.0 §5.3.1.

/// Value of the 24-bit timestamp field that says: see the extended timestamp.
const EXTENDED: u32 = 0xFF_FFFF;

/// Longest header: 3 bytes of basic header, 11 of message header, 4 of extended timestamp.
pub(super) const MAX_HEADER: usize = 18;

/// The fields of a header of type 0, 1 or 2.
pub(super) struct Fields {
    /// Timestamp or delta, the extended one where the field says so.
    pub(super) time: u32,
    pub(super) extended: bool,
    /// Type 0: `time` is absolute.
    pub(super) absolute: bool,
    pub(super) len_and_type: Option<(u32, u8)>,
    pub(super) stream_id: Option<u32>,
}

/// Format, chunk stream id and length of a basic header; `None` if it is incomplete. RTMP 1.0 §5.3.1.1.
pub(super) fn basic_header(bytes: &[u8]) -> Option<(u8, u32, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let format = first >> 6;
    match first & 0x3F {
        0 => Some((format, u32::from(*rest.first()?).saturating_add(64), 2)),
        1 => {
            let &[low, high] = rest.first_chunk()?;
            Some((format, u32::from(u16::from_le_bytes([low, high])).saturating_add(64), 3))
        }
        csid => Some((format, u32::from(csid), 1)),
    }
}

/// Fields and length of a message header with its extended timestamp. Outer `None`: type 3 has no fields; inner
/// `None`: incomplete. RTMP 1.0 §5.3.1.2, §5.3.1.3.
pub(super) fn message_header(format: u8, bytes: &[u8]) -> Option<(Option<Fields>, usize)> {
    let len = match format {
        0 => 11,
        1 => 7,
        2 => 3,
        _ => return None,
    };
    let Some((header, rest)) = bytes.split_at_checked(len) else {
        return Some((None, 0));
    };
    let u24 = |at: usize| {
        header
            .get(at..)?
            .first_chunk()
            .map(|&[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    };
    let time = u24(0).unwrap_or(0);
    let extended = time == EXTENDED;
    let (time, len) = match (extended, rest.first_chunk()) {
        (false, _) => (time, len),
        (true, Some(&value)) => (u32::from_be_bytes(value), len.saturating_add(4)),
        (true, None) => return Some((None, 0)),
    };
    let len_and_type = u24(3).zip(header.get(6).copied());
    // The one little-endian number of the protocol.
    let stream_id = header
        .get(7..)
        .and_then(|bytes| bytes.first_chunk())
        .map(|&bytes| u32::from_le_bytes(bytes));
    Some((
        Some(Fields {
            time,
            extended,
            absolute: format == 0,
            len_and_type,
            stream_id,
        }),
        len,
    ))
}
