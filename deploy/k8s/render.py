#!/usr/bin/env python3
"""Writes the kustomize base and the trial overlay's etcd from the chart: .tools/venv/bin/python deploy/k8s/render.py

The chart is the source; the plain manifests are what it renders, without Helm's own labels. `tests/deploy` fails when they
differ.
"""

import pathlib
import re
import subprocess
import sys

import yaml

K8S = pathlib.Path(__file__).resolve().parent
TOOLS = K8S.parents[1] / ".tools" / "bin"
BASE = K8S / "kustomize" / "base"
TRIAL = K8S / "kustomize" / "overlays" / "trial"
HEAD = "# Rendered from deploy/k8s/chart by deploy/k8s/render.py: change the chart, then render again.\n"
NAMESPACE = """apiVersion: v1
kind: Namespace
metadata:
  name: aircheck
  labels:
    # Every pod holds to the strictest of the Pod Security Standards.
    pod-security.kubernetes.io/enforce: restricted
"""


def helm(*values):
    """The chart's output with these values files, by template: {"coordinator": [objects]}."""
    command = [TOOLS / "helm", "template", "aircheck", K8S / "chart", "--namespace", "aircheck"]
    for path in values:
        command += ["-f", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    by_template = {}
    for document in re.split(r"(?m)^---$", done.stdout):
        source = re.search(r"# Source: aircheck/templates/(.+)\.yaml", document)
        content = yaml.safe_load(document)
        if source and content:
            by_template.setdefault(source.group(1), []).append(plain(content))
    return by_template


def plain(node):
    """Without the labels that say that Helm manages an object."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key not in ("helm.sh/chart", "app.kubernetes.io/managed-by")}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node


class Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""


Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


def text(objects):
    return HEAD + "---\n".join(yaml.dump(each, Dumper=Dumper, sort_keys=False, width=140) for each in objects)


def files():
    """Every rendered file and what it should hold."""
    base = helm(BASE / "values.yaml")
    out = {BASE / f"{name}.yaml": text(objects) for name, objects in sorted(base.items())}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "aircheck",
        "resources": ["namespace.yaml", *(f"{name}.yaml" for name in sorted(base))],
    }
    out[BASE / "kustomization.yaml"] = text([kustomization])
    out[BASE / "namespace.yaml"] = NAMESPACE
    trial = helm(BASE / "values.yaml", TRIAL / "values.yaml")
    etcd = trial["trial/etcd"] + [each for each in trial["networkpolicy"] if each["metadata"]["name"] == "aircheck-etcd"]
    out[TRIAL / "etcd.yaml"] = text(etcd)
    return out


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content)
