//! Reads FLV files tag by tag and says where a file breaks the format. FLV 10.1 §E.

use anyhow::{Context as _, Result, ensure};

/// One tag of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// 8 audio, 9 video, 18 script data.
    pub tag_type: u8,
    /// Milliseconds, 32 bits with the extension byte.
    pub timestamp_ms: u32,
    /// All that stands between the header and the back pointer.
    pub body: Vec<u8>,
}

impl Tag {
    /// True where the body configures a decoder: an AVC or AAC sequence header.
    #[must_use]
    pub fn is_config(&self) -> bool {
        match self.tag_type {
            9 => self.body.len() > 1 && self.body[0] & 0x8F == 7 && self.body[1] == 0,
            8 => self.body.len() > 1 && self.body[0] >> 4 == 10 && self.body[1] == 0,
            _ => false,
        }
    }
}

/// Every tag of a whole file, in order.
///
/// # Errors
/// Where the file ends inside a tag, a back pointer is wrong or a reserved field is set.
pub fn read_tags(file: &[u8]) -> Result<Vec<Tag>> {
    ensure!(
        file.get(..4) == Some(b"FLV\x01".as_slice()),
        "the file does not begin as FLV 1"
    );
    ensure!(
        file.get(5..13) == Some(&[0, 0, 0, 9, 0, 0, 0, 0]),
        "the file header is not 9 bytes with a back pointer of 0"
    );
    let mut tags = Vec::new();
    let mut at = 13;
    while at < file.len() {
        let header = file
            .get(at..at + 11)
            .with_context(|| format!("the file ends inside a tag header at {at}"))?;
        let len = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        ensure!(
            header[8..11] == [0; 3],
            "the tag at {at} names stream {:?}",
            &header[8..11]
        );
        let body = file
            .get(at + 11..at + 11 + len)
            .with_context(|| format!("the file ends inside the tag at {at}"))?;
        let back = file
            .get(at + 11 + len..at + 15 + len)
            .with_context(|| format!("no back pointer after {at}"))?;
        let back = u32::from_be_bytes(back.try_into()?);
        ensure!(
            usize::try_from(back)? == len + 11,
            "the back pointer after {at} says {back}, not {}",
            len + 11
        );
        tags.push(Tag {
            tag_type: header[0],
            timestamp_ms: u32::from_be_bytes([header[7], header[4], header[5], header[6]]),
            body: body.to_vec(),
        });
        at += 15 + len;
    }
    Ok(tags)
}

/// Enhanced RTMP's HEVC tags written the older way, as codec id 12 in the layout of AVC: what many encoders still send.
///
/// # Errors
/// A video tag that is not enhanced RTMP's `hvc1`.
pub fn legacy_hevc(tags: &[Tag]) -> Result<Vec<Tag>> {
    const CODEC_ID: u8 = 12;
    let mut legacy = Vec::new();
    for tag in tags {
        let mut tag = tag.clone();
        if tag.tag_type == 9 {
            ensure!(
                tag.body[0] & 0x80 != 0 && tag.body.get(1..5) == Some(b"hvc1".as_slice()),
                "not enhanced HEVC"
            );
            let (frame, packet_type, rest) = (tag.body[0] & 0x70, tag.body[0] & 0x0F, tag.body[5..].to_vec());
            let header = match packet_type {
                0 => vec![frame | CODEC_ID, 0, 0, 0, 0],
                1 => vec![frame | CODEC_ID, 1],
                2 => vec![frame | CODEC_ID, 2, 0, 0, 0],
                3 => vec![frame | CODEC_ID, 1, 0, 0, 0],
                _ => continue,
            };
            tag.body = [header, rest].concat();
        }
        legacy.push(tag);
    }
    Ok(legacy)
}

/// `next` after `first` on one timeline: its times moved so that it begins where `first` ends.
#[must_use]
pub fn follow(first: &[Tag], next: &[Tag]) -> Vec<Tag> {
    let media = |tag: &&Tag| tag.tag_type != 18 && !tag.is_config();
    let end = first
        .iter()
        .filter(media)
        .map(|tag| tag.timestamp_ms)
        .max()
        .unwrap_or(0);
    let begin = next.iter().filter(media).map(|tag| tag.timestamp_ms).min().unwrap_or(0);
    let moved = next.iter().map(|tag| Tag {
        timestamp_ms: tag.timestamp_ms.saturating_sub(begin) + end + 40,
        ..tag.clone()
    });
    // An end of sequence in the middle would end the stream for a decoder.
    first.iter().filter(|tag| !is_end(tag)).cloned().chain(moved).collect()
}

/// True for the tag that ends an AVC sequence.
fn is_end(tag: &Tag) -> bool {
    tag.tag_type == 9 && tag.body.len() > 1 && tag.body[0] & 0x8F == 7 && tag.body[1] == 2
}

/// A file of these tags.
#[must_use]
pub fn file(tags: &[Tag]) -> Vec<u8> {
    let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for tag in tags {
        let len = u32::try_from(tag.body.len()).unwrap_or(u32::MAX);
        let [top, time @ ..] = tag.timestamp_ms.to_be_bytes();
        out.push(tag.tag_type);
        out.extend_from_slice(&len.to_be_bytes()[1..]);
        out.extend_from_slice(&time);
        out.extend_from_slice(&[top, 0, 0, 0]);
        out.extend_from_slice(&tag.body);
        out.extend_from_slice(&(len + 11).to_be_bytes());
    }
    out
}
