#!/usr/bin/env python3
"""Says whether an HLS recording holds the units of the pushes that fed it: each once, in order, with the same distances in time.

    stitched.py [--prefix] PLAYLIST PUSH.flv [PUSH.flv...]
    stitched.py --file [--apart] FILE.mp4 PUSH.flv [PUSH.flv...]

The n-th stretch between discontinuities is compared with the n-th push, as compare.py does: same payloads one by one, one constant between
the times of a stretch and of its push for all tracks. With --prefix a stretch may end before its push does. 
In one file pushes are told apart by the number of their units, track by track. No push may begin before the one before it ends; between two there
is less than a second, or with --apart at least one. Ends with 0 and a line of totals, or with 1 and the first difference.
"""

import sys

import compare
import units


def cut(found, sent):
    """The units of one file, push by push."""
    tracks = {track: [unit for unit in found if unit.track == track] for track in ("video", "audio")}
    parts = []
    for push in sent:
        part = []
        for track, units_left in tracks.items():
            count = sum(unit.track == track for unit in push)
            part += units_left[:count]
            tracks[track] = units_left[count:]
        parts.append(part)
    left = sum(map(len, tracks.values()))
    if left:
        sys.exit(f"{left} units belong to no push")
    return parts


def in_one_file(path, pushes, apart):
    sent = [list(units.read(push)) for push in pushes]
    parts = cut(list(units.read(path)), sent)
    end = None
    for push, (was, found) in zip(pushes, zip(sent, parts)):
        try:
            compare.compare(was, found, compare.options_of(["A", "B"]))
        except compare.Different as different:
            sys.exit(f"{path}: what should be {push} is not: {different}")
        begin = min(unit.pts_ms for unit in found)
        if end is not None and begin <= end:
            sys.exit(f"{path}: {push} begins at {begin} ms, the push before it is shown until {end} ms")
        if end is not None and (begin - end > 1000) != apart:
            sys.exit(f"{path}: {push} begins {begin - end} ms behind the one before it")
        end = max(unit.pts_ms for unit in found)
    print(f"{path}: ok: {len(parts)} pushes, {sum(map(len, parts))} units")


def main():
    if "--file" in sys.argv:
        words = [word for word in sys.argv[1:] if word not in ("--file", "--apart")]
        try:
            return in_one_file(words[0], words[1:], "--apart" in sys.argv)
        except units.Unreadable as error:
            sys.exit(str(error))
    words = sys.argv[1:]
    flags = [word for word in words if word == "--prefix"]
    playlist, *pushes = [word for word in words if word not in flags] or [None]
    if not pushes:
        sys.exit(__doc__)
    parts = {}
    try:
        for unit in units.read(playlist):
            parts.setdefault(unit.part, []).append(unit)
        if len(parts) != len(pushes):
            sys.exit(f"{playlist}: {len(parts)} stretches of {len(pushes)} pushes")
        count = 0
        for (part, found), push in zip(sorted(parts.items()), pushes):
            try:
                compare.compare(list(units.read(push)), found, compare.options_of([*flags, "A", "B"]))
            except compare.Different as different:
                sys.exit(f"{playlist}: stretch {part} is not {push}: {different}")
            count += len(found)
    except units.Unreadable as error:
        sys.exit(str(error))
    print(f"{playlist}: ok: {len(parts)} pushes, {count} units")


if __name__ == "__main__":
    main()
