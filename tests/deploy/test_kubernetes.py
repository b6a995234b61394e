"""The manifests are what the generator makes, what Kubernetes accepts, and let through what services really call."""

import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.kubernetes.__main__ import OUT, manifests, text
from deploy.kubernetes.calls import CALLS
from deploy.local.secrets import load_secrets
from gateway.routes import LONGEST_UNARY
from kit.server import Service
from kit.settings import PORTS, SERVICES, Settings
from services.callers import ALLOWED

# Other programs look at the files, which takes them a while.
pytestmark = pytest.mark.slow

OLDEST, NEWEST = "1.32", kubernetes_validate.latest_version()
PODS = ("Deployment", "Job")
EXAMPLE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "example"
EXAMPLE_TLS = EXAMPLE.with_name("example-tls")
RESOURCES = [
    pytest.param(one, id=f"{name}-{one['kind']}")
    for name, found in manifests().items()
    for one in found
    if one["kind"] != "Kustomization"
]
WORKLOADS = [one for one in RESOURCES if one.values[0]["kind"] in PODS]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    """The five services as their own `build` puts them together; none is started."""
    folder = tmp_path_factory.mktemp("built")
    secrets = load_secrets(folder / "secrets.env")
    made = {}
    for name in SERVICES:
        settings = Settings(
            service=name,
            database_url="postgresql://nobody@127.0.0.1/storyloom",
            secret_key=secrets["SECRET_KEY"],
            service_credential=secrets[f"SERVICE_CREDENTIAL_{name.upper()}"],
            service_keys=secrets["SERVICE_KEYS"],
            key_encryption_key=secrets["KEY_ENCRYPTION_KEY"],
            audit_key_encryption_key=secrets["AUDIT_KEY_ENCRYPTION_KEY"],
            audit_signing_key=secrets["AUDIT_SIGNING_KEY"],
            storage_directory=str(folder),
        )
        made[name] = import_module(f"services.{name}.__main__").build(settings)
    return made


class TestCalls:
    def test_are_those_that_services_have_stubs_for(self, built: dict[str, Service]) -> None:
        for name, service in built.items():
            opened = {*service.clients._channels, *service.db.routes.all}
            # All but identity itself ask it who may do what.
            opened |= set() if service._trust else {"identity"}
            assert CALLS[name] == opened, name

    def test_admit_whom_the_services_admit(self, built: dict[str, Service]) -> None:
        for grpc_service, allowed in ALLOWED.items():
            hosts = {name for name, one in built.items() if grpc_service in serves(one)}
            for caller in allowed:
                assert CALLS[caller] & hosts, f"{caller} cannot reach any host of {grpc_service}"
        # Nobody is let through whom no service would answer.
        internal = {caller for allowed in ALLOWED.values() for caller in allowed}
        assert CALLS.keys() - {"gateway"} == internal

    @pytest.mark.parametrize("name", SERVICES)
    def test_are_let_out_and_in_alike(self, name: str) -> None:
        ingress, egress = policy(name)["ingress"], policy(name)["egress"]
        assert peers(ingress, "from", PORTS[name]) == {caller for caller, called in CALLS.items() if name in called}
        let_out = {peer for called in PORTS for peer in peers(egress, "to", PORTS[called])}
        assert let_out == CALLS[name]


def serves(service: Service) -> set[str]:
    return {one.SERVICE.full_name for one in service._servicers}


def policy(name: str) -> dict[str, Any]:
    (found,) = (one for one in manifests()[f"base/{name}.yaml"] if one["kind"] == "NetworkPolicy")
    spec: dict[str, Any] = found["spec"]
    return spec


def peers(rules: list[dict[str, Any]], side: str, port: int) -> set[str]:
    """The pods of this namespace that the rules name for the port."""
    return {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for rule in rules
        if {"protocol": "TCP", "port": port} in rule["ports"]
        for peer in rule[side]
        if "namespaceSelector" not in peer
    }


@pytest.fixture(scope="module")
def written() -> Path:
    """The folder that overlays refer to, with the manifests as they are now."""
    for name, resources in manifests().items():
        (OUT / name).parent.mkdir(parents=True, exist_ok=True)
        (OUT / name).write_text(text(resources))
    return OUT


class TestManifests:
    @pytest.mark.parametrize("version", [OLDEST, NEWEST])
    @pytest.mark.parametrize("made", RESOURCES)
    def test_are_what_kubernetes_accepts(self, made: dict[str, Any], version: str) -> None:
        kubernetes_validate.validate(made, version, strict=True)

    @pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed: kustomizations not rendered")
    @pytest.mark.parametrize("folder", ["base", "migrations", "bootstrap", EXAMPLE, EXAMPLE_TLS])
    def test_are_rendered_by_kustomize(self, folder: str | Path, written: Path) -> None:
        command = ["kubectl", "kustomize", written / folder]
        rendered = subprocess.run(command, capture_output=True, text=True, check=True)
        found = list(yaml.safe_load_all(rendered.stdout))
        assert {one["metadata"]["namespace"] for one in found} == {"storyloom"}
        for one in found:
            kubernetes_validate.validate(one, NEWEST, strict=True)
        images = {box["image"] for one in found if one["kind"] in PODS for box in boxes(one)}
        wanted = "registry.example/storyloom:0.1.0" if folder in (EXAMPLE, EXAMPLE_TLS) else "storyloom:latest"
        assert wanted in images


def boxes(made: dict[str, Any]) -> list[dict[str, Any]]:
    spec = made["spec"]["template"]["spec"]
    found: list[dict[str, Any]] = [*spec.get("initContainers", ()), *spec["containers"]]
    return found


class TestPods:
    @pytest.mark.parametrize("made", WORKLOADS)
    def test_can_do_no_more_than_they_must(self, made: dict[str, Any]) -> None:
        spec = made["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["automountServiceAccountToken"] is False
        for box in boxes(made):
            assert box["securityContext"]["readOnlyRootFilesystem"]
            assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert box["resources"]["limits"]["memory"]

    @pytest.mark.parametrize("made", WORKLOADS)
    def test_are_given_secrets_by_name_only(self, made: dict[str, Any]) -> None:
        own = {f"storyloom-{made['metadata']['name']}"}
        for box in boxes(made):
            assert {one["secretRef"]["name"] for one in box.get("envFrom", ()) if "secretRef" in one} <= own
            assert {one["name"] for one in box.get("env", ())} <= {
                "LISTEN_ADDRESS",
                "INSTANCE",
                "GATEWAY_ADDRESS",
                "GATEWAY_METRICS_ADDRESS",
                "GATEWAY_ADMIN_ADDRESS",
            }

    @pytest.mark.parametrize("name", SERVICES)
    def test_get_the_time_to_drain(self, name: str) -> None:
        (made,) = (one for one in manifests()[f"base/{name}.yaml"] if one["kind"] == "Deployment")
        data = manifests()["base/settings.yaml"][0]["data"]
        grace = made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace > float(data["DRAIN_DELAY"]) + float(data["DRAIN_GRACE"])
        # As long as a caller may give a call.
        assert float(data["DRAIN_GRACE"]) >= float(LONGEST_UNARY.removesuffix("s"))
        # So that none is missing while one is replaced.
        assert made["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}

    def test_find_all_settings_that_are_no_secret(self) -> None:
        data = manifests()["base/settings.yaml"][0]["data"]
        secrets = {"database_url": "x", "secret_key": "x", "service_credential": "x", "service_keys": "x"}
        given = data | {name.upper(): value for name, value in secrets.items()}
        assert Settings.from_environment("content", given).storage_bucket
