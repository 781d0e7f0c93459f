//! Tag framing: 11 bytes of header, the body, 4 bytes of back pointer. FLV 10.1 §E.4.1.

use alloc::vec::Vec;

/// Bytes in front of a tag's body.
pub const TAG_HEADER_LEN: usize = 11;
/// Bytes around a tag's body: the header and the back pointer behind it.
pub const TAG_OVERHEAD: usize = 15;
/// Longest body a tag can hold: its size field has 24 bits.
pub const MAX_BODY_LEN: usize = 0xFF_FFFF;
/// Bytes of the file header with the first (zero) back pointer behind it.
pub const FILE_HEADER_LEN: usize = 13;

/// Why bytes are not FLV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// The file does not begin with `FLV`, version 1.
    #[error("not an FLV version 1 file header")]
    FileHeader,
    /// The tag's type is none of audio (8), video (9), script data (18); also any encrypted tag.
    #[error("unknown tag type {0}")]
    TagType(u8),
    /// The back pointer behind the tag is not its length.
    #[error("back pointer says {found}, the tag has {expected} bytes")]
    BackPointer {
        /// Header and body, in bytes.
        expected: u32,
        /// What stands in the file.
        found: u32,
    },
}

/// One whole tag, borrowed from the buffer it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagRef<'a> {
    /// [`AUDIO`](super::AUDIO), [`VIDEO`](super::VIDEO) or [`SCRIPT`](super::SCRIPT).
    pub tag_type: u8,
    /// Milliseconds, all 32 bits (the extension byte on top).
    pub timestamp_ms: u32,
    /// The tag's body, untouched.
    pub body: &'a [u8],
    /// Bytes of the whole tag: the body and [`TAG_OVERHEAD`].
    pub len: usize,
}

/// The first bytes of an FLV file. FLV 10.1 §E.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The file says that it holds sound.
    pub has_audio: bool,
    /// The file says that it holds pictures.
    pub has_video: bool,
    /// Offset of the first tag from the file's start (the back pointer in front of it skipped).
    pub first_tag: u32,
}

/// Appends the file header and the zero back pointer: [`FILE_HEADER_LEN`] bytes. FLV 10.1 §E.2.
pub fn append_file_header(out: &mut Vec<u8>, has_audio: bool, has_video: bool) {
    let flags = (u8::from(has_audio) << 2) | u8::from(has_video);
    out.extend_from_slice(&[b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]);
}

/// Reads the file header; `None` means that `buf` is too short to tell.
///
/// # Errors
///
/// [`FlvError::FileHeader`] where the signature, the version or the header length is wrong.
pub fn read_file_header(buf: &[u8]) -> Result<Option<FileHeader>, FlvError> {
    let known = b"FLV\x01";
    if buf.iter().zip(known).any(|(a, b)| a != b) {
        return Err(FlvError::FileHeader);
    }
    let Some(&[_, _, _, _, flags, l0, l1, l2, l3]) = buf.first_chunk::<9>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([l0, l1, l2, l3]);
    if len < 9 {
        return Err(FlvError::FileHeader);
    }
    let first_tag = len.checked_add(4).ok_or(FlvError::FileHeader)?;
    Ok(Some(FileHeader {
        has_audio: flags & 4 != 0,
        has_video: flags & 1 != 0,
        first_tag,
    }))
}

/// Appends one tag: 11 bytes of header, `body`, 4 bytes of back pointer.
///
/// Returns false, and appends nothing, where `body` is longer than [`MAX_BODY_LEN`]: no tag can
/// hold it, and no RTMP message can be that long.
pub fn append_tag(out: &mut Vec<u8>, tag_type: u8, timestamp_ms: u32, body: &[u8]) -> bool {
    let Some(len) = u32::try_from(body.len()).ok().filter(|&len| len <= 0xFF_FFFF) else {
        return false;
    };
    let [_, s0, s1, s2] = len.to_be_bytes();
    let [extension, t0, t1, t2] = timestamp_ms.to_be_bytes();
    out.reserve(body.len() + TAG_OVERHEAD);
    out.extend_from_slice(&[tag_type, s0, s1, s2, t0, t1, t2, extension, 0, 0, 0]);
    out.extend_from_slice(body);
    out.extend_from_slice(&(len + 11).to_be_bytes());
    true
}

/// Overwrites the timestamp of the tag that begins at `tag[0]`; a slice shorter than 8 bytes stays as it is.
pub fn patch_timestamp(tag: &mut [u8], timestamp_ms: u32) {
    let [extension, t0, t1, t2] = timestamp_ms.to_be_bytes();
    if let Some(field) = tag.get_mut(4..8) {
        field.copy_from_slice(&[t0, t1, t2, extension]);
    }
}

/// Reads the tag at the front of `buf`; `None` means that it is not all there yet.
///
/// The stream id field is not looked at: files exist where it is not 0.
///
/// # Errors
///
/// [`FlvError::TagType`] as soon as the first byte is there, [`FlvError::BackPointer`] when the
/// whole tag is.
pub fn read_tag(buf: &[u8]) -> Result<Option<TagRef<'_>>, FlvError> {
    let Some(&tag_type) = buf.first() else {
        return Ok(None);
    };
    if !matches!(tag_type, super::AUDIO | super::VIDEO | super::SCRIPT) {
        return Err(FlvError::TagType(tag_type));
    }
    let Some((&[_, s0, s1, s2, t0, t1, t2, extension, _, _, _], rest)) = buf.split_first_chunk::<TAG_HEADER_LEN>()
    else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([0, s0, s1, s2]);
    let Some((body, rest)) = rest.split_at_checked(size as usize) else {
        return Ok(None);
    };
    let Some(back_pointer) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let found = u32::from_be_bytes(*back_pointer);
    let expected = size + 11;
    if found != expected {
        return Err(FlvError::BackPointer { expected, found });
    }
    Ok(Some(TagRef {
        tag_type,
        timestamp_ms: u32::from_be_bytes([extension, t0, t1, t2]),
        body,
        len: body.len() + TAG_OVERHEAD,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_tag_written_is_the_tag_read() {
        for (len, ts) in [(0usize, 0u32), (1, 0xFF_FFFF), (70_000, 0x0100_0000), (5, u32::MAX)] {
            let body = vec![7u8; len];
            let mut out = Vec::new();
            assert!(append_tag(&mut out, super::super::VIDEO, ts, &body));
            let tag = read_tag(&out).unwrap().unwrap();
            assert_eq!(
                (tag.tag_type, tag.timestamp_ms, tag.body, tag.len),
                (9, ts, &body[..], out.len())
            );
            for cut in [0, 1, 10, out.len() - 1] {
                assert_eq!(read_tag(&out[..cut.min(out.len() - 1)]).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_timestamp_is_patched_in_place() {
        let mut out = Vec::new();
        append_tag(&mut out, 8, 1, b"x");
        patch_timestamp(&mut out, 0x8123_4567);
        assert_eq!(read_tag(&out).unwrap().unwrap().timestamp_ms, 0x8123_4567);
        patch_timestamp(&mut out[..3], 0);
    }

    #[test]
    fn a_body_no_tag_can_hold_is_not_appended() {
        let mut out = Vec::new();
        assert!(!append_tag(&mut out, 9, 0, &vec![0; MAX_BODY_LEN + 1]));
        assert!(out.is_empty());
        assert!(append_tag(&mut out, 9, 0, &vec![0; MAX_BODY_LEN]));
    }

    #[test]
    fn wrong_bytes_are_named() {
        assert_eq!(read_tag(&[7]), Err(FlvError::TagType(7)));
        assert_eq!(read_tag(&[0x28]), Err(FlvError::TagType(0x28)));
        let mut out = Vec::new();
        append_tag(&mut out, 9, 0, b"abc");
        *out.last_mut().unwrap() = 9;
        assert_eq!(read_tag(&out), Err(FlvError::BackPointer { expected: 14, found: 9 }));
    }

    #[test]
    fn the_file_header_says_which_tracks_there_are() {
        let mut out = Vec::new();
        append_file_header(&mut out, true, false);
        assert_eq!(out.len(), FILE_HEADER_LEN);
        let header = read_file_header(&out).unwrap().unwrap();
        assert_eq!(
            header,
            FileHeader {
                has_audio: true,
                has_video: false,
                first_tag: 13
            }
        );
        assert_eq!(read_file_header(&out[..8]), Ok(None));
        assert_eq!(read_file_header(b"FLX"), Err(FlvError::FileHeader));
        assert_eq!(read_file_header(b"FLV\x02"), Err(FlvError::FileHeader));
    }
}
