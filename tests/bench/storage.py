#!/usr/bin/env python3
"""Measures what object storage costs beside a local directory, and how soon a recording is complete there.

Real-time streams end together; of each file it is asked when its last unit arrived and when the library had it, which is when storage had
confirmed all of it. The S3 server is JuiceFS's gateway on the same machine; its CPU is not counted. Writes target/bench/storage.md and storage.json.
"""

import argparse
import json
import os
import shutil
import signal
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
    parser.add_argument("--streams", type=int, default=200, help="that end together (default 200)")
    parser.add_argument("--bitrate", type=int, default=2_500_000, help="bits a second of each (default 2500000)")
    parser.add_argument("--seconds", type=float, default=40, help="length of each stream (default 40)")
    parser.add_argument("--warmup", type=float, default=8, help="seconds before CPU is counted (default 8)")
    parser.add_argument("--formats", default="mp4,hls+mp4", help="in turn (default mp4,hls+mp4)")
    parser.add_argument("--sinks", default="directory,s3")
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
        import socket

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


def one(options, formats, sink, folder):
    gateway = Gateway(folder / "s3") if sink == "s3" else None
    more = ["--objects", f"s3://{BUCKET}/bench"] if gateway else []
    server = Aircheck(folder / "server", formats, options.aircheck, more, gateway.env if gateway else {})
    try:
        command = [str(options.loadgen), "--url", server.url, "--streams", str(options.streams)]
        command += ["--seconds", str(options.seconds), "--bitrate", str(options.bitrate)]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if json.loads(load.stdout.readline() or "{}").get("event") != "publishing":
            raise SystemExit("the load did not start")
        time.sleep(options.warmup)
        before, begin = server.cpu_seconds(), time.monotonic()
        time.sleep(max(1, options.seconds - options.warmup - 2))
        cpu, length = server.cpu_seconds() - before, time.monotonic() - begin
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
    rows = []
    for formats in options.formats.split(","):
        for sink in options.sinks.split(","):
            rows.append(one(options, formats, sink, work / f"{len(rows):02}"))
            say(json.dumps(rows[-1]))
    shutil.rmtree(work, ignore_errors=True)
    heading = ["formats", "sink", "streams", "ms_per_stream_second", "files", "complete_p50_s", "complete_p99_s", "complete_max_s"]
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    lines += ["| " + " | ".join(str(row[key]) for key in heading) + " |" for row in rows]
    met = all(row["complete_p99_s"] <= TARGET_P99_S for row in rows)
    lines.append(f"\nTarget: p99 of complete ≤ {TARGET_P99_S} s: {'met' if met else 'NOT met'}. Load average {rows[-1]['load_average']:.1f}.")
    report = "\n".join(lines) + "\n"
    (options.dir / "storage.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.dir / "storage.md").write_text(report)
    print("\n" + report)


if __name__ == "__main__":
    main()
