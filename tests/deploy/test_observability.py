"""Rules, alerts and dashboards name only metrics that the program has, and a real Prometheus evaluates all of them."""

import importlib.util
import itertools
import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from support import (
    AIRCHECK,
    OBSERVABILITY,
    ROOT,
    free_port,
    get,
    get_json,
    metric_names,
    metrics_in,
    recorded_in,
    run,
    until,
)

RULES = OBSERVABILITY / "prometheus"
GROUPS = [
    group for name in ("recording", "alerts") for group in yaml.safe_load((RULES / f"{name}.yaml").read_text())["groups"]
]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((OBSERVABILITY / "grafana").glob("*.json"))}


def panels(board):
    return [each for each in board["panels"] if each["type"] != "row"]


def expressions():
    """(where, expression) of everything that asks Prometheus for something; variables of Grafana filled in."""
    for rule in itertools.chain.from_iterable(group["rules"] for group in GROUPS):
        yield rule.get("alert") or rule["record"], rule["expr"]
    for name, board in BOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", re.sub(r"\$(namespace|instance|domain|app|stream)", ".*", target["expr"])


class Names(unittest.TestCase):
    def test_every_metric_exists(self):
        for where, expression in expressions():
            with self.subTest(where=where):
                self.assertLessEqual(metrics_in(expression), metric_names())
                self.assertLessEqual(recorded_in(expression), RECORDED.keys())
                self.assertTrue(metrics_in(expression) | recorded_in(expression), "asks for nothing of ours")

    def test_variables_ask_for_metrics_that_exist(self):
        for board in BOARDS.values():
            for variable in board["templating"]["list"]:
                if variable["type"] == "query":
                    self.assertLessEqual(metrics_in(variable["query"]["query"]), metric_names())


class Alerts(unittest.TestCase):
    def test_rules_are_legal(self):
        run("promtool", "check", "rules", *sorted(RULES.glob("*.yaml")))

    def test_alerts_fire_when_they_should_and_only_then(self):
        run("promtool", "test", "rules", *sorted((RULES / "tests").glob("*.yaml")))

    def test_every_alert_is_tested_for_firing_and_for_silence(self):
        tests = yaml.safe_load((RULES / "tests" / "alerts.yaml").read_text())["tests"]
        cases = [case for test in tests for case in test.get("alert_rule_test", [])]
        for alert in ALERTS:
            of_it = [case for case in cases if case["alertname"] == alert["alert"]]
            self.assertTrue(any(case["exp_alerts"] for case in of_it), f"{alert['alert']} is never seen firing")
            self.assertTrue(any(not case["exp_alerts"] for case in of_it), f"{alert['alert']} is never seen silent")

    def test_every_alert_has_its_lines_in_the_runbook(self):
        text = (ROOT / "docs" / "operations.md").read_text()
        sections = dict(re.findall(r"(?ms)^### (\w+)\n(.*?)(?=^##|\Z)", text))
        for alert in ALERTS:
            with self.subTest(alert=alert["alert"]):
                self.assertEqual(alert["annotations"]["runbook"], f"docs/operations.md#{alert['alert'].lower()}")
                self.assertIn(alert["labels"]["severity"], ("critical", "warning"))
                self.assertIn(alert["alert"], sections)
                self.assertGreater(len(sections[alert["alert"]].strip()), 80)
        described = {name for name in sections if name.startswith("Aircheck")}
        self.assertEqual(described, {alert["alert"] for alert in ALERTS})


class Dashboards(unittest.TestCase):
    def test_they_are_what_the_generator_writes(self):
        spec = importlib.util.spec_from_file_location("dashboards", OBSERVABILITY / "dashboards.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.assertEqual(BOARDS, {name: make() for name, make in module.DASHBOARDS.items()}, "run deploy/observability/dashboards.py")

    def test_grafana_reads_them(self):
        for name, board in BOARDS.items():
            with self.subTest(board=name):
                read = Dashboard.from_json(board)
                self.assertEqual(len(read.panels), len(board["panels"]))
                self.assertEqual(read.uid, board["uid"])

    def test_panels_do_not_overlap_and_have_ids_of_their_own(self):
        for name, board in BOARDS.items():
            with self.subTest(board=name):
                ids = [panel["id"] for panel in board["panels"]]
                self.assertEqual(len(ids), len(set(ids)))
                taken = set()
                for panel in board["panels"]:
                    at = panel["gridPos"]
                    self.assertLessEqual(at["x"] + at["w"], 24)
                    cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
                    self.assertFalse(cells & taken, panel["title"])
                    taken |= cells


class RealPrometheus(unittest.TestCase):
    """A server that runs, scraped by a Prometheus that runs, with the rules loaded."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.started = []
        folder = pathlib.Path(cls.folder.name)
        try:
            cls.start(folder)
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def start(cls, folder):
        cls.process(
            folder, AIRCHECK, "standalone", "--data-dir", folder / "data", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"
        )
        addresses = folder / "data" / "addresses.json"
        cls.server = until("addresses.json", lambda: json.loads(addresses.read_text())["http"])
        config = folder / "prometheus.yml"
        config.write_text(
            yaml.safe_dump({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES / "recording.yaml"), str(RULES / "alerts.yaml")],
                "scrape_configs": [{"job_name": "aircheck", "static_configs": [{"targets": [cls.server]}]}],
            })
        )
        port = free_port()
        cls.prometheus = f"http://127.0.0.1:{port}"
        cls.process(
            folder, "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"
        )
        until("two scrapes", lambda: len(cls.query("aircheck_build_info[1m]")[0]["values"]) >= 2)

    @classmethod
    def process(cls, folder, *command):
        log = open(folder / f"{len(cls.started)}.log", "w")  # noqa: SIM115 (closed with the process)
        cls.started.append((subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=folder), log))

    @classmethod
    def tearDownClass(cls):
        for process, log in cls.started:
            process.kill()
            process.wait()
            log.close()
        cls.folder.cleanup()

    @classmethod
    def query(cls, expression):
        from urllib.parse import quote

        answer = get_json(f"{cls.prometheus}/api/v1/query?query={quote(expression)}")
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def test_the_server_writes_what_the_list_says(self):
        text = get(f"http://{self.server}/metrics")
        written = {re.match(r"\w+", line)[0] for line in text.splitlines() if not line.startswith("#")}
        self.assertLessEqual(written, metric_names())
        # Families without a label value yet are not written.
        self.assertIn("aircheck_worker_disk_free_bytes", written)
        self.assertIn("aircheck_build_info", written)

    def test_every_expression_is_evaluated(self):
        for where, expression in expressions():
            with self.subTest(where=where):
                self.query(expression)

    def test_stats_show_a_number_on_an_idle_server(self):
        # One stream's are seen in tests/e2e/metrics.rs.
        for name, board in ((name, board) for name, board in BOARDS.items() if name != "stream"):
            for panel in panels(board):
                if panel["type"] == "stat":
                    for target in panel["targets"]:
                        with self.subTest(panel=f"{name}: {panel['title']}"):
                            expression = re.sub(r"\$(namespace|instance|domain|app|stream)", ".*", target["expr"])
                            until("a value", lambda e=expression: self.query(e))

    def test_rules_are_loaded_and_in_health(self):
        def healthy():
            groups = get_json(f"{self.prometheus}/api/v1/rules")["data"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            known = {rule["name"] for rule in rules} == {alert["alert"] for alert in ALERTS} | RECORDED.keys()
            return known and all(rule["health"] == "ok" for rule in rules)

        # Groups without an interval of their own are evaluated each second, the others within fifteen.
        until("every rule evaluated without an error", healthy)

    def test_an_idle_server_raises_only_what_is_true(self):
        raised = {each["labels"]["alertname"] for each in get_json(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]}
        # The disk is the machine's, and others may be filling it: then that is true.
        self.assertEqual(raised - {"AircheckDiskFillsUp"}, set())


if __name__ == "__main__":
    unittest.main()
