#!/usr/bin/env python3
"""Measures what traces and metrics cost: the same streams in real time, with telemetry and without, in turns.

With it every recording is traced and sent over OTLP to a real receiver (rotel, which throws all away), metrics are sent to it every 15 s, and
/metrics is fetched every 5 s, as a Prometheus does that is in a hurry. CPU is what the operating system accounts to the server's process. What counts is the ratio within a
round, and of the rounds the median. Writes target/bench/telemetry.md and telemetry.json. Ends with 1 where the target is missed.
"""

import argparse
import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import ROOT, Aircheck, accepts, build, say  # noqa: E402  (beside this file)

TARGET = 1.03
SCRAPE_S = 5


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="each with telemetry and without (default 5)")
    parser.add_argument("--streams", type=int, default=200, help="in real time (default 200)")
    parser.add_argument("--bitrate", type=int, default=2_500_000, help="bits a second of each (default 2500000)")
    parser.add_argument("--seconds", type=float, default=30, help="measured part of a run (default 30)")
    parser.add_argument("--warmup", type=float, default=6, help="seconds before it (default 6)")
    parser.add_argument("--formats", default="hls", help="the one with the most spans (default hls)")
    parser.add_argument("--aircheck", type=Path, default=ROOT / "target/release/aircheck", help="binary to measure")
    parser.add_argument("--dir", type=Path, default=ROOT / "target/bench", help="reports, and the recordings meanwhile")
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    options.servers, options.dir = ["aircheck"], options.dir.resolve()
    return options


class Receiver:
    """A real receiver of OTLP. It ends with `stop`."""

    def __init__(self, folder):
        program = next((ROOT / ".tools/venv/lib").glob("*/site-packages/rotel/rotel-agent"), None)
        if program is None:
            raise SystemExit("no rotel below .tools/venv: run deploy/setup/install test")
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            self.port, http = one.getsockname()[1], two.getsockname()[1]
        folder.mkdir(parents=True)
        log = open(folder / "receiver.log", "wb")
        self.process = subprocess.Popen(
            [program, "start", "--exporter", "blackhole", "--otlp-grpc-endpoint", f"127.0.0.1:{self.port}"]
            + ["--otlp-http-endpoint", f"127.0.0.1:{http}"],
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + 30
        while not accepts(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"rotel did not come up: {folder}/receiver.log")
            time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Scraper(threading.Thread):
    """Fetches /metrics as Prometheus does. It ends with `stop`."""

    def __init__(self, http):
        super().__init__(daemon=True)
        self.url, self.over, self.pages = f"http://{http}/metrics", threading.Event(), 0

    def run(self):
        while not self.over.wait(SCRAPE_S):
            with urllib.request.urlopen(self.url, timeout=5) as answer:
                assert b"aircheck_worker_publishes" in answer.read()
            self.pages += 1

    def stop(self):
        self.over.set()
        self.join()


def one(options, folder, receiver):
    """Milliseconds of CPU for a second of a stream; `receiver` is none where nothing is told."""
    more = []
    if receiver:
        more = ["--set", f"telemetry.otlp=http://127.0.0.1:{receiver.port}", "--set", "telemetry.otlp_metrics_interval=15s"]
    server, scraper = Aircheck(folder, options.formats, options.aircheck, more), None
    try:
        if receiver:
            scraper = Scraper(json.loads((folder / "data" / "addresses.json").read_text())["http"])
            scraper.start()
        seconds = options.warmup + options.seconds + 0.5
        load = subprocess.Popen(
            [str(options.loadgen), "--url", server.url, "--streams", str(options.streams), "--seconds", str(seconds)]
            + ["--bitrate", str(options.bitrate)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert json.loads(load.stdout.readline())["event"] == "publishing"
        time.sleep(options.warmup)
        before, begin = server.cpu_seconds(), time.monotonic()
        time.sleep(options.seconds)
        used, length = server.cpu_seconds() - before, time.monotonic() - begin
        load.communicate()
        if scraper:
            scraper.stop()
            assert scraper.pages > 0, "nobody fetched /metrics"
        return 1000 * used / length / options.streams
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    options = arguments()
    work = options.dir / "telemetry-work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    build(options)
    receiver = Receiver(work / "receiver")
    rows = []
    try:
        for number in range(options.rounds):
            row = {}
            # Who begins changes: a machine that grows busier is unfair to nobody.
            for told in (True, False) if number % 2 else (False, True):
                row["with" if told else "without"] = one(options, work / f"{number}-{told}", receiver if told else None)
            row["ratio"] = row["with"] / row["without"]
            rows.append(row)
            say(f"{number + 1}/{options.rounds}: " + " ".join(f"{key} {value:.4f}" for key, value in row.items()))
    finally:
        receiver.stop()
        shutil.rmtree(work, ignore_errors=True)
    median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    met = median["ratio"] <= TARGET
    text = (
        f"{options.streams} streams of {options.bitrate / 1e6:g} Mbit/s as {options.formats}, {options.rounds} rounds, medians; ms of CPU a stream and second\n\n"
        "| Without telemetry | With traces and metrics | Ratio (lowest, highest) | Target | |\n|---|---|---|---|---|\n"
        f"| {median['without']:.3f} | {median['with']:.3f} | {median['ratio']:.3f} ({min(row['ratio'] for row in rows):.3f}, "
        f"{max(row['ratio'] for row in rows):.3f}) | {TARGET} | {'met' if met else 'missed'} |\n"
    )
    (options.dir / "telemetry.json").write_text(json.dumps({"rows": rows, "median": median, "met": met}, indent=1) + "\n")
    (options.dir / "telemetry.md").write_text(text)
    print("\n" + text)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
