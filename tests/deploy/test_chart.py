"""The Helm chart: what it renders is legal, hangs together, is locked down, and is understood by the program."""

import os
import re
import tempfile
import tomllib
import unittest

import kubernetes_validate

from support import AIRCHECK, BIN, CHART, ROOT, VALUE_SETS, documents, helm_template, key, of_kind, pods, rendered, run

# The oldest Kubernetes that Chart.yaml promises, and the newest that has schemas here.
KUBERNETES = ["1.30", "1.37"]
# Kinds that operators define; their shape is checked by hand below.
CUSTOM = {"Certificate", "Issuer", "PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}


class EveryValueSet(unittest.TestCase):
    def each(self):
        for name in VALUE_SETS:
            with self.subTest(values=name):
                yield rendered(name)

    def test_lint_finds_nothing(self):
        for name in VALUE_SETS:
            with self.subTest(values=name):
                run(BIN / "helm", "lint", "--strict", CHART, "-f", CHART / "ci" / f"{name}.yaml")

    def test_notes_are_written(self):
        for name in VALUE_SETS:
            with self.subTest(values=name):
                # No cluster is asked: there is none in an empty configuration.
                said = run(
                    BIN / "helm", "install", "aircheck", CHART, "--dry-run=client", "--namespace=aircheck", "-f", CHART / "ci" / f"{name}.yaml",
                    env={**os.environ, "KUBECONFIG": os.devnull},
                ).stdout.split("NOTES:")[1]
                self.assertIn("rtmp://ADDRESS/live/show", said)
                self.assertNotIn("<no value>", said)

    def test_objects_are_of_the_kubernetes_api(self):
        for objects in self.each():
            for each in objects:
                if each["kind"] in CUSTOM:
                    continue
                for version in KUBERNETES:
                    kubernetes_validate.validate(each, version, strict=True)

    def test_names_are_unique_and_no_field_is_null(self):
        def nulls(node, path):
            if isinstance(node, dict):
                return [found for name, value in node.items() for found in nulls(value, f"{path}.{name}")]
            if isinstance(node, list):
                return [found for at, value in enumerate(node) for found in nulls(value, f"{path}[{at}]")]
            return [path] if node is None else []

        for objects in self.each():
            names = [key(each) for each in objects]
            self.assertEqual(len(names), len(set(names)))
            for each in objects:
                self.assertEqual(nulls(each, each["kind"]), [])

    def test_pods_are_locked_down(self):
        for objects in self.each():
            for name, _, spec in pods(objects):
                self.assertIs(spec["automountServiceAccountToken"], False, name)
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True, name)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, name)
                for container in spec["containers"]:
                    context = container["securityContext"]
                    self.assertIs(context["allowPrivilegeEscalation"], False, name)
                    self.assertIs(context["readOnlyRootFilesystem"], True, name)
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, name)
                    self.assertIn("cpu", container["resources"]["requests"], name)
                    self.assertIn("memory", container["resources"]["requests"], name)
                    self.assertIn("memory", container["resources"]["limits"], name)
                    self.assertRegex(container["image"], r"(:[^/:]+|@sha256:[0-9a-f]{64})$")
                    self.assertNotIn(":latest", container["image"])
                    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                        self.assertIn(probe, container, name)

    def test_references_lead_somewhere(self):
        for objects in self.each():
            by_key = {key(each): each for each in objects}
            made = {name: (labels, spec) for name, labels, spec in pods(objects)}

            def selected(selector):
                found = [name for name, (labels, _) in made.items() if selector.items() <= labels.items()]
                self.assertEqual(len(found), 1, f"{selector} selects {found}")
                return made[found[0]][1]

            for service in of_kind(objects, "Service"):
                spec = selected(service["spec"]["selector"])
                ports = {port["name"] for container in spec["containers"] for port in container["ports"]}
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], ports)
            for budget in of_kind(objects, "PodDisruptionBudget"):
                selected(budget["spec"]["selector"]["matchLabels"])
            for policy in of_kind(objects, "NetworkPolicy"):
                spec = selected(policy["spec"]["podSelector"]["matchLabels"])
                numbers = {port["containerPort"] for container in spec["containers"] for port in container["ports"]}
                for rule in policy["spec"]["ingress"]:
                    self.assertLessEqual({port["port"] for port in rule["ports"]}, numbers)
            for each in of_kind(objects, "StatefulSet"):
                self.assertIn(("Service", each["spec"]["serviceName"]), by_key)
            for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
                target = scaler["spec"]["scaleTargetRef"]
                self.assertNotIn("replicas", by_key[target["kind"], target["name"]]["spec"])
            for ingress in of_kind(objects, "Ingress"):
                backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
                service = by_key["Service", backend["name"]]
                self.assertIn(backend["port"]["name"], {port["name"] for port in service["spec"]["ports"]})
            for name, (_, spec) in made.items():
                volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
                claims = {
                    claim["metadata"]["name"]
                    for each in of_kind(objects, "StatefulSet")
                    if each["metadata"]["name"] == name
                    for claim in each["spec"]["volumeClaimTemplates"]
                }
                for container in spec["containers"]:
                    for mount in container["volumeMounts"]:
                        self.assertIn(mount["name"], volumes.keys() | claims, name)
                for volume in volumes.values():
                    if "configMap" in volume:
                        self.assertIn(("ConfigMap", volume["configMap"]["name"]), by_key)

    def test_a_worker_has_the_time_it_was_promised(self):
        for objects in self.each():
            for name, _, spec in pods(objects):
                if not name.endswith("-worker"):
                    continue
                settings = self.toml(objects, "worker.toml")
                grace = int(re.search(r'worker\.drain_grace = "(\d+)s"', settings)[1])
                sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
                self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], grace + sleep + 10)

    def toml(self, objects, name):
        return next(each for each in of_kind(objects, "ConfigMap") if name in each["data"])["data"][name]

    def test_the_program_takes_the_settings_and_flags(self):
        for objects in self.each():
            for name, _, spec in pods(objects):
                role = name.rsplit("-", 1)[1]
                if role not in ("coordinator", "worker"):
                    continue
                with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                    file.write(self.toml(objects, f"{role}.toml"))
                    file.flush()
                    run(AIRCHECK, "check-config", "--config", file.name, "--set", "coordinator.advertise=http://10.0.0.1:7070")
                container = spec["containers"][0]
                self.assertEqual(container["args"][0], role)
                said = run(AIRCHECK, role, "--help").stdout
                for flag in container["args"][1:]:
                    self.assertIn(f"  {flag.split('=')[0]} <", said)
                used = {variable for arg in container["args"] for variable in re.findall(r"\$\((\w+)\)", arg)}
                self.assertLessEqual(used, {variable["name"] for variable in container["env"]})
                mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
                for path in re.findall(r'"(/[^"]+)"', self.toml(objects, f"{role}.toml")):
                    self.assertTrue(any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path)

    def test_probes_ask_what_the_program_answers(self):
        sources = {
            "coordinator": (ROOT / "coordinator" / "src" / "api" / "ops.rs").read_text(),
            "worker": (ROOT / "deploy" / "bin" / "ops.rs").read_text(),
        }
        for objects in self.each():
            for name, _, spec in pods(objects):
                role = name.rsplit("-", 1)[1]
                if role in sources:
                    pages = re.findall(r'"(/\w+)"', sources[role])
                    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                        self.assertIn(spec["containers"][0][probe]["httpGet"]["path"], pages)


class Scaling(unittest.TestCase):
    """The autoscaler is told what the simulated day of coordinator/tests/scaling assumes."""

    DAY = (ROOT / "coordinator" / "tests" / "scaling" / "day.rs").read_text()
    TARGETS = (ROOT / "coordinator" / "tests" / "scaling" / "main.rs").read_text()

    def number(self, text, name):
        return int(re.search(rf"\b{name}(?:: u64 =|:) ([\d_]+)[,;]", text)[1].replace("_", ""))

    def test_behaviour_is_that_of_the_simulation(self):
        scaled = of_kind(rendered("scaled"), "ScaledObject")[0]["spec"]
        self.assertEqual(scaled["pollingInterval"], self.number(self.DAY, "EVERY"))
        behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        period = self.number(self.DAY, "UP_PERIOD")
        self.assertEqual(
            behavior["scaleUp"]["policies"],
            [
                {"type": "Percent", "value": self.number(self.DAY, "UP_PERCENT"), "periodSeconds": period},
                {"type": "Pods", "value": self.number(self.DAY, "UP_PODS"), "periodSeconds": period},
            ],
        )
        down = {
            # The coordinators have waited before they drain.
            "stabilizationWindowSeconds": 0,
            "policies": [
                {"type": "Percent", "value": self.number(self.DAY, "DOWN_PERCENT"), "periodSeconds": self.number(self.DAY, "DOWN_PERIOD")}
            ],
        }
        self.assertEqual(behavior["scaleDown"], down)
        metadata = scaled["triggers"][0]["metadata"]
        self.assertEqual(int(metadata["streamsPerWorker"]), self.number(self.DAY, "WORKER"))
        settings = self.scale_in()
        self.assertEqual(settings["after"], f"{self.number(self.DAY, 'STABLE')}s")
        self.assertEqual(settings["least"], self.number(self.DAY, "LEAST"))
        for ours, theirs in (("bits_per_worker", "bitsPerWorker"), ("reserve_streams", "reserveStreams"), ("reserve_percent", "reservePercent")):
            self.assertEqual(int(metadata[theirs]), self.number(self.TARGETS, ours))
            self.assertEqual(settings[ours], int(metadata[theirs]))
        self.assertEqual(settings["streams_per_worker"], int(metadata["streamsPerWorker"]))

    def scale_in(self):
        text = next(each["data"]["coordinator.toml"] for each in of_kind(rendered("scaled"), "ConfigMap") if "coordinator.toml" in each["data"])
        return tomllib.loads(text)["coordinator"]["scale_in"]

    def test_the_scaler_knows_every_word_of_the_trigger(self):
        source = (ROOT / "coordinator" / "src" / "scaler.rs").read_text()
        trigger = of_kind(rendered("scaled"), "ScaledObject")[0]["spec"]["triggers"][0]
        for word in trigger["metadata"]:
            self.assertIn(f'"{word}"', source)
        host, port = trigger["metadata"]["scalerAddress"].split(":")
        service = next(each for each in of_kind(rendered("scaled"), "Service") if each["metadata"]["name"] == host.split(".")[0])
        self.assertIn(int(port), [each["port"] for each in service["spec"]["ports"]])

    def test_the_coordinators_are_told_which_workers_they_may_drain(self):
        objects = rendered("scaled")
        named = self.scale_in()["workers"]
        self.assertIn(named, [each["metadata"]["name"] for each in of_kind(objects, "StatefulSet")])
        worker = next(spec for name, _, spec in pods(objects) if name == named)
        self.assertIn("--name=$(POD_NAME)", worker["containers"][0]["args"], "which is the set's name and a number")

    def test_keda_may_ask(self):
        policy = next(each for each in of_kind(rendered("scaled"), "NetworkPolicy") if each["metadata"]["name"].endswith("-coordinator"))
        peers = next(rule["from"] for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == 7070)
        self.assertIn({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}, peers)

    def test_nothing_is_scaled_in_unless_somebody_says_so(self):
        for name in VALUE_SETS:
            for each in of_kind(rendered(name), "HorizontalPodAutoscaler"):
                self.assertEqual(each["spec"]["behavior"]["scaleDown"], {"selectPolicy": "Disabled"})


class Tls(unittest.TestCase):
    """Over TLS everybody is called by a name that its certificate has."""

    def names(self, objects):
        return {each["spec"]["secretName"]: each["spec"].get("dnsNames", []) for each in of_kind(objects, "Certificate")}

    def toml(self, objects, role):
        text = next(each["data"] for each in of_kind(objects, "ConfigMap") if "worker.toml" in each["data"])
        return tomllib.loads(text[f"{role}.toml"])

    def test_a_role_serves_with_its_own_secret_and_callers_show_tokens(self):
        objects = rendered("scaled")
        for name, _, spec in pods(objects):
            role = name.rsplit("-", 1)[1]
            [secret] = [each["secret"]["secretName"] for each in spec["volumes"] if each["name"] == "tls"]
            self.assertIn(name, self.names(objects)[secret])
            tls = self.toml(objects, role)["tls"]
            self.assertEqual((tls["coordinator_name"], tls["admit_certificates"]), ("aircheck-coordinator", False))
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self.assertEqual(spec["containers"][0][probe]["httpGet"]["scheme"], "HTTPS")

    def test_workers_and_keda_call_a_name_that_the_coordinators_have(self):
        objects = rendered("scaled")
        names = self.names(objects)["aircheck-coordinator-tls"]
        [url] = self.toml(objects, "worker")["worker"]["coordinator"]
        self.assertIn(re.fullmatch(r"https://(.+):7070", url)[1], names)
        trigger = of_kind(objects, "ScaledObject")[0]["spec"]["triggers"][0]
        self.assertEqual(trigger["metadata"]["enableTLS"], "true")
        self.assertIn(trigger["metadata"]["scalerAddress"].split(":")[0], names)
        [trusted] = of_kind(objects, "TriggerAuthentication")
        self.assertEqual(trigger["authenticationRef"], {"name": trusted["metadata"]["name"]})
        self.assertEqual(trusted["spec"]["secretTargetRef"], [{"parameter": "caCert", "name": "aircheck-coordinator-tls", "key": "ca.crt"}])

    def test_the_authority_is_the_releases_own_unless_another_is_named(self):
        objects = rendered("scaled")
        issuers = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "Issuer")}
        [authority] = [each["spec"] for each in of_kind(objects, "Certificate") if each["spec"].get("isCA")]
        self.assertEqual(issuers[authority["issuerRef"]["name"]], {"selfSigned": {}})
        for each in of_kind(objects, "Certificate"):
            if not each["spec"].get("isCA"):
                self.assertEqual(issuers[each["spec"]["issuerRef"]["name"]], {"ca": {"secretName": authority["secretName"]}})
        named = ["--set", "tls.certManager.issuerRef.name=internal", "--set", "tls.certManager.dnsNames={a.example.com}"]
        other = documents(helm_template("-f", CHART / "ci" / "scaled.yaml", *named).stdout)
        self.assertEqual(of_kind(other, "Issuer"), [])
        leaves = of_kind(other, "Certificate")
        self.assertEqual([each["spec"]["issuerRef"]["name"] for each in leaves], ["internal", "internal"])
        self.assertIn("a.example.com", leaves[0]["spec"]["dnsNames"])

    def test_without_it_nothing_speaks_of_it(self):
        objects = rendered("trial")
        self.assertEqual(of_kind(objects, "Issuer", "Certificate", "TriggerAuthentication"), [])
        for role in ("coordinator", "worker"):
            self.assertNotIn("tls", self.toml(objects, role))


class Production(unittest.TestCase):
    def test_secrets_are_named_and_never_written(self):
        objects = rendered("production")
        self.assertEqual(of_kind(objects, "Secret"), [])
        volumes = {
            volume["secret"]["secretName"]
            for name, _, spec in pods(objects)
            for volume in spec["volumes"]
            if "secret" in volume
        }
        self.assertEqual(volumes, {"coordinator-tls", "etcd-password", "etcd-tls", "origin-token", "recorder-tokens", "secrets-key", "worker-tls"})

    def test_a_worker_holds_nothing_but_its_tokens_and_its_certificate(self):
        worker = next(spec for name, _, spec in pods(rendered("production")) if name.endswith("-worker"))
        held = [volume["secret"]["secretName"] for volume in worker["volumes"] if "secret" in volume]
        self.assertEqual(held, ["recorder-tokens", "worker-tls"])

    def test_prometheus_shows_the_token_to_who_has_the_certificate(self):
        for monitor in of_kind(rendered("production"), "PodMonitor"):
            endpoint = monitor["spec"]["podMetricsEndpoints"][0]
            self.assertEqual(endpoint["authorization"]["credentials"], {"name": "recorder-tokens", "key": "api-token"})
            role = monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
            secret = {"secret": {"name": f"{role}-tls", "key": "ca.crt"}}
            self.assertEqual(endpoint["scheme"], "https")
            self.assertEqual(endpoint["tlsConfig"], {"serverName": f"recorder-{role}", "ca": secret})

    def test_keys_of_the_bucket_come_from_their_secret(self):
        worker = next(spec for name, _, spec in pods(rendered("production")) if name.endswith("-worker"))
        references = {
            each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
            for each in worker["containers"][0]["env"]
            if "secretKeyRef" in each.get("valueFrom", {})
        }
        self.assertEqual(references, {"AWS_ACCESS_KEY_ID": "s3-keys", "AWS_SECRET_ACCESS_KEY": "s3-keys"})

    def test_rules_and_dashboards_are_those_of_the_repository(self):
        import yaml

        from support import OBSERVABILITY

        objects = rendered("production")
        rule = of_kind(objects, "PrometheusRule")[0]
        groups = []
        for name in ("recording", "alerts"):
            groups += yaml.safe_load((OBSERVABILITY / "prometheus" / f"{name}.yaml").read_text())["groups"]
        self.assertEqual(rule["spec"]["groups"], groups)
        boards = {
            name: text
            for each in of_kind(objects, "ConfigMap")
            for name, text in each["data"].items()
            if name.endswith(".json")
        }
        self.assertEqual(boards, {path.name: path.read_text() for path in (OBSERVABILITY / "grafana").glob("*.json")})
        monitors = [each["spec"] for each in of_kind(objects, "PodMonitor")]
        for name, labels, spec in pods(objects):
            [monitor] = [each for each in monitors if each["selector"]["matchLabels"].items() <= labels.items()]
            self.assertEqual(monitor["podMetricsEndpoints"][0]["port"], "http", name)

    def test_settings_reach_both_roles_as_they_were_written(self):
        text = of_kind(rendered("production"), "ConfigMap")
        for role in ("coordinator.toml", "worker.toml"):
            toml = next(each["data"][role] for each in text if role in each["data"])
            self.assertIn("worker.ingest.max_connections = 200000\n", toml)
            self.assertIn('worker.time_zone = "Asia/Shanghai"\n', toml)


class Refusals(unittest.TestCase):
    """What is wrong is refused before anything is installed, and the message names it."""

    CASES = [
        (["insecure=true"], "metadata.url is empty"),
        (["trial.etcd.enabled=true"], "credentials.existingSecret is empty"),
        (["trial.etcd.enabled=true", "insecure=true", "credentials.existingSecret=s"], "give one"),
        (["insecure=true", "metadata.url=etcd://h:2379/a", "trial.etcd.enabled=true"], "give one"),
        (["insecure=true", "metadata.url=etcds://h:2379/a"], "metadata.tls"),
        (["insecure=true", "metadata.url=etcd://h:2379/a", "metadata.tls.existingSecret=s"], "does not begin with etcds://"),
        (["insecure=true", "metadata.url=etcd://user:password@h:2379/a"], "/metadata/url"),
        (["insecure=true", "metadata.url=http://h:2379"], "/metadata/url"),
        (["insecure=true", "trial.etcd.enabled=true", "tls.coordinatorSecret=s"], "tls.coordinatorSecret and tls.workerSecret go together"),
        (["insecure=true", "trial.etcd.enabled=true", "tls.coordinatorSecret=s", "tls.workerSecret=w", "tls.certManager.enabled=true"], "give one"),
        (["insecure=true", "trial.etcd.enabled=true", "settings.tls\\.ca_file=/x"], "tls.ca_file is decided by the chart"),
        (["insecure=true", "trial.etcd.enabled=true", "metadata.user=u"], "metadata.passwordSecret.name"),
        (["insecure=true", "trial.etcd.enabled=true", "metadata.tls.certManager.enabled=true"], "does not begin with etcds://"),
        (["insecure=true", "trial.etcd.enabled=true", "coordinator.replicas=three"], "/coordinator/replicas"),
        (["insecure=true", "trial.etcd.enabled=true", "coordinator.replica=3"], "replica"),
        (["insecure=true", "trial.etcd.enabled=true", "coordinator.record={hls,avi}"], "/coordinator/record/1"),
        (["insecure=true", "trial.etcd.enabled=true", "worker.volume.size=lots"], "/worker/volume/size"),
        (["insecure=true", "trial.etcd.enabled=true", "worker.resources.requests.cpu=much"], "/worker/resources/requests/cpu"),
        (["insecure=true", "trial.etcd.enabled=true", "worker.drainGraceSeconds=-1"], "/worker/drainGraceSeconds"),
        (["insecure=true", "trial.etcd.enabled=true", "image.tag=latest"], "/image/tag"),
        (["insecure=true", "trial.etcd.enabled=true", "image.digest=abc"], "/image/digest"),
        (["insecure=true", "trial.etcd.enabled=true", "securityContext.privileged=true"], "/securityContext/privileged"),
        (["insecure=true", "trial.etcd.enabled=true", "podSecurityContext.runAsNonRoot=false"], "/podSecurityContext/runAsNonRoot"),
        (["insecure=true", "trial.etcd.enabled=true", "autoscaling.kind=magic"], "/autoscaling/kind"),
        (["insecure=true", "trial.etcd.enabled=true", "autoscaling.minReplicas=30"], "autoscaling.minReplicas is more"),
        (["insecure=true", "trial.etcd.enabled=true", "settings.worker\\.rtmp=0.0.0.0:1"], "worker.rtmp is decided by the chart"),
        (["insecure=true", "trial.etcd.enabled=true", "settings.preroll=10s"], "'preroll' does not match"),
        (["insecure=true", "trial.etcd.enabled=true", "objects.url=https://s3.example.com/b"], "/objects/url"),
        (["insecure=true", "trial.etcd.enabled=true", "autoscaling.keda.streamsPerWorker=0"], "/autoscaling/keda/streamsPerWorker"),
        (["insecure=true", "trial.etcd.enabled=true", "hooks.origin=rtmp://o/live/x"], "hooks.tokenSecret.name"),
        (["insecure=true", "trial.etcd.enabled=true", "networkPolicy.http[0].cidr=10.0.0.0/8"], "/networkPolicy/http/0"),
    ]

    def test_bad_values_are_refused_and_named(self):
        for values, said in self.CASES:
            with self.subTest(values=values):
                args = [part for value in values for part in ("--set", value)]
                done = helm_template(*args, check=False)
                self.assertNotEqual(done.returncode, 0, "this was rendered")
                self.assertIn(said, done.stderr)

    def test_every_value_has_its_place_in_the_schema(self):
        import json

        import yaml

        values = yaml.safe_load((CHART / "values.yaml").read_text())
        schema = json.loads((CHART / "values.schema.json").read_text())

        def check(value, shape, path):
            if not isinstance(value, dict) or "properties" not in shape:
                return
            if shape.get("additionalProperties") is False:
                optional = {"global"}
                self.assertEqual(set(shape["properties"]) - optional - set(value), set(), f"{path}: in the schema, without a default")
            for name, inner in value.items():
                if name in shape["properties"]:
                    check(inner, shape["properties"][name], f"{path}.{name}")

        check(values, schema, "values")


if __name__ == "__main__":
    unittest.main()
