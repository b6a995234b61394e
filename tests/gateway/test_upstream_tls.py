"""The gateway speaks plaintext to this machine only; to all others TLS, as itself, with whom it means."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.certificates import make
from gateway.descriptors import Api
from gateway.envoy import write
from gateway.settings import Settings
from kit.settings import SERVICES
from tests.contract.tree import ROOT

NAMES = {"TLS_CERTIFICATE": "tls.crt", "TLS_KEY": "tls.key", "TLS_CA": "ca.crt"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def environment(certificates: Path) -> dict[str, str]:
    return {variable: str(certificates / "gateway" / name) for variable, name in NAMES.items()}


@pytest.fixture(scope="module")
def made(api: Api, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(api, Settings.read(environment), tmp_path_factory.mktemp("made"))


def clusters(configuration: Path) -> dict[str, dict[str, Any]]:
    found = yaml.safe_load(configuration.read_text())["static_resources"]["clusters"]
    return {one["name"]: one for one in found}


class TestPlaintext:
    @pytest.mark.parametrize("service", SERVICES)
    @pytest.mark.parametrize("address", ["10.0.0.7:7101", "identity:7101", "127.0.0.1:7101,identity-1:7101"])
    def test_goes_to_no_other_machine(self, service: str, address: str) -> None:
        with pytest.raises(ValueError, match=f"^{service.upper()}_ADDRESS is .*: beyond this machine plaintext"):
            Settings.read({f"{service.upper()}_ADDRESS": address})

    def test_is_what_there_is_without_tls_files(self, configuration: dict[str, Any]) -> None:
        assert not [one for one in configuration["static_resources"]["clusters"] if "transport_socket" in one]

    @pytest.mark.parametrize("name", NAMES)
    def test_is_no_way_out_of_half_the_settings(self, environment: dict[str, str], name: str) -> None:
        with pytest.raises(ValueError, match=f"^{name} is not set"):
            Settings.read({variable: path for variable, path in environment.items() if variable != name})


class TestTls:
    def test_is_spoken_with_every_service_under_its_own_name(self, made: Path) -> None:
        found = clusters(made)
        for service in SERVICES:
            socket = found[service]["transport_socket"]["typed_config"]
            common = socket["common_tls_context"]
            (name,) = common["combined_validation_context"]["default_validation_context"][
                "match_typed_subject_alt_names"
            ]
            assert (socket["sni"], name) == (service, {"san_type": "DNS", "matcher": {"exact": service}})
            assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"
            assert [one["name"] for one in common["tls_certificate_sds_secret_configs"]] == ["certificate"]

    def test_is_not_spoken_with_itself(self, made: Path) -> None:
        assert "transport_socket" not in clusters(made)["keys"]

    def test_finds_its_files_through_the_links_that_a_renewal_changes(
        self, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "data").symlink_to(certificates / "gateway")
        monkeypatch.chdir(tmp_path)
        settings = Settings.read({variable: f"data/{name}" for variable, name in NAMES.items()})
        assert settings.tls is not None
        assert settings.tls.certificate == tmp_path / "data/tls.crt"

    def test_has_no_key_in_the_configuration(self, made: Path) -> None:
        files = [one for one in made.parent.iterdir() if one.is_file()]
        assert not [one for one in files if b"PRIVATE KEY" in one.read_bytes()]


class TestCommand:
    def run(self, environment: dict[str, str], out: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-W", "ignore", "-m", "gateway.envoy", "--out", str(out)]
        variables = environment | {"PYTHONPATH": "gen"}
        return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)

    def test_writes_nothing_for_the_certificate_of_another(self, certificates: Path, tmp_path: Path) -> None:
        of_content = {variable: str(certificates / "content" / name) for variable, name in NAMES.items()}
        ended = self.run(of_content, tmp_path / "out")
        assert (ended.returncode, ended.stderr) == (
            1,
            f"gateway: TLS_CERTIFICATE does not have the DNS name gateway: {certificates}/content/tls.crt\n",
        )
        assert not (tmp_path / "out").exists()

    def test_says_in_one_sentence_what_it_refuses(self, tmp_path: Path) -> None:
        ended = self.run({"AUDIT_ADDRESS": "audit:7105"}, tmp_path / "out")
        assert ended.stderr.splitlines() == [
            "gateway: AUDIT_ADDRESS is audit:7105: beyond this machine plaintext is refused, "
            "so set TLS_CERTIFICATE, TLS_KEY and TLS_CA"
        ]
