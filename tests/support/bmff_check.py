#!/usr/bin/env python3
"""Checks plain MP4 files against ISO/IEC 14496-12, reading nothing but boxes: no demuxer forgives anything here.

    bmff_check.py FILE...
    bmff_check.py --self-test     needs ffmpeg on the path

Checked: the box tree (sizes add up to the byte, nothing left over, one of each box that is to be one); ftyp first, moov in front of
mdat; sample tables that agree with each other on the number of samples; every sample inside an mdat, none over another, and no byte of
mdat that no sample owns; chunk offsets that only grow within a track; the durations of mvhd, tkhd, mdhd and edit list against the sample
tables; edits that begin inside the media and hide no sample; sync samples in order; sample entries that stsc names and that hold a decoder
configuration; version 1 where a 64-bit value needs it and version 1 of ctts where an offset is negative.

Prints "FILE: ok: ..." or one line for each fault, and ends with 1 if there was one.
"""

import argparse
import struct
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

CONTAINERS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl"}
# Bytes in front of the boxes within: ISO/IEC 14496-12 §8.5.2, §12.1.3, §12.2.3.
ENTRY_BOXES_AT = {b"avc1": 78, b"avc3": 78, b"hvc1": 78, b"hev1": 78, b"mp4a": 28}
CONFIGURATION = {b"avc1": b"avcC", b"avc3": b"avcC", b"hvc1": b"hvcC", b"hev1": b"hvcC", b"mp4a": b"esds"}
ONE_OF = {
    b"moov": {b"mvhd"},
    b"trak": {b"tkhd", b"mdia"},
    b"mdia": {b"mdhd", b"hdlr", b"minf"},
    b"minf": {b"dinf", b"stbl"},
    b"stbl": {b"stsd", b"stts", b"stsc"},
}


class Fault(Exception):
    """What is wrong, in words."""


@dataclass
class Box:
    kind: bytes
    start: int
    body: int
    end: int
    children: list = field(default_factory=list)

    def find(self, *path):
        """All boxes at that path."""
        found = [child for child in self.children if child.kind == path[0]]
        return found if len(path) == 1 else [inner for child in found for inner in child.find(*path[1:])]

    def one(self, *path):
        found = self.find(*path)
        if len(found) != 1:
            raise Fault(f"{len(found)} boxes {b'/'.join(path).decode()} in {self.kind.decode()} at byte {self.start}, 1 expected")
        return found[0]


class Source:
    """A file's bytes, read when needed: mdat may be gigabytes."""

    def __init__(self, path):
        self.file = open(path, "rb")
        self.length = self.file.seek(0, 2)

    def bytes(self, start, end):
        self.file.seek(start)
        data = self.file.read(end - start)
        if len(data) != end - start:
            raise Fault(f"the file ends at byte {self.length}, before {end}")
        return data


def read_boxes(source, start, end):
    """The boxes that fill start..end exactly."""
    boxes = []
    while start < end:
        if end - start < 8:
            raise Fault(f"{end - start} bytes at {start} are no box")
        size, kind = struct.unpack(">I4s", source.bytes(start, start + 8))
        body = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", source.bytes(body, body + 8))
            body += 8
        elif size == 0:
            raise Fault(f"box {kind} at byte {start} has no length")
        if not kind.isalnum() and kind not in (b"url ", b"urn ") and b"\xa9" not in kind:
            raise Fault(f"the box at byte {start} has the type {kind}")
        if start + size < body or start + size > end:
            raise Fault(f"box {kind.decode('latin1')} at byte {start} is {size} bytes long, of {end - start} there are")
        box = Box(kind, start, body, start + size)
        if kind in CONTAINERS:
            box.children = read_boxes(source, body, box.end)
            for expected in ONE_OF.get(kind, ()):
                box.one(expected)
        boxes.append(box)
        start = box.end
    return boxes


class Fields:
    """Reads a full box from front to back; what is left over is a fault."""

    def __init__(self, source, box):
        self.box, self.data, self.at = box, source.bytes(box.body, box.end), 0
        head = self.take(">I")
        self.version, self.flags = head >> 24, head & 0xFFFFFF

    def take(self, form):
        size = struct.calcsize(form)
        if self.at + size > len(self.data):
            raise Fault(f"{self.name()} is too short")
        values = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return values[0] if len(values) == 1 else values

    def table(self, form):
        """As many entries as the count in front of them says."""
        count, size = self.take(">I"), struct.calcsize(form)
        if self.at + count * size > len(self.data):
            raise Fault(f"{self.name()} says {count} entries and has room for {(len(self.data) - self.at) // size}")
        entries = list(struct.iter_unpack(form, self.data[self.at : self.at + count * size]))
        self.at += count * size
        return entries

    def end(self):
        if self.at != len(self.data):
            raise Fault(f"{self.name()} has {len(self.data) - self.at} bytes behind its last field")

    def name(self):
        return f"{self.box.kind.decode()} at byte {self.box.start}"


def read_header(source, box):
    """(timescale, duration, track id) of mvhd, mdhd or tkhd; creation time looked at."""
    fields = Fields(source, box)
    wide = fields.version == 1
    if fields.version > 1:
        raise Fault(f"{fields.name()} has version {fields.version}")
    fields.take(">QQ" if wide else ">II")
    first = fields.take(">I")
    if box.kind == b"tkhd":
        fields.take(">I")
    duration = fields.take(">Q" if wide else ">I")
    rest = {b"mvhd": 80, b"tkhd": 60, b"mdhd": 4}[box.kind]
    if len(fields.data) - fields.at != rest:
        raise Fault(f"{fields.name()} has {len(fields.data) - fields.at} bytes behind its duration, {rest} expected")
    return first, duration


def read_edits(source, trak):
    """(duration, media time) of each edit, in movie and media ticks."""
    if not trak.find(b"edts"):
        return []
    fields = Fields(source, trak.one(b"edts", b"elst"))
    entries = fields.table(">QqI" if fields.version == 1 else ">IiI")
    fields.end()
    for _, media_time, rate in entries:
        if rate != 0x10000:
            raise Fault(f"{fields.name()} plays at another speed")
        if media_time < -1:
            raise Fault(f"{fields.name()} begins at media time {media_time}")
    return [(duration, media_time) for duration, media_time, _ in entries]


def read_entries(source, stbl):
    """The types of the sample entries."""
    fields = Fields(source, stbl.one(b"stsd"))
    count = fields.take(">I")
    entries = read_boxes(source, fields.box.body + 8, fields.box.end)
    if count != len(entries):
        raise Fault(f"{fields.name()} says {count} entries and has {len(entries)}")
    for entry in entries:
        if entry.kind not in ENTRY_BOXES_AT:
            continue
        inside = read_boxes(source, entry.body + ENTRY_BOXES_AT[entry.kind], entry.end)
        if [box.kind for box in inside].count(CONFIGURATION[entry.kind]) != 1:
            raise Fault(f"sample entry {entry.kind.decode()} at byte {entry.start} has no {CONFIGURATION[entry.kind].decode()}")
        reference = struct.unpack(">H", source.bytes(entry.body + 6, entry.body + 8))[0]
        if reference != 1:
            raise Fault(f"sample entry {entry.kind.decode()} at byte {entry.start} names data reference {reference}")
    return [entry.kind.decode() for entry in entries]


def read_sizes(source, stbl):
    fields = Fields(source, stbl.one(b"stsz"))
    size, count = fields.take(">II")
    if size:
        fields.end()
        return [size] * count
    fields.at -= 4
    sizes = [size for (size,) in fields.table(">I")]
    fields.end()
    return sizes


def runs(fields, form, name, samples):
    """A run-length table, written out."""
    entries = fields.table(form)
    fields.end()
    if any(count == 0 for count, _ in entries):
        raise Fault(f"{name} has an empty run")
    total = sum(count for count, _ in entries)
    if total != samples:
        raise Fault(f"{name} has {total} samples, stsz has {samples}")
    return [value for count, value in entries for _ in range(count)]


def read_places(source, stbl, sizes, entries):
    """(start, end) of each sample, by the chunk tables."""
    fields = Fields(source, stbl.one(b"stsc"))
    table = fields.table(">III")
    fields.end()
    offsets_box = stbl.find(b"stco") + stbl.find(b"co64")
    if len(offsets_box) != 1:
        raise Fault(f"{len(offsets_box)} tables of chunk offsets")
    fields = Fields(source, offsets_box[0])
    offsets = [offset for (offset,) in fields.table(">I" if offsets_box[0].kind == b"stco" else ">Q")]
    fields.end()
    if table and table[0][0] != 1 or any(a[0] >= b[0] for a, b in zip(table, table[1:])):
        raise Fault("stsc does not count chunks upwards from 1")
    if any(offset >= later for offset, later in zip(offsets, offsets[1:])):
        raise Fault("chunk offsets do not grow")
    places, sample = [], 0
    bounds = [first - 1 for first, _, _ in table] + [len(offsets)]
    for (first, count, entry), last in zip(table, bounds[1:]):
        if last <= first - 1:
            raise Fault(f"stsc names chunk {first}, there are {len(offsets)}")
        if not 1 <= entry <= len(entries):
            raise Fault(f"stsc names sample entry {entry}, there are {len(entries)}")
        if count == 0:
            raise Fault(f"stsc has no samples in chunk {first}")
        for start in offsets[first - 1 : last]:
            for _ in range(count):
                if sample == len(sizes):
                    raise Fault(f"stsc has more samples than stsz has: {len(sizes)}")
                places.append((start, start + sizes[sample]))
                start, sample = start + sizes[sample], sample + 1
    if sample != len(sizes):
        raise Fault(f"the chunks hold {sample} samples, stsz has {len(sizes)}")
    return places


def check_times(source, trak, stbl, samples, movie_timescale):
    """Durations and edits against the sample tables. Returns the track's duration in movie ticks."""
    timescale, media_duration = read_header(source, trak.one(b"mdia", b"mdhd"))
    _, track_duration = read_header(source, trak.one(b"tkhd"))
    deltas = runs(Fields(source, stbl.one(b"stts")), ">II", "stts", samples)
    if sum(deltas) != media_duration:
        raise Fault(f"mdhd lasts {media_duration}, stts {sum(deltas)}")
    offsets = [0] * samples
    if stbl.find(b"ctts"):
        fields = Fields(source, stbl.one(b"ctts"))
        offsets = runs(fields, ">Ii" if fields.version == 1 else ">II", "ctts", samples)
        if fields.version == 0 and any(offset >= 1 << 31 for offset in offsets):
            raise Fault("ctts has negative offsets and version 0")
    shown, decoded = [], 0
    for delta, offset in zip(deltas, offsets):
        shown.append(decoded + offset)
        decoded += delta
    edits = read_edits(source, trak)
    if not edits:
        if min(shown) < 0:
            raise Fault(f"a sample is shown at media time {min(shown)}, and no edit list says what that means")
        if abs(track_duration * timescale - media_duration * movie_timescale) > timescale:
            raise Fault(f"tkhd lasts {track_duration}, its media {media_duration} / {timescale}")
        return track_duration
    if sum(duration for duration, _ in edits) != track_duration:
        raise Fault(f"tkhd lasts {track_duration}, its edits {sum(duration for duration, _ in edits)}")
    media = [(duration, start) for duration, start in edits if start >= 0]
    if len(media) != 1 or edits[-1] != media[0] or len(edits) > 2:
        raise Fault(f"the edit list is not an optional pause and then the media: {edits}")
    duration, start = media[0]
    end = start + duration * timescale / movie_timescale
    hidden = [at for at, time in enumerate(shown, 1) if not start <= time < end]
    if hidden:
        raise Fault(f"the edit from {start} to {end} hides {len(hidden)} samples, first sample {hidden[0]} at {shown[hidden[0] - 1]}")
    return track_duration


def check_track(source, trak, movie_timescale):
    """(samples, sample entries, duration, places)."""
    stbl = trak.one(b"mdia", b"minf", b"stbl")
    entries = read_entries(source, stbl)
    sizes = read_sizes(source, stbl)
    if not sizes or 0 in sizes:
        raise Fault("a track without samples" if not sizes else f"sample {sizes.index(0) + 1} is empty")
    places = read_places(source, stbl, sizes, entries)
    duration = check_times(source, trak, stbl, len(sizes), movie_timescale)
    if stbl.find(b"stss"):
        fields = Fields(source, stbl.one(b"stss"))
        sync = [sample for (sample,) in fields.table(">I")]
        fields.end()
        if any(a >= b for a, b in zip(sync, sync[1:])) or sync and not 1 <= sync[0] <= sync[-1] <= len(sizes):
            raise Fault("stss does not count samples upwards")
    return len(sizes), entries, duration, places


def check(path):
    """What there is to say of a file without a fault."""
    source = Source(path)
    boxes = read_boxes(source, 0, source.length)
    kinds = [box.kind for box in boxes]
    if kinds[:1] != [b"ftyp"] or kinds.count(b"ftyp") != 1 or kinds.count(b"moov") != 1:
        raise Fault(f"not one ftyp in front and one moov: {b' '.join(kinds).decode('latin1')}")
    if b"mdat" not in kinds or kinds.index(b"moov") > kinds.index(b"mdat"):
        raise Fault("moov is not in front of mdat")
    moov = boxes[kinds.index(b"moov")]
    timescale, duration = read_header(source, moov.one(b"mvhd"))
    summaries, owned, durations, ids = [], [], [], []
    for trak in moov.find(b"trak"):
        ids.append(read_header(source, trak.one(b"tkhd"))[0])
        try:
            samples, entries, track_duration, places = check_track(source, trak, timescale)
        except Fault as fault:
            raise Fault(f"track {ids[-1]}: {fault}") from fault
        summaries.append(f"{samples} {'+'.join(entries)}")
        owned.extend(places)
        durations.append(track_duration)
    if not ids or 0 in ids or len(set(ids)) != len(ids):
        raise Fault(f"track ids {ids}")
    if max(durations) != duration:
        raise Fault(f"mvhd lasts {duration}, the longest track {max(durations)}")
    check_bounds(boxes, owned)
    return f"{', '.join(summaries)} samples, {duration / timescale:.3f} s, {' '.join(kind.decode('latin1') for kind in kinds)}"


def check_bounds(boxes, owned):
    """Samples fill mdat without a hole or an overlap."""
    bounds = [(box.body, box.end) for box in boxes if box.kind == b"mdat" and box.body < box.end]
    owned.sort()
    at = 0
    for start, end in bounds:
        position = start
        while at < len(owned) and owned[at][0] < end:
            if owned[at][0] < position:
                raise Fault(f"a sample at byte {owned[at][0]} begins in front of {position}: over another, or outside of mdat")
            if owned[at][0] > position:
                raise Fault(f"bytes {position} to {owned[at][0]} of mdat belong to no sample")
            position = owned[at][1]
            at += 1
        if position != end:
            raise Fault(f"the last sample ends at byte {position}, mdat at {end}")
    if at != len(owned):
        raise Fault(f"the sample at byte {owned[at][0]} is in no mdat")


# ---------------------------------------------------------------- self-test


def self_test():
    import units

    with tempfile.TemporaryDirectory() as folder:
        source = units.clip(folder)
        good = Path(folder) / "good.mp4"
        units.ffmpeg("-i", source, "-c", "copy", "-movflags", "+faststart", "-video_track_timescale", "1000", good)
        said = check(good)
        assert "avc1" in said and "mp4a" in said, said
        data = good.read_bytes()

        def patched(kind, at, form, change, which=0):
            """The file with one number changed, `at` bytes behind the type of the box."""
            place = -1
            for _ in range(which + 1):
                place = data.index(kind, place + 1)
            place += 4 + at
            value = struct.unpack_from(form, data, place)[0]
            size = struct.calcsize(form)
            return data[:place] + struct.pack(form, change(value)) + data[place + size :]

        end = Path(folder) / "end.mp4"
        units.ffmpeg("-i", source, "-c", "copy", end)
        faults = {
            "moov is not in front of mdat": end.read_bytes(),
            "no box": data + b"\0" * 5,
            "the file ends": data[:-1],
            "mdhd lasts": patched(b"mdhd", 16, ">I", lambda value: value + 1),
            "mvhd lasts": patched(b"mvhd", 16, ">I", lambda value: value - 1),
            "tkhd lasts": patched(b"elst", 8, ">I", lambda value: value + 40),
            "hides": patched(b"elst", 24, ">I", lambda value: value + 40),
            "stsz": patched(b"stts", 8, ">I", lambda value: value + 1),
            "begins in front of": patched(b"stco", 8, ">I", lambda value: value - 1),
            "belong to no sample": patched(b"stco", 8, ">I", lambda value: value + 1),
            "grow": patched(b"stco", 12, ">I", lambda value: 0),
            "stsc": patched(b"stsc", 16, ">I", lambda value: 2),
            "upwards": patched(b"stss", 8, ">I", lambda value: 1 << 20),
            "negative offsets": patched(b"ctts", 12, ">I", lambda value: 1 << 31),
            "room for": patched(b"stco", 4, ">I", lambda value: value + 1),
            "has no avcC": data.replace(b"avcC", b"avcX", 1),
            "is 7 bytes": patched(b"stbl", -8, ">I", lambda value: 7),
            "has the type": data.replace(b"smhd", b"\0mhd", 1),
        }
        for words, changed in faults.items():
            bad = Path(folder) / "bad.mp4"
            bad.write_bytes(changed)
            try:
                said = check(bad)
            except Fault as fault:
                said = str(fault)
                assert words in said or (words == "the file ends" and "are" in said), f"{words!r} is not in {said!r}"
            else:
                raise AssertionError(f"not noticed: {words}: {said}")
    print("bmff_check.py: self-test passed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if not arguments.files:
        parser.error("name a file")
    faults = 0
    for path in arguments.files:
        try:
            print(f"{path}: ok: {check(path)}")
        except (Fault, OSError) as fault:
            faults += 1
            print(f"{path}: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
