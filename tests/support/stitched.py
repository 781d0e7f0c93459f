#!/usr/bin/env python3
"""Says whether an HLS recording holds the units of the pushes that fed it: each once, in order, with the same distances in time.

    stitched.py [--prefix] PLAYLIST PUSH.flv [PUSH.flv...]

The n-th stretch between discontinuities is compared with the n-th push, as compare.py does: same payloads one by one, one constant between
the times of a stretch and of its push for all tracks. With --prefix a stretch may end before its push does. Ends with 0 and a line of totals, or with 1 and the first difference.
"""

import sys

import compare
import units


def main():
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
