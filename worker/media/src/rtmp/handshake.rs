//! The handshake: C0 C1 C2 against S0 S1 S2. RTMP 1.0 §5.2.
//!
//! Two forms are in use. The *plain* one of the specification: random bytes, echoed. The *digest* one of Flash and
//! its servers, which the specification leaves out: an HMAC-SHA256 of C1 hides within C1 at a place that C1's own
//! bytes name, in one of two layouts, and S1, S2 and C2 carry the like. The server answers in the client's form.
//! Neither form proves anything to us, so a wrong C2 is no reason to refuse a publisher.

use alloc::vec::Vec;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Length of C1, C2, S1 and S2.
pub(super) const PACKET_LEN: usize = 1536;

/// The only version spoken. RTMP 1.0 §5.2.2.
pub(super) const VERSION: u8 = 3;

const DIGEST_LEN: usize = 32;

/// Keys of the digest form. The first 30 or 36 bytes sign C1 and S1; all of them, S2 and C2.
const CLIENT_KEY: &[u8] = b"Genuine Adobe Flash Player 001";
const SERVER_KEY: &[u8] = b"Genuine Adobe Flash Media Server 001";
const KEY_TAIL: [u8; 32] = [
    0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57, 0x6E, 0xEC, 0x5D,
    0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
];

/// Versions in bytes 4 to 7 of S1 and C1 in the digest form; FFmpeg wants a server's to begin with 3 or more.
const SERVER_VERSION: [u8; 4] = [4, 5, 0, 1];
const CLIENT_VERSION: [u8; 4] = [9, 0, 124, 2];

type Packet = [u8; PACKET_LEN];
type Digest = [u8; DIGEST_LEN];

/// Where the digest lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Named by bytes 8 to 11, at 12 or after.
    Zero,
    /// Named by bytes 772 to 775, at 776 or after.
    One,
}

impl Scheme {
    const ALL: [Self; 2] = [Self::Zero, Self::One];

    /// The place of the digest within this packet: below `PACKET_LEN - DIGEST_LEN` whatever the packet says.
    fn position(self, packet: &Packet) -> usize {
        let base = match self {
            Self::Zero => 8_usize,
            Self::One => 772,
        };
        let sum = packet
            .iter()
            .skip(base)
            .take(4)
            .fold(0_usize, |sum, byte| sum.saturating_add(usize::from(*byte)));
        (sum % 728).saturating_add(base).saturating_add(4)
    }
}

/// Appends S0, S1 and S2 for a client's C1.
pub(super) fn answer(c1: &Packet, random: [u8; 32], out: &mut Vec<u8>) {
    out.push(VERSION);
    let mut s1 = random_packet(random);
    if let Some((scheme, digest)) = find_digest(c1, CLIENT_KEY) {
        set(&mut s1, 0, &[0; 4]);
        set(&mut s1, 4, &SERVER_VERSION);
        sign(&mut s1, scheme, SERVER_KEY);
        out.extend_from_slice(&s1);
        out.extend_from_slice(&signed_echo(SERVER_KEY, &digest, rotate(random)));
    } else {
        set(&mut s1, 0, &[0; 8]);
        out.extend_from_slice(&s1);
        out.extend_from_slice(c1);
    }
}

/// Appends C0 and C1, in the digest form if a scheme is given.
pub(super) fn hello(scheme: Option<Scheme>, random: [u8; 32], out: &mut Vec<u8>) {
    out.push(VERSION);
    let mut c1 = random_packet(random);
    set(&mut c1, 0, &[0; 8]);
    if let Some(scheme) = scheme {
        set(&mut c1, 4, &CLIENT_VERSION);
        sign(&mut c1, scheme, CLIENT_KEY);
    }
    out.extend_from_slice(&c1);
}

/// Appends C2 for a server's S1: an echo, or the digest form where S1 is in it.
pub(super) fn reply(s1: &Packet, random: [u8; 32], out: &mut Vec<u8>) {
    match find_digest(s1, SERVER_KEY) {
        Some((_, digest)) => out.extend_from_slice(&signed_echo(CLIENT_KEY, &digest, rotate(random))),
        None => out.extend_from_slice(s1),
    }
}

/// The layout and the digest of a packet that is signed with this key; `None` for the plain form.
fn find_digest(packet: &Packet, key: &[u8]) -> Option<(Scheme, Digest)> {
    Scheme::ALL.into_iter().find_map(|scheme| {
        let (before, digest, after) = split(packet, scheme)?;
        (hmac(key, &[before, after]) == *digest).then_some((scheme, *digest))
    })
}

fn sign(packet: &mut Packet, scheme: Scheme, key: &[u8]) {
    let Some((before, _, after)) = split(packet, scheme) else {
        return;
    };
    let digest = hmac(key, &[before, after]);
    let position = scheme.position(packet);
    set(packet, position, &digest);
}

/// What lies before, in and after the digest.
fn split(packet: &Packet, scheme: Scheme) -> Option<(&[u8], &Digest, &[u8])> {
    let (before, rest) = packet.split_at_checked(scheme.position(packet))?;
    let (digest, after) = rest.split_first_chunk()?;
    Some((before, digest, after))
}

/// S2 or C2 in the digest form: random, then an HMAC of that under a key made of the peer's digest.
fn signed_echo(key: &[u8], digest: &Digest, random: [u8; 32]) -> Packet {
    let mut echo = random_packet(random);
    let body_len = PACKET_LEN.saturating_sub(DIGEST_LEN);
    let signature = hmac(&echo_key(key, digest), &[echo.get(..body_len).unwrap_or_default()]);
    set(&mut echo, body_len, &signature);
    echo
}

fn echo_key(key: &[u8], digest: &Digest) -> Digest {
    let mut long_key = Vec::from(key);
    long_key.extend_from_slice(&KEY_TAIL);
    hmac(&long_key, &[digest])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Digest {
    // HMAC takes keys of any length; the error exists for other algorithms of the same trait.
    Hmac::<Sha256>::new_from_slice(key).map_or([0; DIGEST_LEN], |mut mac| {
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    })
}

fn set(packet: &mut Packet, at: usize, bytes: &[u8]) {
    for (to, from) in packet.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Other random bytes from the same seed.
fn rotate(mut random: [u8; 32]) -> [u8; 32] {
    random.rotate_left(8);
    random
}

/// A packet that looks random: an xorshift generator from the seed. Nothing depends on it being secret.
fn random_packet(seed: [u8; 32]) -> Packet {
    let (words, _) = seed.as_chunks::<8>();
    // Any start but 0 will do for xorshift.
    let mut state = words.iter().fold(0x9E37_79B9_7F4A_7C15, |state: u64, word| {
        state.rotate_left(23) ^ u64::from_le_bytes(*word)
    }) | 1;
    let mut packet = [0; PACKET_LEN];
    let (words, _) = packet.as_chunks_mut::<8>();
    for word in words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    packet
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
