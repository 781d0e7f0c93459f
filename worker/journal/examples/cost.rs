//! What the journal costs: CPU for each second of a 2.5 Mbit/s stream, to append and commit it and to read it back.
//!
//! `cargo run --release -p journal --example cost [STREAMS [SECONDS [DIR]]]`: so many streams visited in turn each 200 ms, as
//! the ingest thread does, 73 tags a second each. The scheduler's account of user and system time, never wall time; what
//! the kernel does later to write pages back is not in it. Beside it what the same bytes cost as plain writes and reads.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people")]

use std::path::{Path, PathBuf};

use journal::{Batch, Control, Entry, IndexReader, Options, Position, Publish, Reader, Writer};

const VISIT_MS: i64 = 200;

/// CPU time of this process so far, microseconds, user and system together.
fn cpu_us() -> u64 {
    // The scheduler's own account, in nanoseconds, of the one thread there is.
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000
}

/// One second of tags: 30 pictures, 43 audio frames, 312 kB.
fn second() -> Vec<(u8, u32, Vec<u8>)> {
    let mut tags = Vec::new();
    for n in 0..30 {
        let mut body = vec![if n == 0 { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        body.resize(if n == 0 { 60_000 } else { 8_300 }, 0x5A);
        tags.push((9, n * 1000 / 30, body));
    }
    for n in 0..43 {
        let mut body = vec![0xAF, 1];
        body.resize(270, 0xA5);
        tags.push((8, n * 1000 / 43, body));
    }
    tags.sort_by_key(|&(_, ms, _)| ms);
    tags
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u32| args.next().map_or(default, |arg| arg.parse().unwrap());
    let (streams, seconds) = (number(200), number(30));
    let root = args
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(format!("journal-cost-{}", std::process::id()));
    let dirs: Vec<PathBuf> = (0..streams).map(|n| root.join(n.to_string())).collect();
    let tags = second();
    let bytes: usize = tags.iter().map(|(_, _, body)| body.len() + 15).sum();
    println!(
        "{streams} streams of {seconds} s, {} tags and {bytes} bytes a second, in {}",
        tags.len(),
        root.display()
    );

    let mut writers: Vec<_> = dirs
        .iter()
        .map(|dir| {
            let publish = Publish {
                id: dir.display().to_string(),
                stream: "cost".into(),
                ..Publish::default()
            };
            Writer::create(dir, Options::default(), &publish, 0).unwrap()
        })
        .collect();
    let mut batch = Batch::new();
    let per = f64::from(streams * seconds);
    let report = |what: &str, from_us: u64| {
        println!(
            "{what:>24}: {:6.1} us a stream-second",
            (cpu_us() - from_us) as f64 / per
        );
    };

    let plain: Vec<_> = dirs.iter().map(|dir| dir.with_extension("plain")).collect();
    let files: Vec<_> = plain
        .iter()
        .map(|path| std::fs::File::create_new(path).unwrap())
        .collect();
    let visits = u64::from(seconds) * 1000 / VISIT_MS as u64;
    let from = cpu_us();
    let block = vec![0x5A; bytes / 5];
    for visit in 0..visits {
        for file in &files {
            std::os::unix::fs::FileExt::write_all_at(file, &block, visit * block.len() as u64).unwrap();
        }
    }
    report("plain writes", from);
    let from = cpu_us();
    let mut block = vec![0; 1 << 20];
    for path in &plain {
        let file = std::fs::File::open(path).unwrap();
        while std::io::Read::read(&mut { &file }, &mut block).unwrap() > 0 {}
    }
    report("plain reads", from);
    plain.iter().for_each(|path| std::fs::remove_file(path).unwrap());

    let from = cpu_us();
    for visit in 0..i64::from(seconds) * 1000 / VISIT_MS {
        let now_ms = visit * VISIT_MS;
        let (second, part_ms) = (now_ms / 1000 * 1000, now_ms % 1000);
        for writer in &mut writers {
            for (tag_type, ms, body) in &tags {
                if (part_ms..part_ms + VISIT_MS).contains(&i64::from(*ms)) {
                    writer.append(&mut batch, *tag_type, *ms + second as u32, body, now_ms, now_ms);
                }
            }
            writer.commit(&mut batch).unwrap();
        }
    }
    report("append and commit", from);

    let from = cpu_us();
    for dir in &dirs {
        append_only(&tags, seconds, dir, &mut batch);
    }
    report("append, no write", from);

    let from = cpu_us();
    for writer in writers {
        writer
            .close(
                &Control::Unpublish {
                    reason: "done".into(),
                    at_ms: 0,
                },
                0,
            )
            .unwrap();
    }
    report("close", from);

    read(
        &dirs,
        2_000,
        |tag| std::hint::black_box(tag.len()) as u64,
        "read, 2 s at a time",
        report,
    );
    let mut out = Vec::with_capacity(2 << 20);
    let render = |tag: &mut [u8]| {
        media::flv::patch_timestamp(tag, 7);
        if out.len() > 1 << 20 {
            out.clear();
        }
        out.extend_from_slice(tag);
        1
    };
    read(&dirs, 2_000, render, "read, patch and copy", report);

    let from = cpu_us();
    let mut count = 0u64;
    for dir in &dirs {
        let mut index = IndexReader::open(dir, Position::START).unwrap();
        while let Some(indexed) = index.next().unwrap() {
            count += u64::from(indexed.info.body_len > 0);
        }
    }
    report("index", from);
    assert_eq!(count, u64::from(streams * seconds) * tags.len() as u64);
    std::fs::remove_dir_all(&root).unwrap();
}

/// The same appends into memory only.
fn append_only(tags: &[(u8, u32, Vec<u8>)], seconds: u32, dir: &Path, batch: &mut Batch) {
    let publish = Publish {
        id: dir.display().to_string(),
        ..Publish::default()
    };
    let mut writer = Writer::create(&dir.join("memory"), Options::default(), &publish, 0).unwrap();
    for second in 0..seconds {
        for (tag_type, ms, body) in tags {
            let now_ms = i64::from(second) * 1000 + i64::from(*ms) / VISIT_MS * VISIT_MS;
            writer.append(batch, *tag_type, ms + second * 1000, body, now_ms, now_ms);
        }
        batch.abandon();
    }
}

/// Reads every journal through, stopping every `stretch_ms` of media as a recorder does: the reader is opened anew.
fn read(
    dirs: &[PathBuf],
    stretch_ms: i64,
    mut take: impl FnMut(&mut [u8]) -> u64,
    what: &str,
    report: impl Fn(&str, u64),
) {
    let from = cpu_us();
    let mut buf = Vec::new();
    let mut sum = 0;
    for dir in dirs {
        let mut at = Position::START;
        'journal: loop {
            let mut reader = Reader::open(dir, at, buf).unwrap();
            let mut began_ms = None;
            loop {
                match reader.next().unwrap() {
                    None => {
                        buf = reader.into_buffer();
                        break 'journal;
                    }
                    Some(Entry::Tag {
                        at: place, info, tag, ..
                    }) => {
                        let began_ms = *began_ms.get_or_insert(info.dts_ms);
                        if info.dts_ms - began_ms >= stretch_ms && info.key {
                            at = place;
                            break;
                        }
                        sum += take(tag);
                    }
                    Some(Entry::Control { .. }) => {}
                }
            }
            buf = reader.into_buffer();
        }
    }
    std::hint::black_box(sum);
    report(what, from);
}
