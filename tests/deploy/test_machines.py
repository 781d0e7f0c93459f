"""The image, the compose file and the systemd units: what can be told of them without running them."""

import json
import pathlib
import re
import tempfile
import unittest

import yaml
from compose_spec import ComposeSpecification, Service

from support import AIRCHECK, DEPLOY, OBSERVABILITY, ROOT, run

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def flags_exist(test, words):
    """A command line's role and flags, held to the program's own help."""
    said = run(AIRCHECK, words[0], "--help").stdout
    for word in words[1:]:
        if word.startswith("--"):
            test.assertRegex(said, rf"(?m)^\s+{re.escape(word.split('=')[0])}( |$)")


class Compose(unittest.TestCase):
    def test_it_is_a_compose_file(self):
        read = ComposeSpecification.model_validate(COMPOSE)
        self.assertEqual(set(read.services), set(COMPOSE["services"]))
        known = {field.alias or name for name, field in Service.model_fields.items()}
        for name, service in COMPOSE["services"].items():
            self.assertEqual(set(service) - known, set(), f"{name}: no such keys")

    def test_the_program_knows_its_flags(self):
        for name, service in COMPOSE["services"].items():
            if service["image"].startswith("aircheck:"):
                with self.subTest(service=name):
                    flags_exist(self, service["command"])

    def test_names_lead_somewhere(self):
        services = COMPOSE["services"]
        for name, service in services.items():
            with self.subTest(service=name):
                for other in service.get("depends_on", []):
                    self.assertIn(other, services)
                for volume in service.get("volumes", []):
                    source = volume.split(":")[0]
                    if source.startswith("."):
                        self.assertTrue((DEPLOY / source).exists(), source)
                    else:
                        self.assertIn(source, COMPOSE["volumes"])
                for port in service.get("ports", []):
                    self.assertTrue(port.startswith("127.0.0.1:"), f"{port} is open to the network")
                for host in re.findall(r"(?:http|etcd)://([a-z][\w-]*):", " ".join(service.get("command", []))):
                    self.assertIn(host, services)
                self.assertRegex(service["image"], r":[\w-]*\d")
        self.assertTrue((DEPLOY / services["coordinator-1"]["build"]["context"] / services["coordinator-1"]["build"]["dockerfile"]).exists())

    def test_the_bucket_has_the_keys_that_workers_show(self):
        services = COMPOSE["services"]
        root = services["s3"]["environment"]
        for name in ("worker-1", "worker-2"):
            shown = services[name]["environment"]
            self.assertEqual(
                (shown["AWS_ACCESS_KEY_ID"], shown["AWS_SECRET_ACCESS_KEY"]), (root["MINIO_ROOT_USER"], root["MINIO_ROOT_PASSWORD"])
            )
            self.assertIn("--objects=s3://aircheck/live", services[name]["command"])
        self.assertRegex(services["s3"]["command"][0], r"(?m)^juicefs format .* aircheck$")

    def test_a_worker_is_given_the_time_to_drain(self):
        grace = re.search(r"drain_grace = \"(\d+)s\"", run(AIRCHECK, "check-config").stdout)[1]
        for name in ("worker-1", "worker-2"):
            self.assertGreater(int(COMPOSE["services"][name]["stop_grace_period"].rstrip("s")), int(grace))

    def test_everything_sends_its_traces(self):
        setting = "telemetry.otlp=http://jaeger:4317"
        for name, service in COMPOSE["services"].items():
            if service["image"].startswith("aircheck:"):
                self.assertIn(f"--set={setting}", service["command"], name)
        self.assertIn("jaeger", COMPOSE["services"])
        self.assertIn('otlp = "http://jaeger:4317"', run(AIRCHECK, "check-config", "--set", setting).stdout)

    def test_prometheus_takes_its_configuration(self):
        with tempfile.TemporaryDirectory() as folder:
            text = (DEPLOY / "compose" / "prometheus.yml").read_text()
            mounted = [v for v in COMPOSE["services"]["prometheus"]["volumes"] if v.startswith("./observability")]
            self.assertEqual(mounted, ["./observability/prometheus:/etc/prometheus/rules:ro"])
            path = pathlib.Path(folder) / "prometheus.yml"
            path.write_text(text.replace("/etc/prometheus/rules", str(OBSERVABILITY / "prometheus")))
            run("promtool", "check", "config", path)
        for target in yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"]:
            self.assertIn(target.split(":")[0], COMPOSE["services"])

    def test_grafana_finds_the_dashboards_and_their_source(self):
        source = yaml.safe_load((DEPLOY / "compose" / "grafana" / "datasources.yaml").read_text())["datasources"][0]
        self.assertEqual((source["type"], source["url"]), ("prometheus", "http://prometheus:9090"))
        traces = yaml.safe_load((DEPLOY / "compose" / "grafana" / "datasources.yaml").read_text())["datasources"][1]
        self.assertEqual((traces["type"], traces["url"]), ("jaeger", "http://jaeger:16686"))
        path = yaml.safe_load((DEPLOY / "compose" / "grafana" / "dashboards.yaml").read_text())["providers"][0]["options"]["path"]
        self.assertIn(f"./observability/grafana:{path}:ro", COMPOSE["services"]["grafana"]["volumes"])


class Image(unittest.TestCase):
    TEXT = (DEPLOY / "image" / "Dockerfile").read_text()

    def test_what_it_copies_is_there_and_not_ignored(self):
        ignored = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
        for source in re.findall(r"(?m)^COPY (?!--from)(\S+) ", self.TEXT):
            self.assertTrue((ROOT / source).exists(), source)
        needed = ["Cargo.toml", "Cargo.lock", "proto", "shared", "coordinator", "worker", "deploy", "tests", "LICENSE"]
        for name in needed:
            self.assertTrue((ROOT / name).exists(), name)
            self.assertNotIn(f"/{name}", ignored)

    def test_the_compiler_is_the_one_that_the_workspace_asks_for(self):
        wanted = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text())[1]
        self.assertEqual(re.search(r"ARG RUST=([\d.]+)", self.TEXT)[1], wanted)
        version = re.search(r'(?m)^version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text())[1]
        self.assertEqual(re.search(r"ARG VERSION=([\d.]+)", self.TEXT)[1], version)
        chart = yaml.safe_load((DEPLOY / "k8s" / "chart" / "Chart.yaml").read_text())
        self.assertEqual(chart["appVersion"], version)
        self.assertEqual(COMPOSE["x-aircheck"]["image"], f"aircheck:{version}")

    def test_it_runs_as_the_user_that_the_chart_names(self):
        values = yaml.safe_load((DEPLOY / "k8s" / "chart" / "values.yaml").read_text())
        user = values["podSecurityContext"]["runAsUser"]
        self.assertIn(f"USER {user}:{user}\n", self.TEXT)
        program, command = (json.loads(re.search(rf"(?m)^{word} (.*)$", self.TEXT)[1]) for word in ("ENTRYPOINT", "CMD"))
        self.assertIn(f" {program[0]}\n", re.search(r"COPY --from=build /out/bin/aircheck .*\n", self.TEXT)[0])
        flags_exist(self, command)

    def test_ports_are_the_programs(self):
        config = run(AIRCHECK, "check-config").stdout
        ports = set(re.findall(r'^(?:rtmp|http|grpc) = "[\d.]+:(\d+)"', config, re.M))
        self.assertEqual(set(re.search(r"(?m)^EXPOSE (.*)$", self.TEXT)[1].split()), ports)


class Units(unittest.TestCase):
    def test_systemd_understands_them(self):
        with tempfile.TemporaryDirectory() as folder:
            for unit in UNITS:
                text = unit.read_text()
                self.assertIn("ExecStart=/usr/local/bin/aircheck ", text)
                # What is started must be there to be verified.
                copy = pathlib.Path(folder) / unit.name
                copy.write_text(text.replace("/usr/local/bin/aircheck", str(AIRCHECK)))
                done = run("systemd-analyze", "verify", "--man=no", copy)
                self.assertEqual(done.stderr.strip(), "")

    def test_they_are_locked_down(self):
        for unit in UNITS:
            said = run("systemd-analyze", "security", "--offline=true", unit).stdout
            self.assertLess(float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said)[1]), 2.0)

    def test_the_program_knows_its_flags_and_has_the_time_it_was_promised(self):
        grace = int(re.search(r"drain_grace = \"(\d+)s\"", run(AIRCHECK, "check-config").stdout)[1])
        for unit in UNITS:
            text = unit.read_text()
            words = re.search(r"(?m)^ExecStart=\S+ (.*)$", text)[1].split()
            flags_exist(self, words)
            if words[0] != "coordinator":
                self.assertGreater(int(re.search(r"TimeoutStopSec=(\d+)", text)[1]), grace)


if __name__ == "__main__":
    unittest.main()
