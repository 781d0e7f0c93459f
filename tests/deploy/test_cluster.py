"""What the chart renders, started: two coordinators and a worker with their own settings, flags and tokens, on a real etcd.

Only addresses and folders differ from those in a pod.
"""

import datetime
import os
import pathlib
import re
import secrets
import signal
import ssl
import subprocess
import tempfile
import tomllib
import unittest
import urllib.error
import urllib.request

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support import AIRCHECK, CHART, ROOT, documents, free_port, get, helm_template, of_kind, pods, rendered, run, until


class Authority:
    """Signs what cert-manager would."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self.certificate = self.sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))

    def sign(self, subject, key, extension):
        now = datetime.datetime.now(datetime.timezone.utc)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        made = made.not_valid_after(now + datetime.timedelta(days=1)).add_extension(extension, critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def secret(self, folder, names):
        """What the Secret of a Certificate holds, as files."""
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "tls.key").write_bytes(pem)
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        (folder / "tls.crt").write_bytes(self.sign(x509.Name([]), key, alternatives))
        (folder / "ca.crt").write_bytes(self.certificate)


class Cluster(unittest.TestCase):
    """Over TLS, with certificates that have the names that the chart asks cert-manager for, and no others."""

    scheme = "https"

    @classmethod
    def objects(cls):
        return rendered("scaled")

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
        objects = cls.objects()
        cls.settings = next(each for each in of_kind(objects, "ConfigMap") if "worker.toml" in each["data"])["data"]
        cls.pods = {name.rsplit("-", 1)[1]: spec for name, _, spec in pods(objects)}
        authority = Authority()
        (cls.folder / "ca.pem").write_bytes(authority.certificate)
        for each in of_kind(objects, "Certificate"):
            authority.secret(cls.folder / each["spec"]["secretName"], each["spec"].get("dnsNames", []))
        cls.trust = ssl.create_default_context(cafile=cls.folder / "ca.pem") if cls.scheme == "https" else None
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
            until("a coordinator ready", lambda port=port: cls.page(port, "/readyz"))
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
            f"{cls.scheme}://aircheck-coordinator:7070": f"{cls.scheme}://127.0.0.1:{cls.grpc[0]}",
            "/etc/aircheck/tls": str(cls.folder / f"aircheck-{role}-tls"),
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

    @classmethod
    def page(cls, port, path, token=None):
        request = urllib.request.Request(f"{cls.scheme}://localhost:{port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=5, context=cls.trust) as answer:
            return answer.read().decode()

    def metrics(self, port, token=None):
        return self.page(port, "/metrics", token)

    def number(self, port, name):
        return float(re.search(rf"(?m)^{name} (\S+)$", self.metrics(port, self.api))[1])

    def test_they_find_each_other_and_stop_in_time(self):
        until("one leads", lambda: sum(self.number(port, "aircheck_coordinator_leading") for port in self.http) == 1)
        until("the worker heard", lambda: max(self.number(port, "aircheck_coordinator_workers") for port in self.http) == 1)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.metrics(self.http[0])
        self.assertEqual(refused.exception.code, 401)
        for port in self.grpc:
            # One of them asks the other, by an address that its certificate does not have.
            trust = [f"--ca-file={self.folder / 'ca.pem'}"] if self.trust else []
            token = f"--token-file={self.folder / 'tokens' / 'api-token'}"
            listed = run(AIRCHECK, "template", "list", f"--server={self.scheme}://localhost:{port}", token, "--output=json", *trust)
            self.assertEqual(listed.returncode, 0)
        for process, role in ((self.worker, "worker"), (self.coordinators[0], "coordinator"), (self.coordinators[1], "coordinator")):
            spec = self.pods[role]
            process.send_signal(signal.SIGTERM)
            sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertEqual(process.wait(timeout=spec["terminationGracePeriodSeconds"] - sleep), 0, role)


class InTheClear(Cluster):
    """The same without TLS."""

    scheme = "http"

    @classmethod
    def objects(cls):
        return documents(helm_template("-f", CHART / "ci" / "scaled.yaml", "--set", "tls.certManager.enabled=false").stdout)


class TrialBucket(unittest.TestCase):
    """The gateway of trial.s3, run by its own command, takes what the roles' settings and keys send to it."""

    def test_what_is_put_is_there(self):
        objects = rendered("trial")
        gateway = next(spec["containers"][0] for name, _, spec in pods(objects) if name == "aircheck-s3")
        keys = next(each["stringData"] for each in of_kind(objects, "Secret") if each["metadata"]["name"] == "aircheck-s3")
        settings = next(each["data"] for each in of_kind(objects, "ConfigMap") if "worker.toml" in each["data"])
        worker = tomllib.loads(settings["worker.toml"])["objects"]
        self.assertEqual(worker, tomllib.loads(settings["coordinator.toml"])["objects"])
        self.assertIn("aircheck-s3", worker["endpoint"])
        for _, _, spec in pods([each for each in objects if each["metadata"]["name"] in ("aircheck-coordinator", "aircheck-worker")]):
            given = {each["name"]: each["valueFrom"]["secretKeyRef"]["key"] for each in spec["containers"][0]["env"] if each["name"].startswith("AWS")}
            self.assertEqual(given, {"AWS_ACCESS_KEY_ID": "access-key-id", "AWS_SECRET_ACCESS_KEY": "secret-access-key"})
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            command = gateway["args"][0].replace("/data/", f"{folder}/").replace("0.0.0.0:9000", f"127.0.0.1:{port}")
            variables = {each["name"]: each["value"] if "value" in each else keys[each["valueFrom"]["secretKeyRef"]["key"]] for each in gateway["env"]}
            variables.update({"HOME": folder, "TMPDIR": folder, "PATH": f"{ROOT / '.tools' / 'venv' / 'bin'}:{os.environ['PATH']}"})
            with open(pathlib.Path(folder) / "log", "wb") as log:
                process = subprocess.Popen([*gateway["command"], command], env=variables, stdout=log, stderr=log)
            try:
                probe = gateway["readinessProbe"]["httpGet"]["path"]
                until("the gateway ready", lambda: get(f"http://127.0.0.1:{port}{probe}") == "")
                client = boto3.client(
                    "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                    aws_access_key_id=keys["access-key-id"], aws_secret_access_key=keys["secret-access-key"],
                )
                bucket = worker["url"].removeprefix("s3://")
                client.put_object(Bucket=bucket, Key="a/b.ts", Body=b"media")
                self.assertEqual(client.get_object(Bucket=bucket, Key="a/b.ts")["Body"].read(), b"media")
            finally:
                process.terminate()
                process.wait(30)


if __name__ == "__main__":
    unittest.main()
