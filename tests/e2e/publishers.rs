//! Real publishers of several makes: what each sends is in the FLV file bit for bit, at the distances it was sent with.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use support::clips::{B_FRAMES, Clip, HEVC, MP3};
use support::flv::{Tag, read_tags};
use support::programs::{ffmpeg_new, output};
use support::server::Server;

use crate::recording;

/// Audio and video as they stand in a file, less headers for decoders; times from the first of them.
fn media(path: &Path) -> Result<Vec<Tag>> {
    let tags = read_tags(&std::fs::read(path)?).with_context(|| path.display().to_string())?;
    let mut media: Vec<Tag> = tags
        .into_iter()
        .filter(|tag| tag.tag_type != 18 && !is_header(tag))
        .collect();
    // Each track in order; which of two tracks' tags comes first at one moment is the publisher's choice.
    media.sort_by_key(|tag| tag.tag_type);
    let first = media.iter().map(|tag| tag.timestamp_ms).min().unwrap_or(0);
    media.iter_mut().for_each(|tag| tag.timestamp_ms -= first);
    Ok(media)
}

/// Sequence headers, ends of sequence and colour information, also those of enhanced RTMP.
fn is_header(tag: &Tag) -> bool {
    let first = tag.body.first().copied().unwrap_or(0);
    let enhanced = tag.tag_type == 9 && first & 0x80 != 0;
    tag.is_config()
        || (enhanced && matches!(first & 0x0F, 0 | 2 | 4))
        || (tag.tag_type == 9 && !enhanced && first & 0x0F == 7 && tag.body.get(1) == Some(&2))
}

/// That the only recording of a stream holds, in its only FLV file, what a reference holds.
pub(crate) fn ensure_same(server: &Server, stream: &str, reference: &Path) -> Result<()> {
    server.finished(stream, 1)?;
    let (sent, found) = (media(reference)?, media(&server.file(stream, "flv")?.path)?);
    for (index, (sent, found)) in sent.iter().zip(&found).enumerate() {
        ensure!(
            sent == found,
            "unit {index}: type {} at {} ms with {} bytes was sent, type {} at {} ms with {} bytes recorded",
            sent.tag_type,
            sent.timestamp_ms,
            sent.body.len(),
            found.tag_type,
            found.timestamp_ms,
            found.body.len()
        );
    }
    ensure!(sent.len() == found.len(), "{} units of {}", found.len(), sent.len());
    ensure!(!sent.is_empty(), "the reference is empty");
    Ok(())
}

fn push_clip(clip: &Clip) -> Result<()> {
    let (_folder, server) = recording("flv,mp4")?;
    clip.push(&server.push_url("one"))?;
    ensure_same(&server, "one", &clip.reference()?)
}

#[test]
fn debians_ffmpeg() -> Result<()> {
    push_clip(&B_FRAMES)
}

#[test]
fn debians_ffmpeg_with_mp3() -> Result<()> {
    push_clip(&MP3)
}

#[test]
fn a_current_ffmpeg_with_hevc_in_enhanced_rtmp() -> Result<()> {
    push_clip(&HEVC)
}

#[test]
fn a_current_ffmpeg_with_h264() -> Result<()> {
    push_clip(&Clip {
        name: "b-frames-new",
        new: true,
        ..B_FRAMES
    })
}

#[test]
fn ffmpeg_in_real_time_with_a_list_of_enhanced_codecs() -> Result<()> {
    let (_folder, server) = recording("flv")?;
    let mut command = Command::new(ffmpeg_new());
    command
        .args(["-v", "error", "-nostdin", "-re", "-t", "4", "-i"])
        .arg(HEVC.flv()?);
    command
        .args(["-c", "copy", "-rtmp_enhanced_codecs", "hvc1,av01", "-f", "flv"])
        .arg(server.push_url("listed"));
    output(&mut command)?;
    server.finished("listed", 1)?;
    let units = media(&server.file("listed", "flv")?.path)?;
    ensure!(
        units.iter().filter(|tag| tag.tag_type == 9).count() >= 95,
        "{} units",
        units.len()
    );
    Ok(())
}

/// GStreamer's two RTMP sinks: its own, and librtmp as rtmpdump and many encoders use it.
fn gstreamer(sink: &str) -> Result<()> {
    let (folder, server) = recording("flv,mp4")?;
    let sent = folder.path().join("sent.flv");
    let pipeline = format!(
        "flvmux name=mux streamable=true ! tee name=t \
         t. ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! filesink location={} \
         t. ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! {sink} location={} \
         videotestsrc num-buffers=150 ! video/x-raw,width=320,height=180,framerate=25/1 \
         ! x264enc key-int-max=50 bframes=2 speed-preset=veryfast ! h264parse ! queue ! mux. \
         audiotestsrc num-buffers=280 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 ! voaacenc ! aacparse ! queue ! mux.",
        sent.display(),
        server.push_url("gst"),
    );
    output(
        Command::new("gst-launch-1.0")
            .arg("-q")
            .args(pipeline.split_whitespace()),
    )?;
    ensure_same(&server, "gst", &sent)
}

#[test]
fn gstreamers_own_sink() -> Result<()> {
    gstreamer("rtmp2sink")
}

#[test]
fn librtmp() -> Result<()> {
    gstreamer("rtmpsink")
}
