#!/usr/bin/env python3
"""Checks a local media playlist and its segments against RFC 8216, as far as players rely on it.

    hls_check.py PLAYLIST.m3u8...     MPEG-TS or fMP4 segments
    hls_check.py --running ...        the recording still runs: EVENT, no end yet
    hls_check.py --self-test          needs ffmpeg on the path

Checked in the text: the first line; version, target duration and playlist type once and in front; every EXTINF with a decimal duration that rounded
does not exceed the target duration; a version of 6 or more where an EXT-X-MAP stands; VOD with EXT-X-ENDLIST as the last line, or EVENT without
(--running); URIs that stay below the playlist's recording, none named twice; EXT-X-PROGRAM-DATE-TIME at the start and at each discontinuity, never going back.
Checked between text and media: every segment and initialisation segment is there and not empty; each segment can be demuxed by itself (with its initialisation
segment) and begins with a key picture, or sound where there are no pictures; codecs, picture size and sampling rate change at discontinuities only, and
each stretch between discontinuities has either all segments with pictures or none.
Between discontinuities decode times go on: none goes back, and an EXTINF is the distance to the next segment's first picture (or sound) within --tolerance-ms (100).
Dates agree with the sum of EXTINF within a stretch, and at a discontinuity do not run behind it by more than --overlap-ms (500).

Prints "FILE: ok: ..." or the first fault, and ends with 1 if there was one.
"""

import argparse
import io
import re
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote


class Fault(Exception):
    """What is wrong, in words."""


@dataclass
class Segment:
    line: int
    uri: str
    duration_ms: float
    discontinuity: bool
    init: str | None
    date_ms: float | None


@dataclass
class Playlist:
    version: int = 1
    target_s: int | None = None
    kind: str | None = None
    ended: bool = False
    segments: list = field(default_factory=list)


ONCE = ("#EXT-X-VERSION", "#EXT-X-TARGETDURATION", "#EXT-X-PLAYLIST-TYPE", "#EXT-X-MEDIA-SEQUENCE", "#EXT-X-DISCONTINUITY-SEQUENCE")
KNOWN = ONCE + ("#EXT-X-INDEPENDENT-SEGMENTS", "#EXT-X-START", "#EXT-X-ALLOW-CACHE")


def parse(text):
    """The playlist's lines as a value; faults of the text alone."""
    lines = text.split("\n")
    if lines[-1] != "":
        raise Fault("the last line does not end")
    lines = [line.rstrip("\r") for line in lines[:-1]]
    if not lines or lines[0] != "#EXTM3U":
        raise Fault("line 1 is not #EXTM3U")
    playlist, seen = Playlist(), set()
    duration = date = init = None
    discontinuity = False
    for number, line in enumerate(lines[1:], 2):
        name, _, value = line.partition(":")
        if playlist.ended and line:
            raise Fault(f"line {number} stands behind #EXT-X-ENDLIST")
        if name in ONCE:
            if name in seen:
                raise Fault(f"line {number}: a second {name}")
            if playlist.segments or duration is not None:
                raise Fault(f"line {number}: {name} behind the first segment")
            seen.add(name)
            if name == "#EXT-X-VERSION":
                playlist.version = int(value)
            elif name == "#EXT-X-TARGETDURATION":
                playlist.target_s = int(value)
            elif name == "#EXT-X-PLAYLIST-TYPE":
                playlist.kind = value
        elif name == "#EXTINF":
            if duration is not None:
                raise Fault(f"line {number}: a second #EXTINF for one segment")
            found = re.fullmatch(r"(\d+(?:\.\d+)?),.*", value)
            if not found:
                raise Fault(f"line {number}: EXTINF {value!r} is not a duration and a comma")
            duration = float(found[1]) * 1000
        elif line == "#EXT-X-DISCONTINUITY":
            discontinuity = True
        elif name == "#EXT-X-MAP":
            found = re.search(r'URI="([^"]+)"', value)
            if not found:
                raise Fault(f"line {number}: EXT-X-MAP without a URI")
            init = found[1]
        elif name == "#EXT-X-PROGRAM-DATE-TIME":
            date = datetime.fromisoformat(value).timestamp() * 1000
        elif line == "#EXT-X-ENDLIST":
            playlist.ended = True
        elif line.startswith("#EXT") and name not in KNOWN:
            raise Fault(f"line {number}: {name} is not a tag of a media playlist")
        elif line and not line.startswith("#"):
            if duration is None:
                raise Fault(f"line {number}: a segment without #EXTINF")
            playlist.segments.append(Segment(number, line, duration, discontinuity, init, date))
            duration, date, discontinuity = None, None, False
    if duration is not None or discontinuity:
        raise Fault("the last segment's tags have no segment")
    return playlist


def check_text(playlist, running):
    if playlist.target_s is None:
        raise Fault("no #EXT-X-TARGETDURATION")
    if playlist.version < 3:
        raise Fault(f"version {playlist.version}: durations with decimals need 3")
    if not playlist.segments:
        raise Fault("no segment")
    if any(segment.init for segment in playlist.segments) and playlist.version < 6:
        raise Fault(f"version {playlist.version}: EXT-X-MAP needs 6")
    wanted = ("EVENT", False) if running else ("VOD", True)
    if (playlist.kind, playlist.ended) != wanted:
        raise Fault(f"playlist type {playlist.kind}, {'with' if playlist.ended else 'without'} an end: wanted {wanted[0]}")
    names = set()
    for segment in playlist.segments:
        if int(segment.duration_ms / 1000 + 0.5) > playlist.target_s:
            raise Fault(f"line {segment.line}: {segment.duration_ms:.0f} ms exceed the target duration of {playlist.target_s} s")
        if segment.duration_ms <= 0:
            raise Fault(f"line {segment.line}: a segment without duration")
        if segment.uri in names:
            raise Fault(f"line {segment.line}: {segment.uri} is named twice")
        names.add(segment.uri)
        if re.match(r"[a-z]+:|/", segment.uri):
            raise Fault(f"line {segment.line}: {segment.uri} does not move with the playlist")
    if playlist.segments[0].discontinuity:
        raise Fault("a discontinuity in front of the first segment")


def check_dates(playlist, overlap_ms):
    expected = None
    for segment in playlist.segments:
        if segment.date_ms is None:
            if expected is None or segment.discontinuity:
                raise Fault(f"line {segment.line}: no #EXT-X-PROGRAM-DATE-TIME where a stretch begins")
            segment_date = expected
        else:
            segment_date = segment.date_ms
            if expected is not None:
                late = segment_date - expected
                if segment.discontinuity and late < -overlap_ms:
                    raise Fault(f"line {segment.line}: the date is {-late:.0f} ms before the end of the stretch before it")
                if not segment.discontinuity and abs(late) > 2:
                    raise Fault(f"line {segment.line}: the date is {late:.0f} ms off what the durations add up to")
        expected = segment_date + segment.duration_ms


@dataclass
class Media:
    """What one segment holds."""

    shape: tuple
    first_ms: dict
    last_ms: dict
    starts_with_key: bool


def media_of(data, name):
    import av

    av.logging.set_level(av.logging.ERROR)
    first, last, key, shape = {}, {}, {}, {}
    try:
        with av.open(io.BytesIO(data)) as container:
            for packet in container.demux():
                kind = packet.stream.type
                if packet.size == 0 or kind not in ("video", "audio") or packet.dts is None:
                    continue
                at = float(packet.dts * packet.time_base * 1000)
                if kind not in first:
                    first[kind], key[kind] = at, packet.is_keyframe
                    codec = packet.stream.codec_context
                    shape[kind] = (codec.name, codec.width, codec.height) if kind == "video" else (codec.name, codec.sample_rate, codec.channels)
                if at < last.get(kind, at):
                    raise Fault(f"{name}: a decode time of the {kind} goes back by {last[kind] - at:.0f} ms")
                last[kind] = at
    except av.error.FFmpegError as error:
        raise Fault(f"{name}: cannot be demuxed by itself: {error}") from error
    if not first:
        raise Fault(f"{name}: no access unit")
    lead = "video" if "video" in first else "audio"
    return Media(tuple(sorted(shape.items())), first, last, key[lead])


WRAP_MS = (1 << 33) / 90


def distance(later, earlier):
    """Across the wrap of a transport stream's 33 bits."""
    return (later - earlier + WRAP_MS / 2) % WRAP_MS - WRAP_MS / 2


def check_media(playlist, folder, tolerance_ms):
    before = None
    shapes = {}
    for segment in playlist.segments:
        data = b""
        for uri in filter(None, (segment.init, segment.uri)):
            path = folder / unquote(uri)
            if not path.is_file() or path.stat().st_size == 0:
                raise Fault(f"{uri} is missing or empty")
            data += path.read_bytes()
        media = media_of(data, segment.uri)
        if not media.starts_with_key:
            raise Fault(f"{segment.uri} does not begin with a key picture")
        if segment.discontinuity or before is None:
            shapes = {}
        for kind, shape in media.shape:
            if shapes.setdefault(kind, shape) != shape:
                raise Fault(f"{segment.uri}: {kind} changes from {shapes[kind]} to {shape} without a discontinuity")
        if before and not segment.discontinuity:
            last, duration_ms = before
            if ("video" in last.first_ms) != ("video" in media.first_ms):
                raise Fault(f"{segment.uri}: pictures come or go without a discontinuity")
            for kind in set(last.last_ms) & set(media.first_ms):
                if distance(media.first_ms[kind], last.last_ms[kind]) < 0:
                    raise Fault(f"{segment.uri}: decode times of the {kind} go back without a discontinuity")
            lead = "video" if "video" in media.first_ms else "audio"
            found = distance(media.first_ms[lead], last.first_ms[lead])
            if abs(found - duration_ms) > tolerance_ms:
                raise Fault(f"the segment before {segment.uri} lasts {found:.0f} ms, its EXTINF says {duration_ms:.0f}")
        before = media, segment.duration_ms


def check(path, options):
    path = Path(path)
    try:
        playlist = parse(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Fault(f"cannot be read: {error}") from error
    check_text(playlist, options.running)
    check_dates(playlist, options.overlap_ms)
    check_media(playlist, path.parent, options.tolerance_ms)
    seconds = sum(segment.duration_ms for segment in playlist.segments) / 1000
    joins = sum(segment.discontinuity for segment in playlist.segments)
    return f"{len(playlist.segments)} segments, {joins} discontinuities, {seconds:.3f} s"


# ---------------------------------------------------------------- self-test


def self_test():
    import units

    options = options_of(["x"])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source = units.clip(folder, "clip.flv", 6)
        for name, kind in (("ts.m3u8", "mpegts"), ("fragments.m3u8", "fmp4")):
            made = folder / name
            cut = ["-hls_time", "1", "-hls_list_size", "0", "-hls_playlist_type", "vod", "-hls_flags", "program_date_time"]
            units.ffmpeg("-i", source, "-c", "copy", *cut, "-hls_segment_type", kind, made)
            # ffmpeg writes dates without the colon of the zone, and of a millisecond's precision after rounding durations to microseconds.
            text = re.sub(r"(EXT-X-PROGRAM-DATE-TIME:.*)([+-]\d\d)(\d\d)\n", r"\1\2:\3\n", made.read_text())
            made.write_text(text)
            assert "6 segments" in check(made, options), name
            faults = {
                "stands behind": text + "#EXT-X-DISCONTINUITY\n",
                "wanted VOD": text.replace("#EXT-X-ENDLIST\n", ""),
                "exceed the target": re.sub(r"TARGETDURATION:\d+", "TARGETDURATION:0", text),
                "without #EXTINF": re.sub(r"#EXTINF.*\n", "", text, count=1),
                "no #EXT-X-PROGRAM": re.sub(r"#EXT-X-PROGRAM.*\n", "", text),
                "a second #EXTINF": re.sub(r"(#EXTINF.*\n)", r"\1\1", text, count=1),
            }
            entry = r"(#EXTINF.*\n#EXT-X-PROGRAM.*\n.*\n|#EXT-X-PROGRAM.*\n#EXTINF.*\n.*\n)"
            dates = re.findall(r"#EXT-X-PROGRAM.*\n", text)
            segments = re.findall(entry, text)
            assert len(segments) == 6, segments
            undated = lambda number: segments[number].replace(dates[number], "")
            uri = segments[1].strip().rsplit("\n", 1)[1]
            faults["is missing or empty"] = text.replace(uri, "gone-" + uri)
            faults["is named twice"] = text.replace(segments[1], segments[1] + undated(1))
            head, tail = text.split(segments[0])[0], "#EXT-X-ENDLIST\n"
            faults["go back without"] = head + segments[1] + undated(0) + tail
            faults["its EXTINF says"] = head + segments[0] + undated(2) + undated(3) + tail
            for words, broken in faults.items():
                (folder / "broken.m3u8").write_text(broken)
                try:
                    check(folder / "broken.m3u8", options)
                except Fault as fault:
                    assert words in str(fault), f"{name}: {fault}, wanted {words}"
                else:
                    raise AssertionError(f"{name}: not noticed: {words}")
        other = units.clip(folder, "mp3.flv", 3, "libmp3lame")
        units.ffmpeg("-i", other, "-c", "copy", "-hls_time", "1", "-hls_list_size", "0", "-hls_playlist_type", "vod", folder / "other.m3u8")
        more = "".join(re.findall(r"#EXTINF.*\n.*\n", (folder / "other.m3u8").read_text()))
        text = re.sub(r"#EXT-X-PROGRAM.*\n", "", (folder / "ts.m3u8").read_text()).replace("#EXT-X-ENDLIST\n", "")
        text = text.replace("#EXTINF", "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000+00:00\n#EXTINF", 1)
        (folder / "joined.m3u8").write_text(text + more + "#EXT-X-ENDLIST\n")
        try:
            check(folder / "joined.m3u8", options)
        except Fault as fault:
            assert "without a discontinuity" in str(fault), fault
        else:
            raise AssertionError("a change of codec was not noticed")
        joint = "#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:01:00.000+00:00\n"
        (folder / "joined.m3u8").write_text(text + joint + more + "#EXT-X-ENDLIST\n")
        assert "1 discontinuities" in check(folder / "joined.m3u8", options)
    print("hls_check.py: self-test passed")


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="PLAYLIST")
    parser.add_argument("--running", action="store_true", help="an EVENT playlist without an end")
    parser.add_argument("--tolerance-ms", type=float, default=100)
    parser.add_argument("--overlap-ms", type=float, default=500)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args(arguments)
    if not options.files and not options.self_test:
        parser.error("name a playlist")
    return options


def main():
    options = options_of(sys.argv[1:])
    if options.self_test:
        return self_test()
    faults = 0
    for path in options.files:
        try:
            print(f"{path}: ok: {check(path, options)}")
        except Fault as fault:
            faults += 1
            print(f"{path}: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
