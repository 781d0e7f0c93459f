#!/usr/bin/env python3
"""Measures what recording costs: aircheck beside nginx's RTMP module, under the same load, in alternating runs.

CPU is what the operating system accounts to the server's processes (/proc/PID/stat, all threads), never wall time.
The machine may be noisy, so what counts is the ratio within a round, and of the rounds the median.
Writes target/bench/report.md and report.json. Needs root or not; as root it raises the priority of what it measures.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
RTMP_MODULE = "/usr/lib/nginx/modules/ngx_rtmp_module.so"

# Name, server and what it writes; then the peer it is measured against, and how much of its CPU it may take.
NGINX_FLV, NGINX_HLS = ("nginx-rtmp", "flv"), ("nginx-rtmp", "hls")
REALTIME_TARGETS = {
    "flv": (NGINX_FLV, 0.45),
    "hls": (NGINX_HLS, 0.40),
    "mp4": (NGINX_FLV, 0.50),
    "flv+hls+mp4": (NGINX_FLV, 0.80),
}
# CPU-seconds a gigabyte, as fast as the socket gives; nginx-rtmp's own figure stands beside it.
FLAT_TARGETS = {"flv": 0.9, "hls": 2.0, "mp4": 1.5}
PSS_TARGET_KB = 150
HELD_BACK_TARGET_MS = 100


def main():
    options = arguments()
    work = options.dir / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    build(options)
    bench = Bench(options, work)
    try:
        bench.run()
    except KeyboardInterrupt:
        say("interrupted: reporting what there is")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report = bench.report()
    (options.dir / "report.json").write_text(json.dumps(bench.as_json(), indent=1) + "\n")
    (options.dir / "report.md").write_text(report)
    print("\n" + report)
    say(f"also in {options.dir}/report.md and report.json")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="rounds of alternating runs (default 5)")
    parser.add_argument("--streams", type=int, default=200, help="streams in real time (default 200)")
    parser.add_argument("--bitrate", type=int, default=2_500_000, help="bits a second of each (default 2500000)")
    parser.add_argument("--seconds", type=float, default=30, help="measured part of a real-time run (default 30)")
    parser.add_argument("--warmup", type=float, default=6, help="seconds before it (default 6)")
    parser.add_argument("--flat-connections", type=int, default=8)
    parser.add_argument("--flat-megabytes", type=float, default=2000, help="sent in one flat-out run (default 2000)")
    parser.add_argument("--formats", default="flv,hls,mp4,flv+hls+mp4", help="of these, e.g. --formats hls")
    parser.add_argument("--modes", default="realtime,flat")
    parser.add_argument("--servers", default="nginx-rtmp,aircheck")
    parser.add_argument("--aircheck", type=Path, default=ROOT / "target/release/aircheck", help="binary to measure")
    parser.add_argument("--dir", type=Path, default=ROOT / "target/bench", help="reports, and the recordings meanwhile")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one round, short")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds, options.warmup = 1, 12, 4
        options.flat_megabytes = 500
    options.formats = options.formats.split(",")
    options.modes = options.modes.split(",")
    options.servers = options.servers.split(",")
    options.aircheck = options.aircheck.resolve()
    options.dir = options.dir.resolve()
    return options


def say(words):
    print(f"bench: {words}", file=sys.stderr, flush=True)


def build(options):
    options.loadgen = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/loadgen"
    if options.no_build:
        return
    packages = ["-p", "loadgen"] + (["-p", "aircheck"] if "aircheck" in options.servers else [])
    say("building the release binaries")
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *packages], cwd=ROOT, check=True)


def prioritize():
    """Before exec: a group of its own, and ahead of other work on the machine if that is allowed."""
    os.setsid()
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        Path("/proc/self/autogroup").write_text("-10")
    except OSError:
        pass


class Server:
    """A server of its own in a folder of its own, and what it uses."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        self.process = None

    def spawn(self, command, **env):
        log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prioritize, env={**os.environ, **env}
        )

    def await_true(self, condition, what):
        deadline = time.monotonic() + 30
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{what} did not come up:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def pids(self):
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[2]) == self.process.pid:
                    found.append(int(entry))
        return found

    def cpu_seconds(self):
        if self.process.poll() is not None:
            raise SystemExit(f"the server died:\n{(self.folder / 'log').read_text()[-2000:]}")
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total * TICK_SECONDS

    def memory_kb(self):
        pss = rss = 0
        for pid in self.pids():
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            pss += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
            rss += int(re.search(r"^Rss:\s+(\d+)", text, re.M)[1])
        return pss, rss

    def await_idle(self):
        """Until it has used (nearly) no CPU for a second: files finished, nothing left to write."""
        deadline = time.monotonic() + 120
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(1)
            now = self.cpu_seconds()
            if now - before <= 0.03:
                return
            before = now
        say("the server did not come to rest within two minutes")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            say("the server did not stop within a minute of SIGTERM")
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Nginx(Server):
    name = "nginx-rtmp"

    def __init__(self, folder, formats):
        super().__init__(folder)
        self.media = folder / "media"
        self.media.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        record = {
            "flv": f"record all; record_path {self.media};",
            "hls": f"hls on; hls_path {self.media}; hls_fragment 6s; hls_playlist_length 10h; hls_cleanup off;",
        }[formats]
        config = folder / "nginx.conf"
        config.write_text(
            f"load_module {RTMP_MODULE}; worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/log warn;\n"
            + ("user root;\n" if os.getuid() == 0 else "")
            + "events { worker_connections 8192; }\n"
            f"rtmp {{ access_log off; server {{ listen 127.0.0.1:{self.port}; chunk_size 4096;\n"
            f"  application live {{ live on; {record} }} }} }}\n"
        )
        self.spawn([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(config), "-p", str(folder)])
        self.await_true(lambda: (folder / "pid").exists() and accepts(self.port), "nginx")
        self.url = f"rtmp://127.0.0.1:{self.port}/live"


class Aircheck(Server):
    name = "aircheck"

    def __init__(self, folder, formats, binary, more=(), env=None):
        super().__init__(folder)
        data = folder / "data"
        self.media = data / "objects"
        self.spawn(
            [str(binary), "standalone", "--data-dir", str(data), "--record", formats.replace("+", ",")]
            + ["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *more],
            **(env or {}),
        )
        addresses = data / "addresses.json"
        self.await_true(addresses.exists, "aircheck")
        self.url = f"rtmp://{json.loads(addresses.read_text())['rtmp']}/live"


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Bench:
    def __init__(self, options, work):
        self.options = options
        self.work = work
        self.rows = []
        self.number = 0

    def subjects(self, mode):
        """Which (server, formats) to run, peers first."""
        peers = {REALTIME_TARGETS[f][0] for f in self.options.formats if f in REALTIME_TARGETS}
        if mode == "flat":
            peers = {("nginx-rtmp", f) for f in self.options.formats if f in ("flv", "hls")}
        ours = {("aircheck", f) for f in self.options.formats if mode == "realtime" or f in FLAT_TARGETS}
        wanted = sorted(peers, reverse=True) + sorted(ours)
        return [subject for subject in wanted if subject[0] in self.options.servers]

    def run(self):
        for mode in self.options.modes:
            for round_number in range(self.options.runs):
                for server, formats in self.subjects(mode):
                    self.rows.append(row := self.one(mode, server, formats, round_number))
                    say(
                        f"{mode} {round_number + 1}/{self.options.runs} {server} {formats}: "
                        + " ".join(f"{key}={value}" for key, value in row.items() if key in SHOWN and value is not None)
                    )

    def one(self, mode, server_name, formats, round_number):
        self.number += 1
        folder = self.work / f"{self.number:03}"
        if server_name == "aircheck":
            server = Aircheck(folder, formats, self.options.aircheck)
        else:
            server = Nginx(folder, formats)
        try:
            time.sleep(1)  # what it does once at start is no part of the load
            idle_pss, idle_rss = server.memory_kb()
            base = {
                "mode": mode,
                "server": server_name,
                "formats": formats,
                "round": round_number,
                "load_average": os.getloadavg()[0],
                "idle_pss_kb": idle_pss,
            }
            measured = self.realtime(server) if mode == "realtime" else self.flat(server)
            pss, rss = measured.pop("memory")
            streams = measured["streams"]
            sizes = [path.stat().st_size for path in server.media.rglob("*") if path.is_file()]
            return {
                **base,
                **measured,
                "pss_kb_per_stream": round((pss - idle_pss) / streams, 1),
                "rss_kb_per_stream": round((rss - idle_rss) / streams, 1),
                "files": len(sizes),
                "disk_over_sent": round(sum(sizes) / measured["bytes_sent"], 4),
            }
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def load(self, server, *arguments):
        command = [str(self.options.loadgen), "--url", server.url, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=prioritize)
        first = json.loads(process.stdout.readline() or "{}")
        if first.get("event") != "publishing":
            raise SystemExit(f"the load did not start; the server's log ends:\n{(server.folder / 'log').read_text()[-2000:]}")
        return process

    def finish(self, process):
        lines = [json.loads(line) for line in process.communicate()[0].splitlines()]
        return next(line for line in lines if line["event"] == "done")

    def realtime(self, server):
        options = self.options
        start = server.cpu_seconds()
        seconds = options.warmup + options.seconds
        load = self.load(
            server,
            *["--streams", str(options.streams), "--seconds", str(seconds + 0.5), "--bitrate", str(options.bitrate)],
        )
        time.sleep(options.warmup)
        before, begin = server.cpu_seconds(), time.monotonic()
        memory = (0, 0)
        while (left := begin + options.seconds - time.monotonic()) > 0:
            time.sleep(min(left, 5))
            memory = max(memory, server.memory_kb())
        window, length = server.cpu_seconds() - before, time.monotonic() - begin
        done = self.finish(load)
        server.await_idle()
        whole = server.cpu_seconds() - start
        return {
            "streams": options.streams,
            "ms_per_stream_second": round(1000 * window / length / options.streams, 4),
            # Opening, beginning and finishing each stream: all that the steady rate does not explain, work put off included.
            "ms_per_recording": round(1000 * (whole - window / length * done["media_seconds"] / options.streams) / options.streams, 2),
            "memory": memory,
            **common(done),
        }

    def flat(self, server):
        options = self.options
        start = server.cpu_seconds()
        load = self.load(
            server,
            *["--streams", str(options.flat_connections), "--rate", "flat", "--stagger", "0.1", "--seconds", "120"],
            *["--megabytes", str(options.flat_megabytes), "--bitrate", str(options.bitrate)],
        )
        memory = server.memory_kb()
        while load.poll() is None:
            memory = max(memory, server.memory_kb())
            time.sleep(0.2)
        done = self.finish(load)
        server.await_idle()
        whole = server.cpu_seconds() - start
        return {
            "streams": options.flat_connections,
            "cpu_seconds_per_gb": round(whole / (done["bytes_sent"] / 1e9), 4),
            "mb_per_second": round(done["bytes_sent"] / 1e6 / done["seconds"]),
            "memory": memory,
            **common(done),
        }

    def values(self, mode, server, formats, key):
        rows = [r for r in self.rows if (r["mode"], r["server"], r["formats"]) == (mode, server, formats)]
        return [r[key] for r in sorted(rows, key=lambda r: r["round"]) if r.get(key) is not None]

    def ratios(self, formats, key):
        (peer_name, peer_formats), _ = REALTIME_TARGETS[formats]
        ours = self.values("realtime", "aircheck", formats, key)
        peer = self.values("realtime", peer_name, peer_formats, key)
        return [a / b for a, b in zip(ours, peer) if b]

    def targets(self):
        """What was promised: (words, median, range, bound, met)."""
        found = []

        def judge(words, values, bound):
            if values:
                median = statistics.median(values)
                found.append((words, median, (min(values), max(values)), bound, median <= bound))

        for formats, (peer, bound) in REALTIME_TARGETS.items():
            if formats in self.options.formats:
                words = f"{formats}: CPU over {' '.join(peer)}"
                judge(words, self.ratios(formats, "ms_per_stream_second"), bound)
        for formats, bound in FLAT_TARGETS.items():
            judge(f"{formats}: CPU-seconds a GB, flat out", self.values("flat", "aircheck", formats, "cpu_seconds_per_gb"), bound)
        for formats in self.options.formats:
            of = lambda key: self.values("realtime", "aircheck", formats, key)
            judge(f"{formats}: PSS above idle, kB a stream", of("pss_kb_per_stream"), PSS_TARGET_KB)
            judge(f"{formats}: publishers held back, ms at most", of("held_back_ms"), HELD_BACK_TARGET_MS)
            judge(f"{formats}: failed streams", of("failures"), 0)
        return found

    def as_json(self):
        names = ("target", "median", "range", "bound", "met")
        return {
            "machine": machine(),
            "options": {key: str(value) for key, value in vars(self.options).items()},
            "rows": self.rows,
            "targets": [dict(zip(names, target)) for target in self.targets()],
        }

    def report(self):
        o = self.options
        lines = [
            "# What recording costs",
            "",
            f"{machine()}.",
            f"{o.runs} alternating rounds. Real time: {o.streams} streams of {o.bitrate / 1e6:g} Mbit/s, {o.seconds:g} s after"
            f" {o.warmup:g} s of warm-up. Flat out: {o.flat_connections} connections, {o.flat_megabytes:g} MB.",
            "CPU is the server's own, by /proc/PID/stat; it leaves out kernel write-back and, on loopback, TCP's receiving half, for all alike.",
            "",
        ]
        for mode, key, unit in (
            ("realtime", "ms_per_stream_second", "CPU ms per stream-second, steady"),
            ("flat", "cpu_seconds_per_gb", "CPU-seconds a GB"),
        ):
            rows = [r for r in self.rows if r["mode"] == mode]
            if not rows:
                continue
            fixed = "ms_per_recording"
            lines += [
                f"| {mode}: server | writes | {unit} | range | CPU ms to begin and finish one | PSS kB/stream | RSS kB/stream | held back ms | failed | disk/sent | load |",
                "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            ]
            for server, formats in self.subjects(mode):
                of = lambda k: self.values(mode, server, formats, k)
                if not of(key):
                    continue
                median = statistics.median
                lines.append(
                    f"| {server} | {formats} | {median(of(key)):.2f} | {min(of(key)):.2f}-{max(of(key)):.2f} "
                    f"| {f'{median(of(fixed)):.1f}' if of(fixed) else '-'} | {median(of('pss_kb_per_stream')):.0f} "
                    f"| {median(of('rss_kb_per_stream')):.0f} | {max(of('held_back_ms'))} | {sum(of('failures'))} "
                    f"| {median(of('disk_over_sent')):.3f} | {median(of('load_average')):.1f} |"
                )
            lines.append("")
        targets = self.targets()
        if targets:
            lines += ["| target | median | range | bound | |", "| --- | --- | --- | --- | --- |"]
            for words, median, (low, high), bound, met in targets:
                lines.append(f"| {words} | {median:.2f} | {low:.2f}-{high:.2f} | {bound:g} | {'pass' if met else 'MISS'} |")
            lines.append("")
        return "\n".join(lines)


SHOWN = {
    "ms_per_stream_second", "ms_per_recording", "cpu_seconds_per_gb", "mb_per_second",
    "pss_kb_per_stream", "held_back_ms", "own_lateness_ms", "failures", "disk_over_sent",
}  # fmt: skip


def common(done):
    return {
        "bytes_sent": done["bytes_sent"],
        "held_back_ms": done["held_back_ms"]["max"],
        "own_lateness_ms": done["own_lateness_ms"],
        "loadgen_cpu_seconds": done["own_cpu_seconds"],
        "failures": len(done["failures"]),
    }


def machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    total = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    nginx = subprocess.run([shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True).stderr
    return (
        f"{os.cpu_count()} × {cpu[1] if cpu else platform.machine()}, {total:.0f} GiB, Linux {platform.release()}, "
        f"{nginx.strip().removeprefix('nginx version: ')}"
    )


if __name__ == "__main__":
    main()
