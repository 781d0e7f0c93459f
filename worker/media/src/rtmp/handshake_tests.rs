use alloc::vec::Vec;

use super::*;

fn packet(bytes: &[u8]) -> &Packet {
    bytes.first_chunk().unwrap()
}

/// True if S2 or C2 is what the digest in the packet it answers demands.
fn is_signed_echo(echo: &Packet, key: &[u8], answered: &Packet, answered_key: &[u8]) -> bool {
    let Some((_, digest)) = find_digest(answered, answered_key) else {
        return false;
    };
    let (body, signature) = echo.split_at(PACKET_LEN - DIGEST_LEN);
    hmac(&echo_key(key, &digest), &[body]) == signature
}

#[test]
fn each_layout_of_the_digest_is_found_and_answered_in_kind() {
    for scheme in Scheme::ALL {
        for seed in 0..50 {
            let mut c0_c1 = Vec::new();
            hello(Some(scheme), [seed; 32], &mut c0_c1);
            let c1 = packet(&c0_c1[1..]);
            assert_eq!(find_digest(c1, CLIENT_KEY).map(|found| found.0), Some(scheme));
            let mut answered = Vec::new();
            answer(c1, [seed ^ 0x55; 32], &mut answered);
            let (s1, s2) = (packet(&answered[1..]), packet(&answered[1 + PACKET_LEN..]));
            assert_eq!((answered.len(), answered[0]), (1 + 2 * PACKET_LEN, VERSION));
            assert_eq!(find_digest(s1, SERVER_KEY).map(|found| found.0), Some(scheme));
            assert!(is_signed_echo(s2, SERVER_KEY, c1, CLIENT_KEY));
            let mut c2 = Vec::new();
            reply(s1, [seed; 32], &mut c2);
            assert!(is_signed_echo(packet(&c2), CLIENT_KEY, s1, SERVER_KEY));
        }
    }
}

#[test]
fn a_plain_hello_is_echoed() {
    let mut c0_c1 = Vec::new();
    hello(None, [9; 32], &mut c0_c1);
    let c1 = packet(&c0_c1[1..]);
    let mut answered = Vec::new();
    answer(c1, [1; 32], &mut answered);
    assert_eq!(packet(&answered[1 + PACKET_LEN..]), c1);
    let s1 = packet(&answered[1..]);
    assert_eq!(s1[..8], [0; 8], "no time, no version");
    let mut c2 = Vec::new();
    reply(s1, [9; 32], &mut c2);
    assert_eq!(packet(&c2), s1);
}

#[test]
fn one_wrong_bit_makes_a_digest_hello_a_plain_one() {
    let mut c0_c1 = Vec::new();
    hello(Some(Scheme::Zero), [9; 32], &mut c0_c1);
    for at in [1, 5, 700, 1536] {
        let mut broken = c0_c1.clone();
        broken[at] ^= 1;
        assert_eq!(find_digest(packet(&broken[1..]), CLIENT_KEY), None);
    }
}

#[test]
fn the_digest_lies_within_the_packet_whatever_the_packet_says() {
    for scheme in Scheme::ALL {
        for fill in [0, 0x7F, 0xFF] {
            assert!(scheme.position(&[fill; PACKET_LEN]) + DIGEST_LEN <= PACKET_LEN);
        }
    }
}

#[test]
fn ffmpegs_hello_carries_a_digest() {
    let capture = include_bytes!("../../tests/data/ffmpeg5-h264-aac.bin");
    let c1 = packet(&capture[1..]);
    assert_eq!(find_digest(c1, CLIENT_KEY).map(|found| found.0), Some(Scheme::Zero));
}
