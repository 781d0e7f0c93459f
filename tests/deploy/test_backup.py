"""Backup and restore as docs/operations.md says it, with a real etcd and the real program."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from support import AIRCHECK, free_port, get, run, until


class Restore(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temp.name)
        self.client, self.peer, self.grpc, self.http = (free_port() for _ in range(4))
        self.running = {}

    def tearDown(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        self.temp.cleanup()

    def start(self, name, *command):
        with open(self.folder / f"{name}.log", "a") as log:
            self.running[name] = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=self.folder)

    def end(self, name):
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def etcd(self):
        client, peer = f"http://127.0.0.1:{self.client}", f"http://127.0.0.1:{self.peer}"
        self.start(
            "etcd", "etcd", "--name=one", f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=one={peer}",
        )
        until("etcd healthy", lambda: "true" in get(f"{client}/health"))

    def etcdctl(self, *args):
        return run("etcdctl", f"--endpoints=127.0.0.1:{self.client}", *args, env={**os.environ, "ETCDCTL_API": "3"}).stdout

    def coordinator(self):
        self.start(
            "coordinator", AIRCHECK, "coordinator", f"--metadata=etcd://127.0.0.1:{self.client}/aircheck", f"--data-dir={self.folder / 'c'}",
            f"--grpc=127.0.0.1:{self.grpc}", f"--http=127.0.0.1:{self.http}",
        )
        until("the coordinator ready", lambda: "ready" in get(f"http://127.0.0.1:{self.http}/readyz"))

    def template(self, *args):
        return run(AIRCHECK, "template", *args, f"--server=http://127.0.0.1:{self.grpc}", "--output=json").stdout

    def names(self):
        listed = json.loads(self.template("list"))
        return {name for name in ("before", "after") if f'"{name}"' in json.dumps(listed)}

    def test_what_was_there_at_the_snapshot_is_there_again(self):
        self.etcd()
        self.coordinator()
        self.template("create", "before", "--hls")
        self.etcdctl("snapshot", "save", str(self.folder / "aircheck.db"))
        self.template("create", "after", "--mp4")
        self.assertEqual(self.names(), {"before", "after"})

        self.end("coordinator")
        self.end("etcd")
        (self.folder / "etcd").rename(self.folder / "lost")
        peer = f"http://127.0.0.1:{self.peer}"
        self.etcdctl(
            "snapshot", "restore", str(self.folder / "aircheck.db"), "--name=one", f"--data-dir={self.folder / 'etcd'}",
            f"--initial-cluster=one={peer}", f"--initial-advertise-peer-urls={peer}",
        )
        self.etcd()
        self.coordinator()
        self.assertEqual(self.names(), {"before"})
        self.template("create", "after", "--mp4")
        self.assertEqual(self.names(), {"before", "after"}, "and it goes on")


if __name__ == "__main__":
    unittest.main()
