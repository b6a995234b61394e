"""The image and the compose file, by schema and lint and against the code: no container engine runs here."""

import ast
import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.local.secrets import load_secrets
from deploy.local.settings import ROOT
from deploy.secrets import ADMIN_PASSWORD, Handout
from kit.settings import PORTS, SERVICES, Settings
from tests.contract.tree import parsed, python_files

# Other programs look at the files, which takes them a while.
pytestmark = pytest.mark.slow

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"
WATCH = ROOT / "deploy" / "compose.watch.yaml"
HADOLINT = Path(sys.executable).parent / "hadolint"
SECRETS = "${STORYLOOM_SECRETS:-../.run/compose}"
ONCE = {"bootstrap", "migrations", "gateway-configuration", "backup"}
# Packages of the image by the name they are imported as, where that is another.
IMPORTED_AS = {"pyyaml": "yaml", "protobuf": "google", "googleapis-common-protos": "google", "argon2-cffi": "argon2"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the files of secrets hold."""
    values = load_secrets(tmp_path_factory.mktemp("handed") / "all.secrets")
    return Handout(values | {ADMIN_PASSWORD: "x"}, "postgres:5432").files()


def stage(name: str) -> str:
    """The instructions of one stage of the Dockerfile."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, name
    return found.group(1)


class TestImage:
    @pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not installed")
    def test_pleases_the_linter(self) -> None:
        lint = subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, check=False)
        assert (lint.returncode, lint.stdout) == (0, "")

    def test_runs_as_nobody_in_particular_and_is_the_default(self) -> None:
        assert "USER 10001:10001" in stage("service")
        assert DOCKERFILE.read_text().rstrip().endswith("FROM service")

    def test_has_what_its_programs_import_and_nothing_of_tests(self) -> None:
        locked = set(re.findall(r"^([a-z0-9_.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE | re.I))
        locked |= set(re.findall(r"-v names='([^']+)'", stage("packages"))[0].split("|"))
        tops = {IMPORTED_AS.get(name.lower(), name.lower().replace("-", "_")) for name in locked}
        tops |= {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "opentelemetry", "storyloom", "buf"}
        tops |= {"kit", "services", "gateway", "deploy", "tools", *sys.stdlib_module_names}
        programs = [*python_files("kit", "services", "gateway"), *map(Path, ("deploy/probe.py", "deploy/secrets.py"))]
        programs += [path for path in python_files("deploy") if path.parts[1] == "admin"]
        programs += [Path("tools/signing_in.py")]
        missing = {f"{path}: {name}" for path in programs for name in imported(path) if name not in tops}
        assert not missing

    @pytest.mark.parametrize("name", ["packages", "stubs", "backup-packages"])
    def test_takes_single_packages_from_the_lock_with_their_hashes(self, name: str) -> None:
        awk = shutil.which("awk")
        assert awk
        for names in re.findall(r"-v names='([^']+)'", stage(name)):
            command = [awk, "-v", f"names={names}", "-f", "deploy/locked.awk", "requirements-dev.lock"]
            lock = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
            assert set(re.findall(r"^([a-z-]+)==", lock, re.MULTILINE)) == set(names.split("|"))
            assert lock.count("==") <= lock.count("--hash=sha256:")


def imported(path: Path) -> set[str]:
    """The packages that a file imports when it is itself imported."""
    nodes = [node for node in parsed(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [one.name for node in nodes if isinstance(node, ast.Import) for one in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


class TestCompose:
    @pytest.mark.parametrize("path", [COMPOSE, WATCH], ids=lambda path: path.name)
    def test_is_what_the_specification_allows(self, path: Path) -> None:
        schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
        jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(schema.read_text()))

    def test_runs_everything_bounded_and_without_rights(self, compose: dict[str, Any]) -> None:
        for name, one in compose["services"].items():
            assert one["read_only"], name
            assert one["cap_drop"] == ["ALL"], name
            assert one["security_opt"] == ["no-new-privileges:true"], name
            assert one["mem_limit"], name
            assert one["cpus"], name
            assert one["restart"] == ("no" if name in ONCE else "unless-stopped"), name
            assert re.search(r":[\w.-]*\d|^\$\{STORYLOOM_IMAGE", one["image"]), name

    def test_lets_in_by_the_gateway_alone(self, compose: dict[str, Any]) -> None:
        assert {name for name, one in compose["services"].items() if "ports" in one} == {"gateway"}
        assert compose["services"]["gateway"]["ports"] == ["127.0.0.1:8080:8080"]
        assert {name for name, one in compose["networks"].items() if not one.get("internal")} == {"edge"}
        assert {name for name, one in compose["services"].items() if "edge" in one.get("networks", ())} == {"gateway"}
        watched = yaml.safe_load(WATCH.read_text())["services"]
        assert all(port.startswith("127.0.0.1:") for one in watched.values() for port in one["ports"])

    def test_shows_the_database_to_none_but_its_users(self, compose: dict[str, Any]) -> None:
        users = {name for name, one in compose["services"].items() if "data" in one.get("networks", ())}
        assert users == {*SERVICES, "postgres", "bootstrap", "migrations", "backup", "wal"}

    def test_starts_in_the_order_of_needs(self, compose: dict[str, Any]) -> None:
        services = compose["services"]
        assert services["migrations"]["depends_on"] == {"bootstrap": {"condition": "service_completed_successfully"}}
        for name in SERVICES:
            assert services[name]["depends_on"] == {"migrations": {"condition": "service_completed_successfully"}}
        assert {*SERVICES, "gateway-configuration"} == services["gateway"]["depends_on"].keys()
        for one in services.values():
            for needed, how in one.get("depends_on", {}).items():
                if how["condition"] == "service_healthy":
                    assert services[needed].get("healthcheck", {}).get("disable") is not True

    @pytest.mark.parametrize("name", SERVICES)
    def test_gives_a_service_settings_it_can_start_with(
        self, compose: dict[str, Any], name: str, handed: dict[str, dict[str, str]]
    ) -> None:
        one = compose["services"][name]
        assert one["environment"]["LISTEN_ADDRESS"] == f"0.0.0.0:{PORTS[name]}"
        assert f"{SECRETS}/certificates/{name}:/run/tls:ro" in one["volumes"]
        settings = Settings.from_environment(name, one["environment"] | handed[name])
        assert settings.secret
        assert int(one["stop_grace_period"].removesuffix("s")) >= settings.drain_delay + settings.drain_grace + 5
        assert [settings.address_of(other) for other in SERVICES] == [f"{other}:{PORTS[other]}" for other in SERVICES]
        assert one["env_file"] == [{"path": f"{SECRETS}/{name}.env", "format": "raw"}]

    def test_has_no_secret_in_it(self, compose: dict[str, Any]) -> None:
        secret = re.compile(r"PASSWORD|SECRET(?!S)|CREDENTIAL|_KEY$|DATABASE_URL")
        named = {key for one in compose["services"].values() for key in one.get("environment", {})}
        assert {key for key in named if secret.search(key)} == {"TLS_KEY"}
        assert compose["services"]["audit"]["environment"]["TLS_KEY"].startswith("/run/")
