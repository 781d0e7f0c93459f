"""What the tests of deploy/ share: where things are, and how the programs are called."""

import functools
import json
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "k8s" / "chart"
KUSTOMIZE = DEPLOY / "k8s" / "kustomize"
OBSERVABILITY = DEPLOY / "observability"
BIN = ROOT / ".tools" / "bin"
AIRCHECK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "aircheck"


def run(*command, check=True, **more):
    """Runs a program; one that must succeed and does not fails the test with all it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def helm_template(*args, check=True):
    return run(BIN / "helm", "template", "aircheck", CHART, "--namespace", "aircheck", *args, check=check)


@functools.cache
def rendered(name):
    """The objects that the chart makes of one of its value sets in ci/."""
    return documents(helm_template("-f", CHART / "ci" / f"{name}.yaml").stdout)


def documents(text):
    return [each for each in yaml.safe_load_all(text) if each]


VALUE_SETS = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))


def key(item):
    return item["kind"], item["metadata"]["name"]


def of_kind(objects, *kinds):
    return [each for each in objects if each["kind"] in kinds]


def pods(objects):
    """(name, labels, pod's spec) of everything that makes pods."""
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        template = each["spec"]["template"]
        yield each["metadata"]["name"], template["metadata"]["labels"], template["spec"]


# Which struct each variable of `Metrics::with_streams` is.
METRICS = {"worker": "WorkerMetrics", "coordinator": "CoordinatorMetrics", "single": "StreamMetrics"}


@functools.cache
def metric_names():
    """Every series name that the program can write, read from the one place where names stand."""
    folder = ROOT / "shared" / "src" / "telemetry"
    source = (folder / "metrics.rs").read_text()
    structs = {
        name: dict(re.findall(r"^\s+(?:pub(?:\(super\))? )?(\w+): ([^\n]+),$", body, re.M))
        for name, body in re.findall(r"pub struct (\w+) \{\n(.*?)\n\}", source + (folder / "kinds.rs").read_text(), re.S)
    }

    def kind(path):
        variable, *fields = path.split(".")
        at = METRICS[variable]
        for field in fields:
            at = structs[at][field]
        return at

    prefix, names = "aircheck", {"aircheck_build_info"}
    pattern = re.compile(
        r'sub_registry_with_prefix\("(?P<sub>\w+)"\)'
        r'|r\.register(?P<unit>_with_unit)?\(\s*"(?P<name>\w+)",\s*"[^"]*",\s*(?:Unit::(?P<what>\w+),\s*)?(?P<path>[\w.]+)\.clone\(\)'
    )
    for found in pattern.finditer(source):
        if found["sub"]:
            prefix = f"aircheck_{found['sub']}"
            continue
        name = f"{prefix}_{found['name']}" + (f"_{found['what'].lower()}" if found["unit"] else "")
        what = kind(found["path"])
        if "Counter" in what:
            names.add(f"{name}_total")
        elif "Latency" in what:
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        else:
            names.add(name)
    registered = len(re.findall(r"\br\.register(?:_with_unit)?\(", source)) + 1
    counted = len({re.sub(r"_(bucket|sum|count)$", "", name) for name in names})
    assert counted == registered, f"{registered} metrics are registered in metrics.rs, but {counted} were understood here"
    return names


def metrics_in(expression):
    """Names of series in a PromQL expression: words with our prefix that are no function, label or recorded series."""
    return set(re.findall(r"\baircheck_\w+", expression))


def recorded_in(expression):
    return set(re.findall(r"\baircheck:[\w:]+", expression))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, condition, seconds=30):
    """Awaits a condition; returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
            if found:
                return found
        except (OSError, ValueError, LookupError):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def get_json(url):
    return json.loads(get(url))
