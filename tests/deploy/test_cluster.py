"""What the chart renders, started: two coordinators and a worker with their own settings, flags and tokens, on a real etcd.

Only addresses and folders differ from those in a pod.
"""

import pathlib
import re
import secrets
import signal
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

from support import AIRCHECK, free_port, get, of_kind, pods, rendered, run, until


class Cluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temp = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temp.name)
        cls.running = []
        try:
            cls.start_all()
        except BaseException as error:
            logs = "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in cls.folder.glob("*.log"))
            cls.tearDownClass()
            raise AssertionError(logs) from error

    @classmethod
    def tearDownClass(cls):
        for process in cls.running:
            process.kill()
            process.wait()
        cls.temp.cleanup()

    @classmethod
    def start(cls, name, *command):
        with open(cls.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=cls.folder)
        cls.running.append(process)
        return process

    @classmethod
    def start_all(cls):
        objects = rendered("scaled")
        cls.settings = next(each for each in of_kind(objects, "ConfigMap") if "worker.toml" in each["data"])["data"]
        cls.pods = {name.rsplit("-", 1)[1]: spec for name, _, spec in pods(objects)}
        cls.api = secrets.token_hex(16)
        (cls.folder / "tokens").mkdir()
        (cls.folder / "tokens" / "join-token").write_text(secrets.token_hex(16))
        (cls.folder / "tokens" / "api-token").write_text(cls.api)
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        cls.etcd = client.replace("http", "etcd")
        cls.start(
            "etcd", "etcd", "--name=one", f"--data-dir={cls.folder / 'etcd'}", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=one={peer}",
        )
        until("etcd healthy", lambda: "true" in get(f"{client}/health"))
        cls.grpc = [free_port(), free_port()]
        cls.http = [free_port(), free_port()]
        cls.coordinators = [cls.pod("coordinator", at, cls.grpc[at], cls.http[at]) for at in (0, 1)]
        for port in cls.http:
            until("a coordinator ready", lambda port=port: get(f"http://127.0.0.1:{port}/readyz"))
        cls.worker = cls.pod("worker", 0, cls.grpc[0], free_port())

    @classmethod
    def pod(cls, role, number, grpc, http):
        """Starts what a pod would, at addresses and folders of this test."""
        data = cls.folder / f"{role}-{number}"
        toml = cls.settings[f"{role}.toml"]
        for told, here in {
            "0.0.0.0:7070": f"127.0.0.1:{grpc}",
            "0.0.0.0:8080": f"127.0.0.1:{http}",
            "0.0.0.0:1935": f"127.0.0.1:{free_port()}",
            "http://aircheck-coordinator:7070": f"http://127.0.0.1:{cls.grpc[0]}",
            "etcd://etcd.example.com:2379": cls.etcd,
            "/etc/aircheck/tokens": str(cls.folder / "tokens"),
            "/var/lib/aircheck": str(data),
        }.items():
            toml = toml.replace(told, here)
        file = cls.folder / f"{role}-{number}.toml"
        file.write_text(toml)
        args = [
            arg.replace("$(POD_NAME)", f"aircheck-{role}-{number}")
            .replace("$(POD_IP):7070", f"127.0.0.1:{grpc}")
            .replace(f"/etc/aircheck/config/{role}.toml", str(file))
            for arg in cls.pods[role]["containers"][0]["args"]
        ]
        assert not any("$(" in arg for arg in args), args
        return cls.start(f"{role}-{number}", AIRCHECK, *args)

    def metrics(self, port, token=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()

    def number(self, port, name):
        return float(re.search(rf"(?m)^{name} (\S+)$", self.metrics(port, self.api))[1])

    def test_they_find_each_other_and_stop_in_time(self):
        until("one leads", lambda: sum(self.number(port, "aircheck_coordinator_leading") for port in self.http) == 1)
        until("the worker heard", lambda: max(self.number(port, "aircheck_coordinator_workers") for port in self.http) == 1)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.metrics(self.http[0])
        self.assertEqual(refused.exception.code, 401)
        for port in self.grpc:
            listed = run(
                AIRCHECK, "template", "list", f"--server=http://127.0.0.1:{port}", f"--token-file={self.folder / 'tokens' / 'api-token'}", "--output=json"
            )
            self.assertEqual(listed.returncode, 0)
        for process, role in ((self.worker, "worker"), (self.coordinators[0], "coordinator"), (self.coordinators[1], "coordinator")):
            spec = self.pods[role]
            process.send_signal(signal.SIGTERM)
            sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertEqual(process.wait(timeout=spec["terminationGracePeriodSeconds"] - sleep), 0, role)


if __name__ == "__main__":
    unittest.main()
