//! Transport streams from a stranger: read or refused, and what was read comes out the same once it is written and read again.
//!
//! The input: packets of a segment, the last one cut short or not; only whole ones are read.

use media::access_unit::{AccessUnit, Track};
use media::codec::nal::NalUnits;
use media::ts::{DEFAULT_OFFSET_90K, Demuxer, Muxer, PACKET_LEN, State, Tracks, Unit, Unreadable};

pub fn ts_segment(data: &[u8]) {
    let (found, _) = read(data);
    assert!(found.iter().map(|unit| unit.data.len()).sum::<usize>() <= data.len());
    let mut muxer = Muxer::new(State::new(DEFAULT_OFFSET_90K));
    let mut out = Vec::new();
    let both = Tracks {
        video: true,
        audio: true,
    };
    muxer.start_segment(both, &mut out);
    let mut written = Vec::new();
    for unit in found {
        if let Some(config) = &unit.config
            && muxer.set_config(unit.codec, unit.track, config).is_err()
        {
            // A configuration that no transport stream holds: a parameter set's rate or layers that are none.
            return;
        }
        let pushed = AccessUnit {
            track: unit.track,
            codec: unit.codec,
            dts_ms: unit.dts_ms,
            cto_ms: unit.cto_ms,
            key: unit.key,
            data: &unit.data,
        };
        match muxer.push(&pushed, &mut out) {
            Ok(()) => written.push(unit),
            Err(_) => return,
        }
    }
    let (again, whole) = read(&out);
    assert_eq!(whole, Ok(()), "our own stream is read");
    assert_eq!(again.len(), written.len());
    for (again, before) in again.iter().zip(&written) {
        assert_eq!(
            (again.track, again.codec, again.key, again.cto_ms),
            (before.track, before.codec, before.key, before.cto_ms)
        );
        assert!(
            again.data == without_empty(before),
            "{:?} and {:?}",
            again.data,
            before.data
        );
    }
}

/// Empty NAL units are not written.
fn without_empty(unit: &Unit) -> Vec<u8> {
    if unit.track == Track::Audio {
        return unit.data.clone();
    }
    let mut out = Vec::new();
    for nal in NalUnits::new(&unit.data, 4).flatten() {
        out.extend(u32::try_from(nal.len()).expect("short").to_be_bytes());
        out.extend(nal);
    }
    out
}

fn read(data: &[u8]) -> (Vec<Unit>, Result<(), Unreadable>) {
    let mut demuxer = Demuxer::new();
    let mut found = Vec::new();
    for packet in data.as_chunks::<PACKET_LEN>().0 {
        match demuxer.push(packet) {
            Ok(unit) => found.extend(unit),
            Err(error) => return (found, Err(error)),
        }
    }
    match demuxer.end_segment() {
        Ok(unit) => found.extend(unit),
        Err(error) => return (found, Err(error)),
    }
    (found, Ok(()))
}
