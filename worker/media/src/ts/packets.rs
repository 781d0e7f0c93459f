//! 188 bytes at a time. ISO/IEC 13818-1 §2.4.3.

use super::PACKET_LEN;
use alloc::vec::Vec;

/// Bytes of a packet behind its header.
const BODY_LEN: usize = PACKET_LEN - 4;

/// What the adaptation field of a unit's first packet says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Adaptation {
    pub(super) discontinuity: bool,
    pub(super) random_access: bool,
    /// Program clock reference, ticks of 90 kHz, not wrapped.
    pub(super) clock_90k: Option<i64>,
    /// Two bytes for whoever reads the stream back, as `transport_private_data`.
    pub(super) note: Option<[u8; 2]>,
}

impl Adaptation {
    /// Bytes of the field with its length byte; 0: none is needed.
    fn len(self) -> usize {
        let fields = if self.clock_90k.is_some() { 6 } else { 0 } + if self.note.is_some() { 3 } else { 0 };
        match fields {
            0 if !self.discontinuity && !self.random_access => 0,
            fields => fields + 2,
        }
    }

    /// Appends the field, stuffed to `len` bytes. ISO/IEC 13818-1 §2.4.3.4.
    fn append(self, out: &mut Vec<u8>, len: usize) {
        let Some(rest) = len.checked_sub(1) else {
            return;
        };
        out.push(u8::try_from(rest).unwrap_or(0));
        let Some(stuffing) = rest.checked_sub(1) else {
            return;
        };
        let clock_flag = u8::from(self.clock_90k.is_some());
        let note_flag = u8::from(self.note.is_some());
        let marks = u8::from(self.discontinuity) << 7 | u8::from(self.random_access) << 6;
        out.push(marks | clock_flag << 4 | note_flag << 1);
        let mut stuffing = stuffing;
        if let Some(clock) = self.clock_90k {
            // 33 bits of base, 6 reserved, 9 of extension (0: the clock steps in whole base ticks).
            let field = (clock & 0x1_FFFF_FFFF) << 15 | 0x3F << 9;
            let [_, _, b2, b3, b4, b5, b6, b7] = field.to_be_bytes();
            out.extend_from_slice(&[b2, b3, b4, b5, b6, b7]);
            stuffing = stuffing.saturating_sub(6);
        }
        if let Some([high, low]) = self.note {
            out.extend_from_slice(&[2, high, low]);
            stuffing = stuffing.saturating_sub(3);
        }
        out.resize(out.len() + stuffing, 0xFF);
    }
}

/// Cuts one PES packet of known length into packets, straight into the output.
#[derive(Debug)]
pub(super) struct Packets<'o> {
    out: &'o mut Vec<u8>,
    pid: [u8; 2],
    continuity: u8,
    /// Bytes of the PES packet that are not in any packet yet.
    left: usize,
    /// Bytes that the open packet still takes.
    space: usize,
}

impl<'o> Packets<'o> {
    /// Opens the first packet of a PES packet of `len` bytes.
    pub(super) fn start(out: &'o mut Vec<u8>, pid: u16, continuity: u8, len: usize, adaptation: Adaptation) -> Self {
        out.reserve((len + adaptation.len()).div_ceil(BODY_LEN) * PACKET_LEN);
        let mut packets = Self {
            out,
            pid: pid.to_be_bytes(),
            continuity,
            left: len,
            space: 0,
        };
        packets.open(0x40, adaptation);
        packets
    }

    fn open(&mut self, start_flag: u8, adaptation: Adaptation) {
        let field = adaptation.len();
        let field = field.max(BODY_LEN.saturating_sub(self.left));
        let control = if field == 0 { 0x10 } else { 0x30 };
        self.header(start_flag, control);
        adaptation.append(self.out, field);
        self.space = BODY_LEN - field.min(BODY_LEN);
    }

    fn header(&mut self, start_flag: u8, control: u8) {
        let [high, low] = self.pid;
        self.out
            .extend_from_slice(&[0x47, start_flag | high, low, control | self.continuity]);
        self.continuity = (self.continuity + 1) & 15;
    }

    /// Appends a part of the PES packet; all parts together have the length given at the start.
    pub(super) fn write(&mut self, mut part: &[u8]) {
        if self.space > 0 {
            part = self.top_up(part);
        }
        // Whole packets without an adaptation field: nearly all of a picture.
        while self.left >= BODY_LEN {
            let Some((body, rest)) = part.split_first_chunk::<BODY_LEN>() else {
                break;
            };
            self.header(0, 0x10);
            self.out.extend_from_slice(body);
            self.left -= BODY_LEN;
            part = rest;
        }
        while !part.is_empty() && self.left > 0 {
            self.open(0, Adaptation::default());
            part = self.top_up(part);
        }
    }

    /// Fills the open packet as far as `part` goes; returns the rest of it.
    fn top_up<'p>(&mut self, part: &'p [u8]) -> &'p [u8] {
        let (now, later) = part.split_at_checked(self.space).unwrap_or((part, &[]));
        self.out.extend_from_slice(now);
        self.space -= now.len();
        self.left = self.left.saturating_sub(now.len());
        later
    }

    /// The PID's next continuity counter.
    pub(super) fn finish(self) -> u8 {
        debug_assert_eq!(
            (self.left, self.space),
            (0, 0),
            "the parts make up the length announced"
        );
        self.continuity
    }
}

/// Appends a packet that carries nothing but a clock reference. It takes no continuity counter of its own: `continuity` is the PID's *next* one.
pub(super) fn append_clock(out: &mut Vec<u8>, pid: u16, continuity: u8, clock_90k: i64, discontinuity: bool) {
    let [high, low] = pid.to_be_bytes();
    out.extend_from_slice(&[0x47, high, low, 0x20 | (continuity.wrapping_sub(1) & 15)]);
    let adaptation = Adaptation {
        discontinuity,
        clock_90k: Some(clock_90k),
        ..Adaptation::default()
    };
    adaptation.append(out, BODY_LEN);
}
