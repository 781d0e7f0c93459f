"""The plain manifests say the same as the chart."""

import sys
import unittest

import kubernetes_validate

from support import BIN, DEPLOY, KUSTOMIZE, documents, helm_template, key, run

sys.path.insert(0, str(DEPLOY / "k8s"))
import render  # noqa: E402  (beside the manifests it writes)


def build(folder):
    return documents(run(BIN / "kubectl", "kustomize", folder).stdout)


def comparable(objects):
    """By kind and name, without what only one of the two writes: the namespace."""
    out = {}
    for each in render.plain(objects):
        if each["kind"] == "Namespace":
            continue
        each["metadata"].pop("namespace", None)
        out[key(each)] = each
    return out


class Kustomize(unittest.TestCase):
    maxDiff = None

    def test_rendered_files_are_up_to_date(self):
        for path, content in render.files().items():
            with self.subTest(file=str(path.relative_to(DEPLOY))):
                self.assertEqual(path.read_text(), content, "run .tools/venv/bin/python deploy/k8s/render.py")

    def test_nothing_else_lies_in_the_base(self):
        there = {path for path in render.BASE.iterdir() if path.name != "values.yaml"}
        self.assertEqual(there, {path for path in render.files() if path.parent == render.BASE})

    def test_base_and_overlay_say_what_the_chart_says(self):
        base = KUSTOMIZE / "base"
        trial = KUSTOMIZE / "overlays" / "trial"
        for folder, values in ((base, [base]), (trial, [base, trial])):
            with self.subTest(folder=folder.name):
                args = [part for each in values for part in ("-f", each / "values.yaml")]
                self.assertEqual(comparable(build(folder)), comparable(documents(helm_template(*args).stdout)))

    def test_built_objects_are_of_the_kubernetes_api(self):
        for folder in (KUSTOMIZE / "base", KUSTOMIZE / "overlays" / "trial"):
            for each in build(folder):
                kubernetes_validate.validate(each, "1.37", strict=True)
                if each["kind"] != "Namespace":
                    self.assertEqual(each["metadata"]["namespace"], "aircheck")


if __name__ == "__main__":
    unittest.main()
