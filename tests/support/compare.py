#!/usr/bin/env python3
"""Says whether files hold the access units of another: each once, in order, with the same distances in time.

    compare.py A B [B...]     the units of all Bs behind each other (cut files, parts of a playlist) are those of A
    compare.py --self-test    needs ffmpeg on the path

A and B are anything that units.py reads. For each track the payloads must be the same, one by one. Each part of B (a file, or
a stretch between discontinuities of a playlist) may stand apart from A by one constant, the same for decode and presentation
times and for all tracks: so the distances within a track and the offset between sound and pictures are the same, to
--tolerance-ms (default 0: exact). Decode times that a demuxer does not tell are not compared; they are counted.

What a format cannot say is not asked for, and said so: ADTS and MP3 files carry no times, and sound alone.

    --tracks video|audio      compare that track only (an AAC file with an FLV that has pictures)
    --prefix                  B may end before A does: what is missing at the end is reported, not a fault
    --within                  B may begin and end inside A: a contiguous stretch of each track
    --max-missing-ms N        with these: a fault if the last unit of B is more than N ms before the last of A
    --decode-shift            decode times may stand apart from presentation times by a constant of their own for each track
    --no-key                  do not compare the key flags
    --json                    one JSON object on standard output instead of words

Ends with 0 if they are equal, 1 if not (the first difference in words), 2 if a file cannot be read.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import units as reader

ROUNDING_MS = 0.002  # units.py prints thousandths


class Different(Exception):
    """The first difference, in words."""


def by_track(units, only):
    tracks = {}
    for unit in units:
        if only in (None, unit.track):
            tracks.setdefault(unit.track, []).append(unit)
    return tracks


def describe(unit):
    timed = f"dts {unit.dts_ms} pts {unit.pts_ms} ms, " if unit.timed else ""
    return f"{timed}{'key, ' if unit.key else ''}{unit.size} bytes, sha256 {unit.sha256[:12]}"


def candidates(sent, found, within):
    """Where in `sent` the units of `found` may begin."""
    if not within or not found:
        return [0]
    return [at for at, unit in enumerate(sent) if unit.sha256 == found[0].sha256]


def payloads_agree(track, sent, found, start, prefix):
    """Raises at the first unit whose payload differs."""
    for at, unit in enumerate(found):
        if start + at >= len(sent):
            raise Different(f"{track}: B has {len(found) - at} units more than A, the first of them unit {at}: {describe(unit)}")
        other = sent[start + at]
        if (unit.sha256, unit.size) != (other.sha256, other.size):
            words = f"{track}: unit {at} of B is {describe(unit)}; in A unit {start + at} is {describe(other)}"
            elsewhere = [n for n, one in enumerate(sent) if one.sha256 == unit.sha256]
            if elsewhere:
                nearest = min(elsewhere, key=lambda n: abs(n - start - at))
                step = nearest - start - at
                words += f"; A has that payload {abs(step)} unit{'s'[: abs(step) != 1]} {'later' if step > 0 else 'earlier'}"
            raise Different(words)
    missing = len(sent) - start - len(found)
    if missing and not prefix:
        raise Different(f"{track}: B ends {missing} units before A does; the first that is missing: {describe(sent[start + len(found)])}")


def start_in(track, sent, found, options):
    """Where in A the track's units begin in B, by payload; with `--within` by time too where payloads repeat."""
    starts, first_fault = [], None
    for start in candidates(sent, found, options.within):
        try:
            payloads_agree(track, sent, found, start, options.prefix or options.within)
            starts.append(start)
        except Different as fault:
            first_fault = first_fault or fault
    if not starts:
        raise first_fault or Different(f"{track}: A has no unit like the first of B: {describe(found[0])}")
    return starts


class Times:
    """The constants between B and A, one for each part."""

    def __init__(self, options):
        self.options = options
        self.presentation = {}
        self.decode = {}
        self.unknown = 0

    def agree(self, table, key, sent_ms, found_ms, words):
        if sent_ms is None or found_ms is None:
            self.unknown += 1
            return
        offset = found_ms - sent_ms
        known, first = table.setdefault(key, (offset, words))
        if abs(offset - known) > self.options.tolerance_ms + ROUNDING_MS:
            raise Different(f"{words} stands {offset - known:+.3f} ms off: {first} stands {known:.3f} ms from A, this one {offset:.3f} ms")

    def compare(self, track, at, sent, found):
        name = f"{track}: unit {at} (part {found.part})"
        self.agree(self.presentation, found.part, sent.pts_ms, found.pts_ms, f"the presentation time of {name}")
        if self.options.decode_shift:
            self.agree(self.decode, (found.part, track), sent.dts_ms, found.dts_ms, f"the decode time of {name}")
        else:
            self.agree(self.presentation, found.part, sent.dts_ms, found.dts_ms, f"the decode time of {name}")


def compare(a, b, options):
    """What to say of equal files; raises `Different`."""
    sent, found = by_track(a, options.tracks), by_track(b, options.tracks)
    if set(sent) != set(found) and not (options.prefix or options.within) or set(found) - set(sent):
        raise Different(f"A has {' and '.join(sorted(sent)) or 'nothing'}, B has {' and '.join(sorted(found)) or 'nothing'}")
    if not sent:
        raise Different("A has no unit to compare")
    for unit in (unit for units in found.values() for unit in units if unit.discard):
        raise Different(f"{unit.track}: an edit list hides {describe(unit)} from players")
    starts = {track: start_in(track, sent[track], units, options) for track, units in found.items()}
    times = Times(options)
    # Where payloads repeat, the track that has one place only says where the others are in time.
    result = {"equal": True, "tracks": {}, "timed": all(unit.timed for units in found.values() for unit in units)}
    for track in sorted(found, key=lambda track: len(starts[track])):
        fault = None
        for start in starts[track]:
            attempt = Times(options)
            attempt.presentation, attempt.decode = dict(times.presentation), dict(times.decode)
            attempt.unknown = times.unknown
            try:
                for at, unit in enumerate(found[track]):
                    other = sent[track][start + at]
                    if not options.no_key and unit.key != other.key:
                        raise Different(f"{track}: unit {at} is {'a' if unit.key else 'no'} key in B, in A it is {'one' if other.key else 'none'}")
                    if unit.timed and other.timed:
                        attempt.compare(track, at, other, unit)
            except Different as different:
                fault = fault or different
                continue
            times, fault = attempt, None
            break
        if fault:
            raise fault
        result["tracks"][track] = ends(sent[track], found[track], start)
    result["offset_ms"] = {str(part): round(offset, 3) for part, (offset, _) in sorted(times.presentation.items())}
    result["decode_offset_ms"] = {f"{part} {track}": round(offset, 3) for (part, track), (offset, _) in sorted(times.decode.items())}
    result["unknown_times"] = times.unknown
    last = {track: report["missing_end_ms"] or 0 for track, report in result["tracks"].items()}
    if options.max_missing_ms is not None and max(last.values()) > options.max_missing_ms:
        raise Different(f"B ends too early: {last} ms before A, more than {options.max_missing_ms}")
    return result


def ends(sent, found, start):
    """What of A is not in B."""
    end = start + len(found)
    timed = sent[-1].dts_ms is not None and found and sent[end - 1].dts_ms is not None
    return {
        "units": len(found),
        "missing_start": start,
        "missing_end": len(sent) - end,
        "missing_end_ms": round(sent[-1].dts_ms - sent[end - 1].dts_ms, 3) if timed else None,
    }


def say(result):
    words = [f"{report['units']} {track} units" for track, report in sorted(result["tracks"].items())]
    print(f"equal: {', '.join(words)}; B stands from A by (part: ms) {result['offset_ms']}")
    if not result["timed"]:
        print("times not compared: the format carries none")
    if result["unknown_times"]:
        print(f"{result['unknown_times']} times not compared: the demuxer does not tell them")
    if result["decode_offset_ms"]:
        print(f"decode times stand from A by (part track: ms) {result['decode_offset_ms']}")
    for track, report in sorted(result["tracks"].items()):
        if report["missing_start"] or report["missing_end"]:
            print(f"{track}: of A, {report['missing_start']} units before and {report['missing_end']} behind ({report['missing_end_ms']} ms) are not in B")


# ---------------------------------------------------------------- self-test


def self_test():
    def difference(a, b, *flags):
        try:
            return compare(a, b, options_of(["A", "B", *flags]))
        except Different as different:
            return str(different)

    def shifted(units, by, **changes):
        return [reader.Unit(**{**vars(unit), "dts_ms": unit.dts_ms + by, "pts_ms": unit.pts_ms + by, **changes}) for unit in units]

    with tempfile.TemporaryDirectory() as folder:
        source = reader.clip(folder)
        sent = list(reader.read(source))
        for name, flags in {"a.mp4": ["-video_track_timescale", "1000"], "a.ts": ["-pes_payload_size", "0"]}.items():
            reader.ffmpeg("-i", source, "-c", "copy", *flags, Path(folder) / name)
            result = difference(sent, list(reader.read(Path(folder) / name)), "--tolerance-ms", "1")
            assert isinstance(result, dict), f"{name}: {result}"
        reader.ffmpeg("-i", source, "-vn", "-c", "copy", Path(folder) / "a.aac")
        result = difference(sent, list(reader.read(Path(folder) / "a.aac")), "--tracks", "audio")
        assert result["timed"] is False and result["tracks"]["audio"]["units"] > 100, result

    assert difference(sent, sent)["offset_ms"] == {"0": 0}
    assert difference(sent, shifted(sent, 1400.5))["offset_ms"] == {"0": 1400.5}
    half = len(sent) // 2
    cut = sent[:half] + shifted(sent[half:], -1000, part=1)
    assert difference(sent, cut)["offset_ms"] == {"0": 0, "1": -1000}

    video = [at for at, unit in enumerate(sent) if unit.track == "video"]
    audio = [at for at, unit in enumerate(sent) if unit.track == "audio"]
    change = lambda at, **changes: sent[:at] + shifted(sent[at : at + 1], 0, **changes) + sent[at + 1 :]
    faults = {
        "video: B ends 1 units before A": [unit for at, unit in enumerate(sent) if at != video[-1]],
        "A has that payload 1 unit later": [unit for at, unit in enumerate(sent) if at != video[7]],
        "A has that payload 1 unit earlier": sent[: video[7]] + [sent[video[7]]] + sent[video[7] :],
        "B has 1 units more": sent + [sent[video[-1]]],
        "video: unit 9 of B": change(video[9], sha256="0" * 64),
        "presentation time of video: unit 9 (part 0) stands +1.000 ms off": change(video[9], pts_ms=sent[video[9]].pts_ms + 1),
        "decode time of video: unit 9 (part 0) stands -2.000 ms off": change(video[9], dts_ms=sent[video[9]].dts_ms - 2),
        "is no key in B": change(video[0], key=False),
        "an edit list hides": change(video[3], discard=True),
        "A has audio and video, B has video": [sent[at] for at in video],
    }
    for words, found in faults.items():
        said = difference(sent, found)
        assert isinstance(said, str) and words in said, f"{words!r} is not in {said!r}"
    late_sound = [unit if unit.track == "video" else shifted([unit], 2)[0] for unit in sent]
    assert "audio: unit 0" in difference(sent, late_sound) or "video: unit 0" in difference(sent, late_sound)
    assert isinstance(difference(sent, late_sound, "--tolerance-ms", "2"), dict)
    assert isinstance(difference(sent, change(video[0], key=False), "--no-key"), dict)
    decoded_late = [shifted([unit], 0, dts_ms=unit.dts_ms + 80)[0] if unit.track == "video" else unit for unit in sent]
    assert isinstance(difference(sent, decoded_late), str)
    assert difference(sent, decoded_late, "--decode-shift")["decode_offset_ms"] == {"0 audio": 0, "0 video": 80}

    result = difference(sent, sent[: video[-5]], "--prefix")
    assert result["tracks"]["video"]["missing_end"] == 5 and result["tracks"]["video"]["missing_end_ms"] == 200, result
    assert "ends too early" in difference(sent, sent[: video[-5]], "--prefix", "--max-missing-ms", "150")
    result = difference(sent, shifted(sent[video[4] : video[20]], 7), "--within")
    assert result["tracks"]["video"]["missing_start"] == 4 and result["offset_ms"] == {"0": 7}, result
    silent = [shifted([unit], 0, sha256="1" * 64, size=9)[0] if unit.track == "audio" else unit for unit in sent]
    result = difference(silent, shifted(silent[audio[50] :], -300), "--within")
    assert result["tracks"]["audio"]["missing_start"] == 50, "the pictures say where silence is"
    print("compare.py: self-test passed")


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", nargs="?", metavar="A")
    parser.add_argument("b", nargs="*", metavar="B")
    parser.add_argument("--tracks", choices=["video", "audio"])
    parser.add_argument("--tolerance-ms", type=float, default=0)
    parser.add_argument("--prefix", action="store_true")
    parser.add_argument("--within", action="store_true")
    parser.add_argument("--max-missing-ms", type=float)
    parser.add_argument("--decode-shift", action="store_true")
    parser.add_argument("--no-key", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args(arguments)
    if not options.self_test and not options.b:
        parser.error("name A and at least one B")
    return options


def main():
    options = options_of(sys.argv[1:])
    if options.self_test:
        return self_test()
    try:
        result = compare(list(reader.read(options.a)), list(reader.read_all(options.b)), options)
    except reader.Unreadable as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except Different as different:
        if options.json:
            print(json.dumps({"equal": False, "difference": str(different)}))
        else:
            print(f"different: {different}", file=sys.stderr)
        sys.exit(1)
    if options.json:
        print(json.dumps(result))
    else:
        say(result)


if __name__ == "__main__":
    main()
