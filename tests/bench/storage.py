#!/usr/bin/env python3
"""Measures what object storage costs beside a local directory, and how soon a recording is complete there.

Real-time streams end a few at a time, as they do in the world, or all together with --ends 1, which asks how quickly this machine takes all that
is left of all of them. Of each file it is asked when its last unit arrived and when the library had it, which is when storage had confirmed all of it. Directory and S3 take turns, in another order each round; what is told is the median of the rounds, and CPU as the ratio of
the two within a round. The S3 server is JuiceFS's gateway on the same machine; its CPU is not counted. Writes target/bench/storage.md and
storage.json. Ends with 1 where the target is missed.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import ROOT, Aircheck, accepts, build, say  # noqa: E402  (beside this file)

TARGET_P99_S = 2.0
BUCKET = "recordings"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, default=200, help="at a time (default 200)")
    parser.add_argument("--bitrate", type=int, default=2_500_000, help="bits a second of each (default 2500000)")
    parser.add_argument("--seconds", type=float, default=40, help="length of the shortest stream (default 40)")
    parser.add_argument("--ends", type=int, default=20, help="moments at which they end, in groups (default 20)")
    parser.add_argument("--apart", type=float, default=2, help="seconds between two of these moments (default 2)")
    parser.add_argument("--warmup", type=float, default=8, help="seconds before CPU is counted (default 8)")
    parser.add_argument("--formats", default="mp4,hls+mp4", help="in turn (default mp4,hls+mp4)")
    parser.add_argument("--rounds", type=int, default=3, help="of each format (default 3)")
    parser.add_argument("--aircheck", type=Path, default=ROOT / "target/release/aircheck", help="binary to measure")
    parser.add_argument("--dir", type=Path, default=ROOT / "target/bench", help="reports, and the recordings meanwhile")
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    options.servers, options.dir = ["aircheck"], options.dir.resolve()
    return options


class Gateway:
    """JuiceFS's gateway with one bucket, in a folder of its own."""

    def __init__(self, folder):
        folder.mkdir(parents=True)
        juicefs = str(ROOT / ".tools/venv/bin/juicefs")
        meta = f"sqlite3://{folder}/meta.db"
        log = open(folder / "log", "wb")
        quiet = {"stdout": log, "stderr": log, "check": True}
        subprocess.run([juicefs, "format", "--storage", "file", "--bucket", f"{folder}/data/", meta, "bench"], **quiet)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.env = {
            "AWS_ACCESS_KEY_ID": "bench-access-key",
            "AWS_SECRET_ACCESS_KEY": "bench-secret-key",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        root = {"MINIO_ROOT_USER": self.env["AWS_ACCESS_KEY_ID"], "MINIO_ROOT_PASSWORD": self.env["AWS_SECRET_ACCESS_KEY"]}
        self.process = subprocess.Popen(
            [juicefs, "gateway", "--multi-buckets", "--keep-etag", "--no-usage-report", "--cache-dir", f"{folder}/cache", meta]
            + [f"127.0.0.1:{port}"],
            stdout=log,
            stderr=log,
            env={**os.environ, **root},
        )
        deadline = time.monotonic() + 60
        while not accepts(port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the S3 server did not come up:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        make = [str(ROOT / ".tools/venv/bin/python"), str(ROOT / "tests/support/s3.py"), "make", BUCKET]
        subprocess.run(make, env={**os.environ, **self.env, "AWS_DEFAULT_REGION": "us-east-1"}, check=True)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def ask(options, server, *words):
    grpc = json.loads((server.folder / "data/addresses.json").read_text())["grpc"]
    env = {**os.environ, "AIRCHECK_SERVER": f"http://{grpc}"}
    answer = subprocess.run([str(options.aircheck), *words, "--output", "json"], env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(answer.stdout)


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def share(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def publish(options, server):
    """Starts all streams, in groups that end one after another, and waits until they publish."""
    loads = []
    for group in range(options.ends):
        count = options.streams // options.ends + (group < options.streams % options.ends)
        if count == 0:
            continue
        command = [str(options.loadgen), "--url", server.url, "--streams", str(count), "--prefix", f"g{group}s"]
        command += ["--seconds", str(options.seconds + group * options.apart), "--bitrate", str(options.bitrate)]
        loads.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    for load in loads:
        if json.loads(load.stdout.readline() or "{}").get("event") != "publishing":
            raise SystemExit("the load did not start")
    return loads


def one(options, formats, sink, folder):
    gateway = Gateway(folder / "s3") if sink == "s3" else None
    more = ["--objects", f"s3://{BUCKET}/bench"] if gateway else []
    server = Aircheck(folder / "server", formats, options.aircheck, more, gateway.env if gateway else {})
    try:
        loads = publish(options, server)
        time.sleep(options.warmup)
        before, begin = server.cpu_seconds(), time.monotonic()
        time.sleep(max(1, options.seconds - options.warmup - 2))
        cpu, length = server.cpu_seconds() - before, time.monotonic() - begin
        for load in loads:
            load.communicate()
        wanted = options.streams * len(formats.split("+"))
        deadline = time.monotonic() + 300
        while len(files := ask(options, server, "file", "list")["files"]) < wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(files)} of {wanted} files after five minutes")
            time.sleep(1)
        late = [moment(file["committed"]) - moment(file["end"]) for file in files]
        return {
            "formats": formats,
            "sink": sink,
            "streams": options.streams,
            "load_average": os.getloadavg()[0],
            "ms_per_stream_second": round(1000 * cpu / length / options.streams, 3),
            "files": len(files),
            "complete_p50_s": round(share(late, 0.5), 2),
            "complete_p99_s": round(share(late, 0.99), 2),
            "complete_max_s": round(max(late), 2),
        }
    finally:
        server.stop()
        if gateway:
            gateway.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    options = arguments()
    work = options.dir / "storage-work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    build(options)
    rounds = []
    for formats in options.formats.split(","):
        for number in range(options.rounds):
            sinks = ["directory", "s3"] if number % 2 == 0 else ["s3", "directory"]
            for sink in sinks:
                rounds.append(one(options, formats, sink, work / f"{len(rounds):02}"))
                say(json.dumps(rounds[-1]))
    shutil.rmtree(work, ignore_errors=True)
    rows = [summary(formats, sink, rounds) for formats in options.formats.split(",") for sink in ("directory", "s3")]
    met = all(row["complete_p99_s"] <= TARGET_P99_S for row in rows)
    (options.dir / "storage.json").write_text(json.dumps({"met": met, "medians": rows, "rounds": rounds}, indent=1) + "\n")
    report = table(options, rows, rounds, met)
    (options.dir / "storage.md").write_text(report)
    print("\n" + report)
    sys.exit(0 if met else 1)


def summary(formats, sink, rounds):
    """The medians of one sink; its CPU as a multiple of the directory's in the same round."""
    ours = [row for row in rounds if (row["formats"], row["sink"]) == (formats, sink)]
    plain = [row for row in rounds if (row["formats"], row["sink"]) == (formats, "directory")]
    keys = ["ms_per_stream_second", "complete_p50_s", "complete_p99_s", "complete_max_s"]
    ratios = [a["ms_per_stream_second"] / b["ms_per_stream_second"] for a, b in zip(ours, plain)]
    row = {"formats": formats, "sink": sink, "files": ours[0]["files"], "cpu_ratio": round(statistics.median(ratios), 2)}
    return row | {key: round(statistics.median(each[key] for each in ours), 3) for key in keys}


def table(options, rows, rounds, met):
    names = ["formats", "sink", "files", "ms of CPU a stream and second", "of the directory's", "complete p50, s", "p99, s", "max, s"]
    keys = ["formats", "sink", "files", "ms_per_stream_second", "cpu_ratio", "complete_p50_s", "complete_p99_s", "complete_max_s"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows]
    loads = [row["load_average"] for row in rounds]
    lines += [
        "",
        f"{options.streams} streams of {options.bitrate / 1e6:g} Mbit/s for {options.seconds:g} s and more, ending at {options.ends} moments {options.apart:g} s apart; medians of {options.rounds} rounds.",
        f"Target: p99 of complete ≤ {TARGET_P99_S:g} s: {'met' if met else 'NOT met'}. Load average {min(loads):.1f} to {max(loads):.1f}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
