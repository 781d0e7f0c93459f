//! Bad input ends the one connection, with a reason in the log and a count, and nobody else notices.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::ledger::{AtLeast, ensure_holds};
use support::pacer::Pacer;
use support::publisher::Publisher;
use support::rtmp::{AUDIO, CHUNK_LEN, DATA, Stamp, VIDEO, amf_key, amf_number, amf_string, append_message};
use support::source::{Numbered, Shape};

use crate::{ALL, recording};

/// A connection that never publishes is ended after 10 s; the machine may be busy.
const TIME_OUT: Duration = Duration::from_secs(10);
const TIME_OUT_SLACK: Duration = Duration::from_secs(5);

/// A simple handshake's first two packets.
fn c0c1() -> Vec<u8> {
    let mut bytes = vec![3, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.resize(1537, 0x55);
    bytes
}

fn shake(server: SocketAddr) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(TIME_OUT + TIME_OUT_SLACK))?;
    socket.write_all(&c0c1())?;
    let mut reply = vec![0; 1 + 2 * 1536];
    socket.read_exact(&mut reply)?;
    socket.write_all(&reply[1..=1536])?;
    Ok(socket)
}

/// Waits for the server to end the connection; returns how long that took.
fn ended(mut socket: TcpStream) -> Result<Duration> {
    let begin = Instant::now();
    socket.set_read_timeout(Some(TIME_OUT + TIME_OUT_SLACK))?;
    let mut scratch = [0; 4096];
    loop {
        match socket.read(&mut scratch) {
            Ok(0) => return Ok(begin.elapsed()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(begin.elapsed()),
            Err(error) => return Err(error).context("the server keeps the connection"),
        }
    }
}

/// Sends bytes after the handshake and waits for the end.
fn after_handshake(server: SocketAddr, bytes: &[u8]) -> Result<Duration> {
    let mut socket = shake(server)?;
    // The server may well hang up before it has all.
    let _ = socket.write_all(bytes);
    ended(socket)
}

fn set_chunk_size(size: u32) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    out.extend_from_slice(&size.to_be_bytes());
    out
}

fn nested_connect(depth: usize) -> Vec<u8> {
    let mut body = Vec::new();
    amf_string(&mut body, "connect");
    amf_number(&mut body, 1.0);
    body.push(3);
    for _ in 0..depth {
        amf_key(&mut body, "a");
        body.push(3);
    }
    let mut out = Vec::new();
    append_message(&mut out, 3, Stamp::Absolute(0), 20, &body, 128);
    out
}

/// A header on a chunk stream that announces `len` bytes, and the first chunk of them.
fn announced(csid: u8, len: u32, chunk_len: usize) -> Vec<u8> {
    let mut out = vec![csid, 0, 0, 0];
    out.extend_from_slice(&len.to_be_bytes()[1..]);
    out.extend_from_slice(&[9, 1, 0, 0, 0]);
    out.resize(out.len() + chunk_len, 0);
    out
}

type Attack = (&'static str, fn(SocketAddr) -> Result<Duration>);

/// Each must be ended at once: what it sends can never become right.
const ATTACKS: &[Attack] = &[
    ("an HTTP request", |server| {
        let mut socket = TcpStream::connect(server)?;
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        socket.write_all(&[b'x'; 4000])?;
        ended(socket)
    }),
    ("garbage for a handshake", |server| {
        let mut socket = TcpStream::connect(server)?;
        socket.write_all(&[0xFF; 8192])?;
        ended(socket)
    }),
    ("a chunk size of 0", |server| {
        after_handshake(server, &set_chunk_size(0))
    }),
    ("a chunk size of 2^31", |server| {
        after_handshake(server, &set_chunk_size(1 << 31))
    }),
    ("AMF nested 10,000 deep", |server| {
        after_handshake(server, &nested_connect(10_000))
    }),
    ("AMF nested 100,000 deep", |server| {
        after_handshake(server, &nested_connect(100_000))
    }),
    ("many chunk streams that each announce the most", |server| {
        let bytes: Vec<u8> = (3..64).flat_map(|csid| announced(csid, 0x00FF_FFFF, 128)).collect();
        let mut socket = shake(server)?;
        let _ = socket.write_all(&bytes);
        // 61 partial messages are no fault in themselves; their bytes are, when they add up.
        for csid in 3..64_u8 {
            let more = [[0xC0 | csid].as_slice(), &[0; 128]].concat().repeat(40_000 / 61);
            if socket.write_all(&more).is_err() {
                break;
            }
        }
        let _ = socket.shutdown(std::net::Shutdown::Write);
        ended(socket)
    }),
];

/// Each is slow rather than wrong, and is ended by the time-out.
const SLOW: &[Attack] = &[
    ("nothing at all", |server| ended(TcpStream::connect(server)?)),
    ("half a handshake", |server| {
        let mut socket = TcpStream::connect(server)?;
        socket.write_all(&c0c1()[..700])?;
        ended(socket)
    }),
    ("a handshake and nothing more", |server| ended(shake(server)?)),
    ("a byte now and then", |server| {
        let mut socket = TcpStream::connect(server)?;
        socket.set_read_timeout(Some(Duration::from_millis(400)))?;
        let begin = Instant::now();
        let mut scratch = [0; 64];
        for byte in c0c1() {
            match socket.write_all(&[byte]).and_then(|()| socket.read(&mut scratch)) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
                Ok(_) => {}
            }
            ensure!(
                begin.elapsed() < TIME_OUT + TIME_OUT_SLACK,
                "still connected after {:?}",
                begin.elapsed()
            );
        }
        Ok(begin.elapsed())
    }),
    ("headers without an end", |server| {
        let mut socket = shake(server)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let begin = Instant::now();
        let mut scratch = [0; 4096];
        // Each chunk is in order: messages begin on several chunk streams, and none ever ends.
        for index in 0_u32.. {
            let csid = 3 + u8::try_from(index % 5)?;
            let mut chunk = vec![0xC0 | csid];
            chunk.resize(129, 0);
            let chunk = if index < 5 {
                announced(csid, 1_000_000, 128)
            } else {
                chunk
            };
            match socket.write_all(&chunk).and_then(|()| socket.read(&mut scratch)) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
                Ok(_) => {}
            }
            ensure!(
                begin.elapsed() < TIME_OUT + TIME_OUT_SLACK,
                "still connected after {:?}",
                begin.elapsed()
            );
        }
        Ok(begin.elapsed())
    }),
];

#[test]
fn bad_input_ends_its_own_connection_and_nothing_else() -> Result<()> {
    let (_folder, mut server) = recording(ALL)?;
    let rtmp = server.rtmp();
    let good = Pacer::start(rtmp, "good", Shape::default())?;
    let slow: Vec<_> = SLOW
        .iter()
        .map(|(words, attack)| (words, std::thread::spawn(move || attack(rtmp))))
        .collect();
    for (words, attack) in ATTACKS {
        let took = attack(rtmp).with_context(|| (*words).to_owned())?;
        ensure!(took < Duration::from_secs(5), "{words}: ended after {took:?}");
        ensure!(server.running()?, "{words}: the server has ended");
    }
    for (words, thread) in slow {
        let took = thread
            .join()
            .map_err(|_| anyhow::anyhow!("{words}: panicked"))?
            .with_context(|| (*words).to_owned())?;
        ensure!(took > TIME_OUT / 2, "{words}: ended after {took:?}, before its time");
    }
    let log = good.finish()?;
    ensure!(log.broken.is_none(), "the good stream was cut: {:?}", log.broken);
    server.finished("good", 1)?;
    ensure_holds(
        &server.files("good")?,
        &log,
        AtLeast {
            video: log.count(VIDEO),
            audio: log.count(AUDIO),
        },
    )?;
    let (status, metrics) = server.get("/metrics")?;
    ensure!(status == 200, "/metrics answers {status}");
    for reason in ["not_rtmp", "chunk_size", "amf", "no_publish"] {
        let name = format!("aircheck_worker_connection_errors_total{{reason=\"{reason}\"}} ");
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .and_then(|n| n.parse::<u64>().ok());
        ensure!(
            count.is_some_and(|count| count > 0),
            "no connection ended as {reason} in:\n{metrics}"
        );
        ensure!(server.log().contains(reason), "the log does not name {reason}");
    }
    Ok(())
}

/// Publishes, sends a second of good frames, then what `bad` sends, and looks at how it ends.
fn while_publishing(name: &str, bad: impl FnOnce(&mut Publisher) -> Result<()>) -> Result<()> {
    let (_folder, mut server) = recording(ALL)?;
    let mut publisher = Publisher::start(server.rtmp(), name)?;
    let source = Numbered::new(Shape::default());
    for frame in source.prologue().into_iter().chain(source.take(80)) {
        publisher.send(frame.message_type, u32::try_from(frame.dts_ms)?, &frame.body)?;
    }
    // It may be cut while it sends.
    let _ = bad(&mut publisher);
    publisher
        .closed(TIME_OUT + TIME_OUT_SLACK)
        .context("the connection stays open")?;
    ensure!(server.running()?, "the server has ended");
    let recording = server.finished(name, 1)?.pop().context("no recording")?;
    for file in server.files(name)? {
        let frames = support::frames::Frames::of(&file)?;
        let video_expected = file.format != "aac";
        ensure!(
            !video_expected || frames.video.len() >= 30,
            "{} pictures in {}: {recording}",
            frames.video.len(),
            file.format
        );
    }
    Ok(())
}

#[test]
fn a_message_longer_than_its_limit_ends_the_publish_and_keeps_what_came() -> Result<()> {
    // No length that 24 bits can say is above 16 MiB but the last; many such make more than may wait unfinished.
    while_publishing("long", |publisher| {
        for csid in 10..40 {
            publisher.send_raw(&announced(csid, 0x00FF_FFFF, CHUNK_LEN))?;
            let more = [[0xC0 | csid].as_slice(), &[0; CHUNK_LEN]].concat();
            for _ in 0..4000 {
                publisher.send_raw(&more)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_chunk_size_of_zero_in_mid_stream_keeps_what_came() -> Result<()> {
    while_publishing("zero", |publisher| publisher.send_raw(&set_chunk_size(0)))
}

#[test]
fn odd_media_is_taken_as_it_is() -> Result<()> {
    let (_folder, server) = recording(ALL)?;
    let mut publisher = Publisher::start(server.rtmp(), "odd")?;
    let source = Numbered::new(Shape {
        b_frames: false,
        ..Shape::default()
    });
    let headers = source.prologue();
    let mut sent = 0;
    for (index, frame) in source.take(300).enumerate() {
        let ms = u32::try_from(frame.dts_ms)?;
        match index {
            // Headers again and again, and tags without anything in them.
            0 | 100 | 101 => {
                for header in &headers {
                    publisher.send(header.message_type, ms, &header.body)?;
                }
            }
            50 => {
                publisher.send(VIDEO, ms, &[])?;
                publisher.send(AUDIO, ms, &[])?;
                publisher.send(DATA, ms, &[])?;
            }
            60 => drop(publisher.send(VIDEO, ms, &[0x17])?),
            70 => drop(publisher.send(AUDIO, ms, &[0xAF])?),
            80 => drop(publisher.send(DATA, ms, &[0xFF; 40])?),
            _ => {}
        }
        sent += usize::from(frame.message_type == VIDEO);
        publisher.send(frame.message_type, ms, &frame.body)?;
    }
    publisher.finish()?;
    server.finished("odd", 1)?;
    let tags = support::flv::read_tags(&std::fs::read(server.file("odd", "flv")?.path)?)?;
    let pictures = tags
        .iter()
        .filter(|tag| tag.tag_type == VIDEO && tag.body.len() > 5 && !tag.is_config())
        .count();
    ensure!(pictures == sent, "{pictures} pictures of {sent}");
    Ok(())
}

/// Sends frames whose timestamps are moved by `shift(index, ms)` and looks that no picture is lost in any format.
fn with_times(name: &str, shift: impl Fn(usize, u64) -> u32) -> Result<()> {
    let (_folder, server) = recording(ALL)?;
    let mut publisher = Publisher::start(server.rtmp(), name)?;
    let source = Numbered::new(Shape {
        gop_frames: 15,
        ..Shape::default()
    });
    for header in source.prologue() {
        publisher.send(header.message_type, shift(0, 0), &header.body)?;
    }
    let (mut video, mut audio) = (0, 0);
    for (index, frame) in source.take(400).enumerate() {
        publisher.send(frame.message_type, shift(index, frame.dts_ms), &frame.body)?;
        if frame.message_type == VIDEO {
            video += 1
        } else {
            audio += 1
        }
    }
    publisher.finish()?;
    server.finished(name, 1)?;
    for format in ["flv", "hls", "mp4", "aac"] {
        let (mut seen_video, mut seen_audio) = (Vec::new(), Vec::new());
        for file in server.files(name)?.iter().filter(|file| file.format == format) {
            let frames = support::frames::Frames::of(file)?;
            let ordered = frames.video.windows(2).all(|pair| pair[0].dts_ms <= pair[1].dts_ms);
            ensure!(ordered, "{format}: decode times go back");
            let (first, last) = (frames.video.first(), frames.video.last());
            if let (Some(Some(first)), Some(Some(last))) = (first.map(|f| f.dts_ms), last.map(|f| f.dts_ms)) {
                ensure!(
                    last - first < 60_000.0,
                    "{format}: five seconds of media last {} ms",
                    last - first
                );
            }
            seen_video.extend(frames.video);
            seen_audio.extend(frames.audio);
        }
        support::frames::ensure_unbroken(&seen_video, &format!("{format} video"))?;
        support::frames::ensure_unbroken(&seen_audio, &format!("{format} audio"))?;
        ensure!(
            format == "aac" || seen_video.len() == video,
            "{format}: {} pictures of {video}",
            seen_video.len()
        );
        ensure!(
            seen_audio.len() == audio,
            "{format}: {} audio frames of {audio}",
            seen_audio.len()
        );
    }
    Ok(())
}

const TEN_HOURS_MS: u32 = 36_000_000;

#[test]
fn time_that_jumps_ten_hours_ahead_loses_nothing() -> Result<()> {
    with_times("ahead", |index, ms| {
        (ms as u32).wrapping_add(if index < 200 { 0 } else { TEN_HOURS_MS })
    })
}

#[test]
fn time_that_jumps_ten_hours_back_loses_nothing() -> Result<()> {
    with_times("back", |index, ms| {
        (ms as u32).wrapping_add(if index < 200 { TEN_HOURS_MS } else { 0 })
    })
}

#[test]
fn single_frames_hours_away_lose_nothing() -> Result<()> {
    with_times("outliers", |index, ms| {
        (ms as u32).wrapping_add(if index % 97 == 50 { TEN_HOURS_MS } else { 0 })
    })
}

#[test]
fn time_that_wraps_at_32_bits_loses_nothing() -> Result<()> {
    with_times("wrap", |_, ms| (u32::MAX - 2000).wrapping_add(ms as u32))
}

#[test]
fn time_that_passes_24_bits_loses_nothing() -> Result<()> {
    with_times("extended", |_, ms| 0x00FF_FFFF - 2000 + ms as u32)
}

#[test]
fn time_that_begins_again_loses_nothing() -> Result<()> {
    with_times("restart", |index, ms| {
        if index < 200 {
            ms as u32 + 1_000_000
        } else {
            ms as u32 - 2500
        }
    })
}
