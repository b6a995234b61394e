"""The real binary, running what was made, with all services down."""

import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.descriptors import Api
from gateway.envoy import PAGES, write
from gateway.routes import PAGE_FILES, content_security_policy
from gateway.settings import OWN_SOCKET, Settings

ENVOY = Path(sys.executable).parent / "envoy"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the running Envoy has its files, and its administration's socket."""
    return tmp_path_factory.mktemp("running")


@pytest.fixture(scope="module")
def gateway(api: Api, folder: Path) -> Iterator[httpx.Client]:
    """A running Envoy whose services are all down."""
    port, nobody = free_port(), f"127.0.0.1:{free_port()}"
    environment = {"GATEWAY_ADDRESS": f"127.0.0.1:{port}"}
    environment |= {f"{name}_ADDRESS": nobody for name in ("IDENTITY", "CONTENT", "LEARNING", "ASSESSMENT", "AUDIT")}
    made = write(api, Settings.read(environment | {"ACCESS_LOG": ""}), folder)
    log = ("--log-path", str(folder / "envoy.log"))
    process = subprocess.Popen([ENVOY, "-c", str(made), "--concurrency", "1", "--disable-hot-restart", *log])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            for _ in range(100):
                try:
                    client.get("/docs")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait(10)


def _envoy_of(folder: Path) -> psutil.Process:
    return next(one for one in psutil.Process().children() if str(folder / "envoy.yaml") in one.cmdline())


def reason(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/json"
    (detail,) = answer.json()["details"]
    assert (detail["@type"], detail["domain"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "storyloom")
    found: str = detail["reason"]
    return found


class TestRunningGateway:
    @pytest.mark.parametrize("name", PAGE_FILES)
    def test_serves_its_pages_to_everybody(self, gateway: httpx.Client, name: str) -> None:
        page = gateway.get(f"/{name.removesuffix('.html')}")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        allowed = content_security_policy((PAGES / name).read_text(), PAGE_FILES[name])
        assert page.headers["content-security-policy"] == allowed

    def test_serves_the_reference_to_everybody(self, gateway: httpx.Client) -> None:
        document = gateway.get("/openapi.json")
        assert (document.status_code, document.json()["openapi"]) == (200, "3.1.0")
        assert document.headers["access-control-allow-origin"] == "*"

    def test_a_path_that_is_not_mapped_is_404_without_a_token(self, gateway: httpx.Client) -> None:
        answer = gateway.get("/v1/nothing/of/the/kind")
        assert (answer.status_code, answer.json()["code"], reason(answer)) == (404, 5, "UNKNOWN_METHOD")

    def test_every_rpc_that_is_not_public_asks_for_a_token(self, api: Api, gateway: httpx.Client) -> None:
        for rpc in api.exposed:
            if rpc.access.kind == "public":
                continue
            for rule in rpc.rules:
                answer = gateway.request(rule.verb, re.sub(r"\{.*?\}", "1", rule.path))
                assert (answer.status_code, reason(answer)) == (401, "MISSING_TOKEN"), rpc.path
                assert answer.headers["x-request-id"]

    def test_internal_rpcs_do_not_exist_for_json_clients(self, api: Api, gateway: httpx.Client) -> None:
        for rpc in (rpc for service in api.services for rpc in service.rpcs if not rpc.exposed):
            assert gateway.post(rpc.path, json={}).status_code == 404, rpc.path

    def test_a_service_that_is_down_is_503_for_json_and_unavailable_for_grpc(self, gateway: httpx.Client) -> None:
        answer = gateway.get("/.well-known/jwks.json")
        assert (answer.status_code, answer.json()["code"], reason(answer)) == (503, 14, "DEPENDENCY_UNAVAILABLE")
        path = "/storyloom.identity.v1.SessionService/GetJwks"
        native = gateway.post(path, content=bytes(5), headers={"content-type": "application/grpc"})
        assert native.headers["grpc-status"] == "14"

    def test_a_token_that_cannot_be_checked_is_not_called_wrong(self, gateway: httpx.Client) -> None:
        token = "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL3N0b3J5bG9vbS5leGFtcGxlIn0.AAAA"
        answer = gateway.get("/v1/stories", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code in (401, 503)
        assert reason(answer) in ("INVALID_TOKEN", "DEPENDENCY_UNAVAILABLE")

    def test_is_administered_by_its_owner_alone(self, gateway: httpx.Client, folder: Path) -> None:
        administration = folder / OWN_SOCKET
        assert [stat.S_IMODE(one.stat().st_mode) for one in (administration, administration.parent)] == [0o600, 0o700]
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(administration)), base_url="http://gateway") as admin:
            assert admin.get("/ready").status_code == 200
            assert admin.get("/config_dump").status_code == 403
        listening = [one for one in _envoy_of(folder).net_connections("tcp") if one.status == "LISTEN"]
        assert {one.laddr.port for one in listening} == {gateway.base_url.port}

    def test_health_tells_that_services_are_down(self, gateway: httpx.Client) -> None:
        assert gateway.get("/healthz").status_code == 503

    def test_a_preflight_is_answered_for_the_allowed_origin_only(self, gateway: httpx.Client) -> None:
        asked = {"access-control-request-method": "POST", "origin": "http://localhost:3000"}
        assert gateway.options("/v1/stories", headers=asked).headers["access-control-allow-origin"] == asked["origin"]
        foreign = gateway.options("/v1/stories", headers=asked | {"origin": "http://localhost:3000.evil.example"})
        assert "access-control-allow-origin" not in foreign.headers
