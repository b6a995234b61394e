"""The probe of containers: a real server, with and without mutual TLS; and the files that containers are given."""

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy import certificates, probe, secrets
from kit.settings import SERVICES, SettingsError, TlsFiles
from kit.tls import Tls, open_port
from tests.deploy.image import run

# Other programs look at the files, which takes them a while.
pytestmark = pytest.mark.slow

Health = tuple[health.aio.HealthServicer, dict[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("secrets")
    secrets.write(made, "database:5432?sslmode=verify-full")
    return made


def tls(folder: Path, name: str) -> dict[str, str]:
    files = folder / "certificates" / name
    return {"TLS_CERTIFICATE": f"{files}/tls.crt", "TLS_KEY": f"{files}/tls.key", "TLS_CA": f"{files}/ca.crt"}


@pytest.fixture
async def content(folder: Path) -> AsyncIterator[Health]:
    """The health service of `content` behind mutual TLS, and the environment that its container has."""
    environment = tls(folder, "content")
    files = TlsFiles.of(*environment.values())
    assert files is not None
    server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = open_port(server, "127.0.0.1:0", Tls("content", files))
    await server.start()
    await servicer.set("storyloom.content", health_pb2.HealthCheckResponse.SERVING)
    yield servicer, environment | {"LISTEN_ADDRESS": f"0.0.0.0:{port}"}
    await server.stop(0)


class TestServing:
    async def test_is_what_the_service_says_over_mutual_tls(self, content: Health) -> None:
        servicer, environment = content
        assert await run("deploy.probe", "content", environment=environment) == 0
        await servicer.enter_graceful_shutdown()
        assert await run("deploy.probe", "content", environment=environment) == 1

    async def test_is_not_said_without_the_certificate_or_to_another_name(self, content: Health) -> None:
        address = {"LISTEN_ADDRESS": content[1]["LISTEN_ADDRESS"]}
        assert await run("deploy.probe", "content", environment=address) == 1
        assert await run("deploy.probe", "audit", environment=content[1]) == 1

    async def test_cannot_be_asked_without_an_address(self) -> None:
        assert await run("deploy.probe", "content", environment={}) == 2
        with pytest.raises(SettingsError, match="LISTEN_ADDRESS"):
            probe.serving("content", {"LISTEN_ADDRESS": "127.0.0.1:0"})

    @pytest.mark.parametrize(
        ("listen", "reached"),
        [("0.0.0.0:7101", "127.0.0.1:7101"), ("[::]:7101", "[::1]:7101"), ("10.0.0.7:7101", "10.0.0.7:7101")],
    )
    def test_is_asked_beside_the_server(self, listen: str, reached: str) -> None:
        assert probe.target(listen) == reached


class TestSecrets:
    def test_go_to_no_program_that_has_no_use_for_them(self, folder: Path) -> None:
        files = {
            path.stem: dict(line.split("=", 1) for line in path.read_text().splitlines())
            for path in folder.glob("*.env")
        }
        assert {*SERVICES, "gateway", "migrations", "bootstrap", "backup", "wal", "postgres", "compose"} == files.keys()
        assert files["gateway"].keys() == {"GATEWAY_SECRET"}
        assert files["migrations"].keys() == {"OWNER_DATABASE_URL"}
        for name in ("KEY_ENCRYPTION_KEY", "AUDIT_SIGNING_KEY", "AUDIT_KEY_ENCRYPTION_KEY"):
            assert sum(name in variables for variables in files.values()) == 1
        credentials = {files[name]["SERVICE_CREDENTIAL"] for name in SERVICES}
        assert len(credentials) == len(SERVICES)
        assert {key["kid"] for key in json.loads(files["audit"]["SERVICE_KEYS"])["keys"]} == set(SERVICES)

    def test_name_the_database_as_each_role_reaches_it(self, folder: Path) -> None:
        text = (folder / "content.env").read_text()
        assert "DATABASE_URL=postgresql://storyloom_content:" in text
        assert "@database:5432/storyloom?sslmode=verify-full" in text

    def test_stay_as_they_are_while_certificates_are_renewed(self, folder: Path) -> None:
        before, certificate = (folder / "audit.env").read_bytes(), (folder / "certificates/audit/tls.crt").read_bytes()
        secrets.write(folder, "database:5432?sslmode=verify-full")
        assert (folder / "audit.env").read_bytes() == before
        assert (folder / "certificates/audit/tls.crt").read_bytes() != certificate

    def test_are_read_by_their_owner_alone(self, folder: Path) -> None:
        modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.rglob("*") if path.is_file()}
        assert modes == {0}
        assert {path.name for path in (folder / "certificates").iterdir()} == {"ca", *certificates.PROCESSES}
