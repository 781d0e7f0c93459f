//! Program tables: what is in the stream, and on which PIDs. ISO/IEC 13818-1 §2.4.4.

use super::{AUDIO_PID, PACKET_LEN, PMT_PID, Short, State, VIDEO_PID};
use alloc::vec::Vec;

/// The only program's number.
const PROGRAM: u16 = 1;
/// Stream type of HEVC; the one that decoders of old want registered by name as well.
const HEVC: u8 = 0x24;

/// Appends PAT and PMT, one packet each.
pub(super) fn append(state: &mut State, out: &mut Vec<u8>) {
    let [program_high, program_low] = PROGRAM.to_be_bytes();
    let [pmt_high, pmt_low] = PMT_PID.to_be_bytes();
    let mut pat = Short::<64>::default();
    pat.push(&[
        program_high,
        program_low,
        0xC1,
        0,
        0,
        program_high,
        program_low,
        0xE0 | pmt_high,
        pmt_low,
    ]);
    append_section(out, 0, &mut state.pat_continuity, 0x00, &pat);

    let clock_pid = if state.video_stream_type != 0 {
        VIDEO_PID
    } else {
        AUDIO_PID
    };
    let [clock_high, clock_low] = clock_pid.to_be_bytes();
    let mut pmt = Short::<64>::default();
    let version = 0xC1 | state.pmt_version << 1;
    pmt.push(&[
        program_high,
        program_low,
        version,
        0,
        0,
        0xE0 | clock_high,
        clock_low,
        0xF0,
        0,
    ]);
    for (stream_type, pid) in [
        (state.video_stream_type, VIDEO_PID),
        (state.audio_stream_type, AUDIO_PID),
    ] {
        if stream_type == 0 {
            continue;
        }
        let [high, low] = pid.to_be_bytes();
        let registration: &[u8] = if stream_type == HEVC { b"\x05\x04HEVC" } else { b"" };
        let length = u8::try_from(registration.len()).unwrap_or(0);
        pmt.push(&[stream_type, 0xE0 | high, low, 0xF0, length]);
        pmt.push(registration);
    }
    append_section(out, PMT_PID, &mut state.pmt_continuity, 0x02, &pmt);
}

/// Stream types of the pictures and of the sound (0: none) that a packet with a program map says, given what is behind the packet's header. `None`: it is
/// not as [`append`] writes it.
pub(super) fn read_map(payload: &[u8]) -> Option<(u8, u8)> {
    let (&[0, 0x02, 0xB0, length], rest) = payload.split_first_chunk::<4>()? else {
        return None;
    };
    let end = usize::from(length).checked_sub(4)?;
    let (body, checksum) = rest.split_at_checked(end)?;
    let section = payload.get(1..4 + end)?;
    if crc32(section).to_be_bytes() != *checksum.first_chunk::<4>()? {
        return None;
    }
    let mut found = (0, 0);
    let mut streams = body.get(9..)?;
    while let Some((&[stream_type, p0, p1, 0xF0, skip], rest)) = streams.split_first_chunk::<5>() {
        match u16::from_be_bytes([p0 & 0x1F, p1]) {
            VIDEO_PID => found.0 = stream_type,
            AUDIO_PID => found.1 = stream_type,
            _ => return None,
        }
        streams = rest.get(usize::from(skip)..)?;
    }
    streams.is_empty().then_some(found)
}

/// Appends a packet with one section: pointer, header, `body`, checksum, stuffing. ISO/IEC 13818-1 §2.4.4.
fn append_section(out: &mut Vec<u8>, pid: u16, continuity: &mut u8, table_id: u8, body: &Short<64>) {
    let end = out.len() + PACKET_LEN;
    let [high, low] = pid.to_be_bytes();
    out.extend_from_slice(&[0x47, 0x40 | high, low, 0x10 | *continuity, 0]);
    *continuity = (*continuity + 1) & 15;
    let section = out.len();
    let length = u8::try_from(body.as_slice().len() + 4).unwrap_or(0);
    out.extend_from_slice(&[table_id, 0xB0, length]);
    out.extend_from_slice(body.as_slice());
    let checksum = crc32(out.get(section..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_be_bytes());
    out.resize(end, 0xFF);
}

/// The checksum of ISO/IEC 13818-1 annex A: polynomial 0x04C11DB7, most significant bit first. Tables are short and rare.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0x0376_E6E7);
        // A section with its checksum behind it sums to 0.
        let pat = [
            0x00, 0xB0, 0x0D, 0x00, 0x01, 0xC1, 0x00, 0x00, 0x00, 0x01, 0xF0, 0x00, 0x2A, 0xB1, 0x04, 0xB2,
        ];
        assert_eq!(crc32(&pat), 0);
    }
}
