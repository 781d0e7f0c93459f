#!/usr/bin/env python3
"""Checks MPEG transport streams against ISO/IEC 13818-1 as far as players of segments rely on it.

    ts_check.py SEGMENT.ts...     each file on its own
    ts_check.py PLAYLIST.m3u8     all its segments (local): between discontinuities they are one stream cut in pieces
    ts_check.py --continuous A.ts B.ts...   as in a playlist without discontinuity
    ts_check.py --self-test       needs ffmpeg on the path

Checked for each segment: whole packets of 188 bytes with their sync byte, no error or scrambling flags, stuffing of 0xff; PAT and PMT in
front of all media, with right checksums; a PCR with the first unit of its track; PES packets as long as
they say, with PTS; H.264 and HEVC units that begin with a delimiter, AAC in whole ADTS frames; the first picture marked as random access
(--no-random-access: not asked for).
Checked across segments: continuity counters of every PID; PCR only growing, at most --pcr-ms (100) apart; decode times that do
not go back, presentation times not before them; every unit's decode time behind the PCR, by at most --delay-ms (10000).

Prints "FILE: ok: ..." or the first fault, and ends with 1 if there was one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

PACKET = 188
KINDS = {0x1B: "h264", 0x24: "hevc", 0x0F: "aac", 0x03: "mp3", 0x04: "mp3", 0x15: "id3"}
VIDEO = {"h264", "hevc"}
# What an access unit begins with: a delimiter of either length of start code (ISO/IEC 13818-1 §2.14.1, §2.17.1).
DELIMITERS = {"h264": (b"\0\0\0\1\x09", b"\0\0\1\x09"), "hevc": (b"\0\0\0\1\x46", b"\0\0\1\x46")}
WRAP = 1 << 33


class Fault(Exception):
    """What is wrong, in words."""


def crc32(data):
    """CRC-32/MPEG-2. Annex A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) & 0xFFFFFFFF ^ (0x04C11DB7 if crc & 0x80000000 else 0)
    return crc


def ahead(later, earlier):
    """later - earlier in 90 kHz ticks, across the wrap at 33 bits."""
    distance = (later - earlier) % WRAP
    return distance - WRAP if distance >= WRAP // 2 else distance


def timestamp(data):
    """Of five bytes with markers. §2.4.3.7."""
    if not data[0] & data[2] & data[4] & 1:
        raise Fault("a timestamp lacks its marker bits")
    return (data[0] >> 1 & 7) << 30 | data[1] << 22 | data[2] >> 1 << 15 | data[3] << 7 | data[4] >> 1


class Pes:
    """A PES packet while it is put together."""

    def __init__(self, where, random_access):
        self.where, self.random_access, self.data = where, random_access, bytearray()


class Checker:
    def __init__(self, options):
        self.options = options
        self.counters = {}
        self.streams = {}
        self.pmt_pid = self.pcr_pid = None
        self.pcr = None
        self.last_dts = {}
        self.units = {}
        self.packets = self.segments = 0
        self.pcr_gap = self.lead_most = 0
        self.lead_least = None

    # ---- packets

    def segment(self, data):
        if not data or len(data) % PACKET:
            raise Fault(f"{len(data)} bytes are not whole packets")
        self.segments += 1
        self.seen_pat = self.seen_pmt = self.seen_pcr = False
        self.awaits_key = True
        self.open = {}
        for number in range(len(data) // PACKET):
            packet = data[number * PACKET : (number + 1) * PACKET]
            try:
                self.packet(number, packet)
            except (Fault, IndexError) as fault:
                raise Fault(f"packet {number}: {fault or 'ends inside a field'}") from fault
            self.packets += 1
        for pid in list(self.open):
            self.finish(pid)

    def packet(self, number, packet):
        if packet[0] != 0x47:
            raise Fault(f"begins with {packet[0]:#x}, not with the sync byte")
        if packet[1] & 0x80 or packet[3] & 0xC0:
            raise Fault("is marked as damaged or scrambled")
        pid, starts = (packet[1] & 0x1F) << 8 | packet[2], bool(packet[1] & 0x40)
        if pid == 0x1FFF:
            return
        has_adaptation, has_payload = packet[3] & 0x20, packet[3] & 0x10
        at, random_access, jump = 4, False, False
        if has_adaptation:
            length = packet[4]
            if length > 183 or (not has_payload and length != 183):
                raise Fault(f"has an adaptation field of {length} bytes")
            random_access, jump = self.adaptation(pid, packet[5 : 5 + length])
            at = 5 + length
        elif not has_payload:
            raise Fault("has neither adaptation field nor payload")
        self.counter(pid, packet[3] & 15, bool(has_payload), jump)
        if has_payload:
            self.payload(number, pid, starts, packet[at:], random_access)

    def counter(self, pid, counter, has_payload, jump):
        last = self.counters.get(pid)
        expected = counter if last is None or jump else (last + 1) & 15 if has_payload else last
        if counter != expected:
            raise Fault(f"PID {pid:#x} has the continuity counter {counter}, {expected} expected")
        self.counters[pid] = counter

    def adaptation(self, pid, field):
        if not field:
            return False, False
        flags, at = field[0], 1
        if flags & 0x10:
            self.clock(pid, field[at : at + 6], bool(flags & 0x80))
            at += 6
        if flags & 0x0F:
            return bool(flags & 0x40), bool(flags & 0x80)  # fields that nobody here writes
        if any(byte != 0xFF for byte in field[at:]):
            raise Fault("has stuffing that is not 0xff")
        return bool(flags & 0x40), bool(flags & 0x80)

    def clock(self, pid, field, jump):
        if not self.seen_pmt:
            raise Fault("has a PCR in front of the first PMT")
        if pid != self.pcr_pid:
            raise Fault(f"has a PCR in PID {pid:#x}; the PMT says {self.pcr_pid}")
        pcr = field[0] << 25 | field[1] << 17 | field[2] << 9 | field[3] << 1 | field[4] >> 7
        extension = (field[4] & 1) << 8 | field[5]
        if extension >= 300:
            raise Fault(f"has the PCR extension {extension}")
        if self.pcr is not None and not jump:
            gap = ahead(pcr, self.pcr)
            if gap < 0:
                raise Fault(f"has a PCR that goes back by {-gap / 90:.3f} ms")
            if gap > self.options.pcr_ms * 90:
                raise Fault(f"has a PCR {gap / 90:.3f} ms after the last, {self.options.pcr_ms} allowed")
            self.pcr_gap = max(self.pcr_gap, gap)
        self.pcr, self.seen_pcr = pcr, True

    # ---- tables

    def payload(self, number, pid, starts, payload, random_access):
        if pid == 0:
            self.pat(payload)
        elif pid == self.pmt_pid and self.seen_pat:
            self.pmt(payload)
        elif pid < 0x20:
            pass  # service information
        elif not self.seen_pat:
            raise Fault("comes in front of the first PAT")
        elif pid in self.streams:
            if not self.seen_pmt:
                raise Fault("holds media in front of the first PMT")
            self.media(number, pid, starts, payload, random_access)
        else:
            raise Fault(f"has the PID {pid:#x}, which no PMT names")

    def section(self, payload, table):
        section = payload[1 + payload[0] :]
        length = 3 + ((section[1] & 15) << 8 | section[2])
        if section[0] != table or length > len(section) or length < 12:
            raise Fault(f"has table {section[0]} of {length} bytes, table {table} expected")
        if crc32(section[:length]) != 0:
            raise Fault("has a table with a wrong checksum")
        if not section[5] & 1:
            raise Fault("has a table that is not in force")
        return section[8 : length - 4]

    def pat(self, payload):
        body = self.section(payload, 0)
        programs = {(body[at] << 8 | body[at + 1]): (body[at + 2] & 31) << 8 | body[at + 3] for at in range(0, len(body), 4)}
        programs.pop(0, None)
        if len(programs) != 1:
            raise Fault(f"has {len(programs)} programs")
        (self.pmt_pid,) = programs.values()
        self.seen_pat = True

    def pmt(self, payload):
        body = self.section(payload, 2)
        self.pcr_pid = (body[0] & 31) << 8 | body[1]
        at = 4 + ((body[2] & 15) << 8 | body[3])
        streams = {}
        while at < len(body):
            pid = (body[at + 1] & 31) << 8 | body[at + 2]
            if body[at] not in KINDS:
                raise Fault(f"names the stream type {body[at]:#x}")
            streams[pid] = KINDS[body[at]]
            at += 5 + ((body[at + 3] & 15) << 8 | body[at + 4])
        if self.pcr_pid not in streams:
            raise Fault(f"names the PCR PID {self.pcr_pid:#x}, which carries no stream")
        if any(self.streams.get(pid, kind) != kind for pid, kind in streams.items()):
            raise Fault(f"changes the streams from {self.streams} to {streams} without a discontinuity")
        self.streams.update(streams)
        self.seen_pmt = True

    # ---- units

    def media(self, number, pid, starts, payload, random_access):
        if starts:
            self.finish(pid)
            if pid == self.pcr_pid and not self.seen_pcr:
                raise Fault("holds the first unit of the PCR's track and no PCR")
            self.open[pid] = Pes(number, random_access)
        if pid not in self.open:
            raise Fault(f"goes on with a unit of PID {pid:#x} that did not begin in this segment")
        self.open[pid].data += payload
        if starts:
            self.begin(pid, self.open[pid])

    def begin(self, pid, pes):
        """Looks at the header, when the clock stands where the unit arrives."""
        data, kind = pes.data, self.streams[pid]
        if data[:3] != b"\0\0\1":
            raise Fault(f"PID {pid:#x} begins a unit without a start code")
        families = (0xE0,) if kind in VIDEO else (0xC0, 0xD0) if kind in ("aac", "mp3") else (0xB0,)
        if data[3] & 0xF0 not in families:
            raise Fault(f"PID {pid:#x} has the stream id {data[3]:#x}")
        if data[6] & 0xC0 != 0x80 or data[7] & 0x80 == 0:
            raise Fault(f"PID {pid:#x} begins a unit without PTS")
        pts = timestamp(data[9:14])
        dts = timestamp(data[14:19]) if data[7] & 0x40 else pts
        if not 0 <= ahead(pts, dts) <= self.options.delay_ms * 90:
            raise Fault(f"PID {pid:#x} has a PTS {ahead(pts, dts) / 90:.3f} ms behind its DTS")
        if pid in self.last_dts and ahead(dts, self.last_dts[pid]) < 0:
            raise Fault(f"PID {pid:#x} has a DTS that goes back by {-ahead(dts, self.last_dts[pid]) / 90:.3f} ms")
        self.last_dts[pid] = dts
        if self.pcr is not None:
            lead = ahead(dts, self.pcr)
            if not 0 <= lead <= self.options.delay_ms * 90:
                raise Fault(f"PID {pid:#x} has a DTS {lead / 90:.3f} ms after the PCR")
            self.lead_most = max(self.lead_most, lead)
            self.lead_least = lead if self.lead_least is None else min(self.lead_least, lead)
        if kind in VIDEO and self.awaits_key:
            self.awaits_key = False
            if not pes.random_access and not self.options.no_random_access:
                raise Fault("holds the segment's first picture, which is no random access point")

    def finish(self, pid):
        pes = self.open.pop(pid, None)
        if pes is None:
            return
        data, kind = bytes(pes.data), self.streams[pid]
        where = f"the unit of PID {pid:#x} that begins in packet {pes.where}"
        said, there = data[4] << 8 | data[5], len(data) - 6
        if said != there and not (said == 0 and kind in VIDEO):
            raise Fault(f"{where} says {said} bytes and has {there}")
        payload = data[9 + data[8] :]
        if not payload:
            raise Fault(f"{where} is empty")
        if kind in DELIMITERS and not payload.startswith(DELIMITERS[kind]):
            raise Fault(f"{where} begins with {payload[:6].hex()}, not with a delimiter")
        if kind == "aac":
            self.adts(where, payload)
        self.units[pid] = self.units.get(pid, 0) + 1

    def adts(self, where, payload):
        at = 0
        while at < len(payload):
            header = payload[at : at + 7]
            if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
                raise Fault(f"{where} has no ADTS header at byte {at}")
            at += max(7, (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5)
        if at != len(payload):
            raise Fault(f"{where} ends inside an ADTS frame")

    def say(self):
        tracks = [f"{count} {self.streams[pid]} units" for pid, count in sorted(self.units.items())]
        lead = f"units {self.lead_least / 90:.1f} to {self.lead_most / 90:.1f} ms behind it" if self.lead_least is not None else "no units"
        return f"{', '.join(tracks)} in {self.segments} segments of {self.packets} packets, PCR at most {self.pcr_gap / 90:.1f} ms apart, {lead}"


def check(groups, options):
    """What there is to say of groups of segments, each one stream cut in pieces."""
    said = []
    for segments in groups:
        checker = Checker(options)
        for segment in segments:
            try:
                checker.segment(Path(segment).read_bytes())
            except (Fault, IndexError, OSError) as fault:
                raise Fault(f"{Path(segment).name}: {fault}") from fault
        said.append(checker.say())
    return "; ".join(said)


# ---------------------------------------------------------------- self-test


def self_test():
    import units

    options = options_of(["x"])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source = units.clip(folder)
        units.ffmpeg("-i", source, "-c", "copy", "-hls_time", "1", "-hls_list_size", "0", folder / "a.m3u8")
        groups = [segments for _, segments in units.playlist_groups(folder / "a.m3u8")]
        assert len(groups) == 1 and len(groups[0]) == 4, groups
        assert "h264" in check(groups, options)
        data = groups[0][0].read_bytes()

        def packets(pid):
            return [at for at in range(0, len(data), PACKET) if (data[at + 1] & 31) << 8 | data[at + 2] == pid]

        def patched(at, value):
            return data[:at] + bytes([value]) + data[at + 1 :]

        pat, pmt, video = packets(0)[0], packets(0x1000)[0], packets(0x100)
        with_clock = next(at for at in video[1:] if data[at + 3] & 0x20 and data[at + 4] > 0 and data[at + 5] & 0x10)
        stuffed = next(at for at in video if data[at + 3] & 0x20 and data[at + 4] > 20)
        pes = video[0] + 5 + data[video[0] + 4]
        faults = {
            "whole packets": data[:-1],
            "sync byte": patched(video[3], 0x48),
            "damaged": patched(video[3] + 1, data[video[3] + 1] | 0x80),
            "continuity counter": data[: video[2]] + data[video[2] + PACKET :],
            "wrong checksum": patched(pmt + 9, data[pmt + 9] ^ 1),
            "in front of the first PAT": data[PACKET * 2 :],
            "in front of the first PMT": data[:pmt] + data[pmt + PACKET :],
            "not 0xff": patched(stuffed + 4 + data[stuffed + 4], 0),
            "goes back by": patched(with_clock + 8, 0),
            "after the last": patched(with_clock + 8, data[with_clock + 8] + 32),
            "no random access point": patched(video[0] + 5, data[video[0] + 5] & ~0x40),
            "without PTS": patched(pes + 7, 0),
            "marker bits": patched(pes + 9, data[pes + 9] & ~1),
            "start code": patched(pes + 2, 2),
            "not with a delimiter": patched(pes + 9 + data[pes + 8] + 4, 1),
        }
        for words, changed in faults.items():
            bad = folder / "bad.ts"
            bad.write_bytes(changed)
            try:
                said = check([[bad]], options)
            except Fault as fault:
                assert words in str(fault), f"{words!r} is not in {fault}"
            else:
                raise AssertionError(f"not noticed: {words}: {said}")
        try:
            check([[groups[0][0], groups[0][2]]], options)
        except Fault as fault:
            assert "continuity counter" in str(fault), fault
        else:
            raise AssertionError("a missing segment was not noticed")
        assert check([[groups[0][0]], [groups[0][2]]], options)
        assert crc32(b"123456789") == 0x0376E6E7
    print("ts_check.py: self-test passed")


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--continuous", action="store_true")
    parser.add_argument("--pcr-ms", type=float, default=100)
    parser.add_argument("--delay-ms", type=float, default=10_000)
    parser.add_argument("--no-random-access", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args(arguments)
    if not options.files and not options.self_test:
        parser.error("name a file")
    return options


def main():
    options = options_of(sys.argv[1:])
    if options.self_test:
        return self_test()
    import units

    jobs = []
    for path in [] if options.continuous else options.files:
        playlist = Path(path).suffix.lower() in (".m3u8", ".m3u")
        jobs.append((path, [segments for _, segments in units.playlist_groups(path)] if playlist else [[path]]))
    if options.continuous:
        jobs.append((f"{len(options.files)} segments", [options.files]))
    faults = 0
    for name, groups in jobs:
        try:
            print(f"{name}: ok: {check(groups, options)}")
        except Fault as fault:
            faults += 1
            print(f"{name}: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
