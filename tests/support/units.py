#!/usr/bin/env python3
"""Lists the access units of media files, one JSON line each, so that files of different formats can be compared.

    units.py FILE...          FLV, MPEG-TS, MP4, ADTS, MP3, or an HLS playlist (local; TS or fMP4 segments)
    units.py --libav FILE     read FLV with libav too, not with the reader in this file
    units.py --self-test      needs ffmpeg on the path

    {"track": "video", "part": 0, "dts_ms": 80, "pts_ms": 160, "key": false, "size": 812, "sha256": "...", "timed": true}

part     counts files, and within a playlist the stretches between discontinuities: times go on within a part only
dts_ms   decode time as the format has it; null where the demuxer cannot tell. So pts_ms
key      decoding can start here, as the format says it
size     bytes of the normalised payload
sha256   of the normalised payload
timed    false where the format carries no times (ADTS, MP3 files): these are then the demuxer's guesses
discard  true only for what an edit list hides from players

Normalised means: H.264 and HEVC as NAL units without start codes, length prefixes, delimiters, parameter sets and trailing
zeros; AAC as raw blocks without ADTS header; MP3 frame by frame. Everything else counts as it is.

Files are read by PyAV. FLV is not: libav forgets the decode times of a stream with a negative composition offset.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote


class Unreadable(Exception):
    """What is wrong with a file, in words."""


@dataclass
class Unit:
    track: str
    part: int
    dts_ms: float | None
    pts_ms: float | None
    key: bool
    size: int
    sha256: str
    timed: bool = True
    discard: bool = False

    def line(self):
        fields = asdict(self)
        if not self.discard:
            del fields["discard"]
        return json.dumps(fields)


# ---------------------------------------------------------------- payloads

AVC_DROPPED = {7, 8, 9, 13}  # SPS, PPS, delimiter, SPS extension
HEVC_DROPPED = {32, 33, 34, 35}  # VPS, SPS, PPS, delimiter


def annex_b(data):
    """The NAL units between start codes."""
    starts = []
    at = data.find(b"\0\0\1")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\0\0\1", at + 3)
    for start, end in zip(starts, starts[1:] + [len(data)]):
        yield data[start + 3 : end]


def length_prefixed(data, length_size):
    """The NAL units behind length fields."""
    at = 0
    while at < len(data):
        end = at + length_size + int.from_bytes(data[at : at + length_size], "big")
        if at + length_size > len(data) or end > len(data):
            raise Unreadable(f"a NAL unit reaches beyond its access unit of {len(data)} bytes")
        yield data[at + length_size : end]
        at = end


def normalise_pictures(codec, data, length_size):
    """`length_size` 0 means start codes."""
    dropped, kind = (AVC_DROPPED, lambda nal: nal[0] & 31) if codec == "h264" else (HEVC_DROPPED, lambda nal: nal[0] >> 1 & 63)
    nals = length_prefixed(data, length_size) if length_size else annex_b(data)
    nals = (nal.rstrip(b"\0") for nal in nals)
    return [nal for nal in nals if nal and kind(nal) not in dropped]


def length_size_of(codec, record):
    """Bytes of each length field, by the decoder configuration; 0 for start codes."""
    if codec == "h264" and len(record) >= 7 and record[0] == 1:
        return (record[4] & 3) + 1
    if codec == "hevc" and len(record) >= 23 and record[:3] not in (b"\0\0\0", b"\0\0\1"):
        return (record[21] & 3) + 1
    return 0


def strip_adts(data):
    """Without the ADTS header, if there is one."""
    if len(data) >= 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        length = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
        if length == len(data):
            return data[7 if data[1] & 1 else 9 :]
    return data


MP3_RATES = (44100, 48000, 32000)
MP3_KBITS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


def mp3_frame(data):
    """(bytes, milliseconds) of the layer 3 frame at the front, or None."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE6 != 0xE2 or data[2] >> 4 == 15 or data[2] >> 2 & 3 == 3:
        return None
    version = data[1] >> 3 & 3
    rate = MP3_RATES[data[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(version, 0)
    kbits = MP3_KBITS[version == 3][data[2] >> 4]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbits * 1000 // rate + (data[2] >> 1 & 1), Fraction(samples * 1000, rate)


def mp3_frames(data):
    """(offset in ms, frame) for each frame; all as one where they cannot be told apart."""
    frames, at, later = [], 0, Fraction(0)
    while at < len(data):
        frame = mp3_frame(data[at:])
        if frame is None or frame[0] < 4 or at + frame[0] > len(data):
            return [(Fraction(0), data)]
        frames.append((later, data[at : at + frame[0]]))
        at, later = at + frame[0], later + frame[1]
    return frames


def number(ms):
    """As JSON has it: whole where it is whole, else to a thousandth."""
    if ms is None:
        return None
    return int(ms) if ms == int(ms) else round(float(ms), 3)


def units_of(codec, track, part, dts_ms, pts_ms, key, data, length_size, timed=True, discard=False):
    """The units in one packet: one, or one for each MP3 frame."""
    if codec in ("h264", "hevc"):
        nals = normalise_pictures(codec, data, length_size)
        payloads = [(0, b"".join(struct.pack(">I", len(nal)) + nal for nal in nals), sum(map(len, nals)))]
    elif codec == "aac":
        payloads = [(0, raw, len(raw)) for raw in [strip_adts(data)]]
    elif codec == "mp3":
        payloads = [(later, frame, len(frame)) for later, frame in mp3_frames(data)]
    else:
        payloads = [(0, data, len(data))]
    for later, payload, size in payloads:
        times = [None if time is None else number(time + later) for time in (dts_ms, pts_ms)]
        yield Unit(track, part, *times, key, size, hashlib.sha256(payload).hexdigest(), timed, discard)


# ---------------------------------------------------------------- containers


def read_with_libav(source, part, timed=True):
    """The units of anything libav can open; `source` is a path or a file object."""
    import av

    av.logging.set_level(av.logging.ERROR)
    with av.open(source) as container:
        sizes = {}
        for stream in container.streams:
            extradata = bytes(stream.codec_context.extradata or b"") if stream.codec_context else b""
            sizes[stream.index] = length_size_of(stream.codec_context.name if stream.codec_context else "", extradata)
        for packet in container.demux():
            if packet.size == 0 or packet.stream.type not in ("video", "audio"):
                continue
            codec = {"mp3float": "mp3"}.get(packet.stream.codec_context.name, packet.stream.codec_context.name)
            dts, pts = (None if t is None else Fraction(t) * packet.time_base * 1000 for t in (packet.dts, packet.pts))
            yield from units_of(
                codec, packet.stream.type, part, dts, pts, packet.is_keyframe, bytes(packet), sizes[packet.stream.index], timed, packet.is_discard
            )


FLV_VIDEO = {7: "h264", 12: "hevc", b"avc1": "h264", b"hvc1": "hevc"}
FLV_AUDIO = {10: "aac", 2: "mp3", 14: "mp3", b"mp4a": "aac", b".mp3": "mp3"}


def flv_tags(data):
    """(type, timestamp, body) of each tag."""
    at = int.from_bytes(data[5:9], "big") + 4
    while at < len(data):
        if at + 11 > len(data):
            raise Unreadable(f"the last tag's header ends after {len(data) - at} bytes")
        length = int.from_bytes(data[at + 1 : at + 4], "big")
        end = at + 11 + length
        if end + 4 > len(data):
            raise Unreadable(f"the tag at byte {at} reaches beyond the file")
        if int.from_bytes(data[end : end + 4], "big") != 11 + length:
            raise Unreadable(f"the tag at byte {at} has a wrong back pointer")
        timestamp = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        yield data[at] & 31, timestamp, data[at + 11 : end]
        at = end + 4


def flv_video(body):
    """(codec, "config" | "unit" | None, composition offset, key, payload) of a video tag. Adobe FLV 10.1, Enhanced RTMP 2."""
    key = body[0] >> 4 & 7 == 1
    if body[0] & 0x80:
        codec, kind = FLV_VIDEO.get(bytes(body[1:5])), body[0] & 15
        if kind == 0:
            return codec, "config", 0, key, body[5:]
        if kind == 1:
            return codec, "unit", int.from_bytes(body[5:8], "big", signed=True), key, body[8:]
        return codec, "unit" if kind == 3 else None, 0, key, body[5:]
    codec = FLV_VIDEO.get(body[0] & 15)
    if codec is None or len(body) < 5 or body[0] >> 4 == 5:
        return codec, None, 0, key, b""
    return codec, {0: "config", 1: "unit"}.get(body[1]), int.from_bytes(body[2:5], "big", signed=True), key, body[5:]


def flv_audio(body):
    """As `flv_video`."""
    if body[0] >> 4 == 9:
        codec = FLV_AUDIO.get(bytes(body[1:5]))
        return codec, {0: "config", 1: "unit"}.get(body[0] & 15), 0, True, body[5:]
    codec = FLV_AUDIO.get(body[0] >> 4)
    if codec == "aac":
        return codec, {0: "config", 1: "unit"}.get(body[1] if len(body) > 1 else -1), 0, True, body[2:]
    return codec, "unit" if codec else None, 0, True, body[1:]


def read_flv(path, part):
    data = Path(path).read_bytes()
    if data[:3] != b"FLV":
        raise Unreadable("not an FLV file")
    length_size = 4
    for kind, timestamp, body in flv_tags(data):
        if kind not in (8, 9) or not body:
            continue
        track, read = ("video", flv_video) if kind == 9 else ("audio", flv_audio)
        codec, what, offset, key, payload = read(body)
        if what == "config" and codec in ("h264", "hevc"):
            length_size = length_size_of(codec, payload)
        elif what == "unit" and payload:
            yield from units_of(codec, track, part, timestamp, timestamp + offset, key, bytes(payload), length_size)


def playlist_groups(path):
    """The segment files of a media playlist, in stretches between discontinuities: [([init or None], [segments])]."""
    folder = Path(path).parent
    groups, init, fresh = [], None, True
    lines = Path(path).read_text("utf-8").splitlines()
    if not lines or lines[0].strip() != "#EXTM3U":
        raise Unreadable("not a playlist: the first line is not #EXTM3U")
    for line in map(str.strip, lines):
        if line.startswith("#EXT-X-STREAM-INF"):
            raise Unreadable("a multivariant playlist: name a media playlist")
        if line.startswith("#EXT-X-MAP:"):
            init, fresh = folder / unquote(line.split('URI="', 1)[1].split('"', 1)[0]), True
        elif line == "#EXT-X-DISCONTINUITY":
            fresh = True
        elif line and not line.startswith("#"):
            if fresh:
                groups.append((init, []))
                fresh = False
            groups[-1][1].append(folder / unquote(line))
    return groups


def read_playlist(path, part):
    """Segments between discontinuities go on without a seam, so they are read as one."""
    for number, (init, segments) in enumerate(playlist_groups(path)):
        data = b"".join(Path(file).read_bytes() for file in ([init] if init else []) + segments)
        yield from read_with_libav(io.BytesIO(data), part + number)


def read(path, part=0, libav=False):
    """The units of one file or playlist, parts counted from `part`."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix in (".m3u8", ".m3u"):
            yield from read_playlist(path, part)
        elif suffix == ".flv" and not libav:
            yield from read_flv(path, part)
        else:
            yield from read_with_libav(str(path), part, timed=suffix not in (".aac", ".mp3"))
    except (Unreadable, OSError, ValueError) as error:
        raise Unreadable(f"{path}: {error}") from error


def read_all(paths, libav=False):
    """The units of several files behind each other."""
    part = 0
    for path in paths:
        last = part - 1
        for unit in read(path, part, libav):
            last = unit.part
            yield unit
        part = last + 1


# ---------------------------------------------------------------- self-test


def ffmpeg(*arguments):
    if shutil.which("ffmpeg") is None:
        sys.exit("ffmpeg is not on the path")
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


def clip(folder, name="clip.flv", seconds=4, sound="aac"):
    """An FLV with reordered pictures and sound, made by ffmpeg."""
    path = Path(folder) / name
    pictures, tone = "testsrc2=s=320x180:r=25", "sine=f=440:r=44100"
    video = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "25", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", tone, "-t", seconds, *video, "-c:a", sound, path)
    return path


def self_test():
    import av

    av.logging.set_level(av.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        source = clip(folder)
        units = list(read(source))
        assert {unit.track for unit in units} == {"video", "audio"}
        assert any(unit.pts_ms > unit.dts_ms for unit in units), "there are reordered pictures"
        assert [asdict(unit) for unit in units] == [asdict(unit) for unit in read(source, libav=True)], "libav reads FLV as we do"

        payloads = lambda found, track: [(unit.sha256, unit.size) for unit in found if unit.track == track]
        for name, options in {
            "copy.mp4": [],
            "copy.ts": ["-pes_payload_size", "0"],
            "copy.m3u8": ["-hls_time", "1", "-hls_list_size", "0"],
            "fragments.m3u8": ["-hls_time", "1", "-hls_list_size", "0", "-hls_segment_type", "fmp4"],
        }.items():
            copy = Path(folder) / name
            ffmpeg("-i", source, "-c", "copy", *options, copy)
            found = list(read(copy))
            for track in ("video", "audio"):
                assert payloads(found, track) == payloads(units, track), f"{name}: {track} payloads"
            offsets = {round(a.pts_ms - b.pts_ms) for a, b in zip(*([u for u in us if u.track == "video"] for us in (found, units)))}
            assert len(offsets) == 1, f"{name}: {offsets}"
        ffmpeg("-i", source, "-vn", "-c", "copy", Path(folder) / "copy.aac")
        found = list(read(Path(folder) / "copy.aac"))
        assert payloads(found, "audio") == payloads(units, "audio") and not any(unit.timed for unit in found)

        playlist = Path(folder) / "copy.m3u8"
        lines = playlist.read_text().splitlines()
        second = [at for at, line in enumerate(lines) if line.startswith("#EXTINF")][2]
        cut = Path(folder) / "cut.m3u8"
        cut.write_text("\n".join(lines[:second] + ["#EXT-X-DISCONTINUITY"] + lines[second:]))
        assert {unit.part for unit in read(cut)} == {0, 1}
        assert [unit.part for unit in read_all([cut, source])][-1] == 2

        source = clip(folder, "mp3.flv", 2, "libmp3lame")
        units = list(read(source))
        ffmpeg("-i", source, "-vn", "-c", "copy", "-write_xing", "0", "-id3v2_version", "0", Path(folder) / "copy.mp3")
        assert payloads(read(Path(folder) / "copy.mp3"), "audio") == payloads(units, "audio")
        frames = mp3_frames(bytes.fromhex("fffb9064") + bytes(413) + bytes.fromhex("fffb9264") + bytes(414))
        assert [len(frame) for _, frame in frames] == [417, 418] and frames[1][0] == Fraction(1152000, 44100)

        (Path(folder) / "torn.flv").write_bytes(source.read_bytes()[:-7])
        try:
            list(read(Path(folder) / "torn.flv"))
        except Unreadable as error:
            assert "reaches beyond the file" in str(error)
        else:
            raise AssertionError("a torn tag was not noticed")
    print("units.py: self-test passed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--libav", action="store_true", help="read FLV with libav")
    parser.add_argument("--self-test", action="store_true", help="check this program against files that ffmpeg makes")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if not arguments.files:
        parser.error("name a file")
    try:
        for unit in read_all(arguments.files, arguments.libav):
            print(unit.line())
    except Unreadable as error:
        sys.exit(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
