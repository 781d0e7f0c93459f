#!/usr/bin/env python3
"""Lists the numbered frames of a media file as an independent demuxer finds them.

    frame_numbers.py FILE...

Prints one line of JSON for each file: {"video": [[number, dts_ms, pts_ms], ...], "audio": [...]} in file order.
A frame without a number is an error.
"""

import json
import re
import sys

import av

# A start code, delimiter and parameter sets may come before the number, and an MPEG-TS demuxer keeps them.
HEAD_LEN = 256
av.logging.set_level(av.logging.PANIC)  # the frames demux but do not decode


def main(path):
    found = {"video": [], "audio": []}
    with av.open(path) as container:
        for packet in container.demux():
            if packet.size == 0:
                continue
            kind = packet.stream.type
            head = bytes(packet)[:HEAD_LEN]
            number = re.search(b"va"[kind == "audio" :][:1] + rb"(\d{12})", head)
            if number is None:
                sys.exit(f"{path}: a {kind} packet of {packet.size} bytes at {packet.dts} has no number")
            ms = [round(1000 * time * packet.time_base, 3) if time is not None else None for time in (packet.dts, packet.pts)]
            found[kind].append([int(number[1]), *[None if m is None else float(m) for m in ms]])
    print(json.dumps(found))


if __name__ == "__main__":
    for file in sys.argv[1:]:
        main(file)
