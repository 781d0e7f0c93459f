//! Reads a head back: boxes by `mp4-atom`, samples by walking the tables it decoded.

use media::access_unit::{Codec, Track};
use mp4_atom::{Atom, Decode, Encode, Moov, StszSamples, Trak};

/// One sample as the file says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// From the file's first byte.
    pub(crate) offset: u64,
    pub(crate) size: u32,
    /// On the movie's time line, after the edit list: may be below 0.
    pub(crate) dts_ms: i64,
    pub(crate) pts_ms: i64,
    pub(crate) key: bool,
    /// From 0.
    pub(crate) entry: usize,
}

pub(crate) struct ReadTrack {
    pub(crate) kind: Track,
    pub(crate) trak: Trak,
    pub(crate) samples: Vec<Sample>,
    /// The decoder configuration records.
    pub(crate) entries: Vec<(Codec, Vec<u8>)>,
}

pub(crate) struct Movie {
    pub(crate) moov: Moov,
    pub(crate) tracks: Vec<ReadTrack>,
    /// Box types at the top, in order.
    pub(crate) boxes: Vec<[u8; 4]>,
    /// What `mdat` says its body's length is.
    pub(crate) mdat_len: u64,
}

impl Movie {
    /// Sample entries of all tracks.
    pub(crate) fn entries(&self) -> usize {
        self.tracks.iter().map(|track| track.entries.len()).sum()
    }

    pub(crate) fn track(&self, kind: Track) -> &ReadTrack {
        self.tracks
            .iter()
            .find(|track| track.kind == kind)
            .expect("the track is there")
    }
}

/// Reads all of `head`, which must end exactly where the body of `mdat` begins.
pub(crate) fn read(head: &[u8]) -> Movie {
    let (mut boxes, mut moov, mut at, mut mdat_len) = (Vec::new(), None, 0, 0);
    while at < head.len() {
        let short = u64::from(u32::from_be_bytes(head[at..at + 4].try_into().unwrap()));
        let kind: [u8; 4] = head[at + 4..at + 8].try_into().unwrap();
        boxes.push(kind);
        if &kind == b"mdat" {
            let (header, size) = match short {
                1 => (16, u64::from_be_bytes(head[at + 8..at + 16].try_into().unwrap())),
                size => (8, size),
            };
            assert_eq!(head.len(), at + header, "the head ends with the header of mdat");
            mdat_len = size - header as u64;
            break;
        }
        let end = at + usize::try_from(short).unwrap();
        if kind == *b"moov" {
            moov = Some(Moov::decode(&mut &head[at..end]).expect("mp4-atom reads moov"));
        }
        at = end;
    }
    let moov = moov.expect("there is a moov");
    let tracks = moov.trak.iter().map(read_track).collect();
    Movie {
        moov,
        tracks,
        boxes,
        mdat_len,
    }
}

fn read_track(trak: &Trak) -> ReadTrack {
    let stbl = &trak.mdia.minf.stbl;
    let sizes = match &stbl.stsz.samples {
        StszSamples::Identical { count, size } => vec![*size; *count as usize],
        StszSamples::Different { sizes } => sizes.clone(),
    };
    let deltas: Vec<u32> = runs(stbl.stts.entries.iter().map(|run| (run.sample_count, run.sample_delta)));
    let offsets = match &stbl.ctts {
        Some(ctts) => runs(ctts.entries.iter().map(|run| (run.sample_count, run.sample_offset))),
        None => vec![0; sizes.len()],
    };
    let places = places(trak, &sizes);
    assert_eq!(
        [deltas.len(), offsets.len(), places.len()],
        [sizes.len(); 3],
        "tables agree on the number of samples"
    );
    let total: u64 = deltas.iter().map(|&delta| u64::from(delta)).sum();
    assert_eq!(trak.mdia.mdhd.duration, total, "mdhd is the sum of stts");

    let edits = trak
        .edts
        .as_ref()
        .and_then(|edts| edts.elst.clone())
        .map(|elst| elst.entries)
        .unwrap_or_default();
    let edited: u64 = edits.iter().map(|edit| edit.segment_duration).sum();
    assert_eq!(
        trak.tkhd.duration,
        if edits.is_empty() { total } else { edited },
        "tkhd is the sum of the edits"
    );
    let empty: u64 = edits
        .iter()
        .filter(|edit| edit.media_time.is_none())
        .map(|edit| edit.segment_duration)
        .sum();
    let media_time = edits.iter().find_map(|edit| edit.media_time).unwrap_or(0);
    let to_movie = empty.cast_signed() - media_time.cast_signed();

    let mut dts_ms = to_movie;
    let samples: Vec<Sample> = (0..sizes.len())
        .map(|at| {
            let (offset, entry) = places[at];
            let number = u32::try_from(at + 1).unwrap();
            let key = stbl
                .stss
                .as_ref()
                .is_none_or(|stss| stss.entries.binary_search(&number).is_ok());
            let sample = Sample {
                offset,
                size: sizes[at],
                dts_ms,
                pts_ms: dts_ms + offsets[at],
                key,
                entry,
            };
            dts_ms += i64::from(deltas[at]);
            sample
        })
        .collect();
    let presented = edits
        .iter()
        .find(|edit| edit.media_time.is_some())
        .map(|edit| edit.segment_duration);
    for sample in &samples {
        assert!(sample.pts_ms >= 0, "{sample:?} is presented before the movie begins");
        let end = presented.map_or(i64::MAX, |presented| (empty + presented).cast_signed());
        assert!(
            sample.pts_ms < end,
            "{sample:?} is presented after the edit's end, {end}"
        );
    }
    let kind = if trak.mdia.hdlr.handler == mp4_atom::FourCC::new(b"vide") {
        Track::Video
    } else {
        Track::Audio
    };
    ReadTrack {
        kind,
        trak: trak.clone(),
        samples,
        entries: stbl.stsd.codecs.iter().map(entry).collect(),
    }
}

fn runs<T: Clone>(runs: impl Iterator<Item = (u32, T)>) -> Vec<T> {
    runs.flat_map(|(count, value)| std::iter::repeat_n(value, count as usize))
        .collect()
}

/// Offset and sample entry of each sample.
fn places(trak: &Trak, sizes: &[u32]) -> Vec<(u64, usize)> {
    let stbl = &trak.mdia.minf.stbl;
    assert!(stbl.stco.is_none() || stbl.co64.is_none());
    let chunks: Vec<u64> = match &stbl.stco {
        Some(stco) => stco.entries.iter().map(|&offset| offset.into()).collect(),
        None => stbl.co64.as_ref().expect("chunk offsets are there").entries.clone(),
    };
    let runs = &stbl.stsc.entries;
    assert_eq!(runs.first().map(|run| run.first_chunk), Some(1));
    assert!(runs.is_sorted_by(|a, b| a.first_chunk < b.first_chunk));
    let mut sizes = sizes.iter();
    let mut places = Vec::new();
    let mut following = runs.iter().peekable();
    let mut run = &runs[0];
    for (number, &start) in (1u32..).zip(&chunks) {
        if let Some(next) = following.next_if(|next| next.first_chunk == number) {
            run = next;
        }
        let mut offset = start;
        for size in sizes.by_ref().take(run.samples_per_chunk as usize) {
            places.push((offset, run.sample_description_index as usize - 1));
            offset += u64::from(*size);
        }
    }
    assert_eq!(sizes.next(), None, "the chunks hold every sample");
    places
}

fn entry(codec: &mp4_atom::Codec) -> (Codec, Vec<u8>) {
    match codec {
        mp4_atom::Codec::Avc1(avc1) => (Codec::Avc, body(&avc1.avcc)),
        mp4_atom::Codec::Hvc1(hvc1) => (Codec::Hevc, body(&hvc1.hvcc)),
        mp4_atom::Codec::Mp4a(mp4a) => {
            let decoder = &mp4a.esds.es_desc.dec_config;
            assert_eq!((decoder.stream_type, decoder.up_stream), (5, 0));
            match decoder.object_type_indication {
                0x40 => (
                    Codec::Aac,
                    decoder
                        .dec_specific
                        .as_ref()
                        .expect("AAC has its configuration")
                        .raw
                        .clone(),
                ),
                0x69 | 0x6b => {
                    assert_eq!(decoder.dec_specific, None);
                    (Codec::Mp3, vec![decoder.object_type_indication])
                }
                other => panic!("object type {other:#x}"),
            }
        }
        other => panic!("not an entry of ours: {other:?}"),
    }
}

fn body<T: Atom + Encode>(atom: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    atom.encode(&mut bytes).unwrap();
    bytes[8..].to_vec()
}
