"""The configuration lets through what the protos declare and nothing else; the real binary accepts and runs it."""

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from deploy.certificates import make
from gateway.descriptors import Api, Rpc
from gateway.envoy import PAGES, write
from gateway.routes import PAGE_FILES, content_security_policy
from gateway.settings import Settings

ENVOY = Path(sys.executable).parent / "envoy"
REQUIRES = 50101


def connection_manager(configuration: dict[str, Any]) -> dict[str, Any]:
    listener = configuration["static_resources"]["listeners"][0]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def http_filter(configuration: dict[str, Any], name: str) -> dict[str, Any]:
    filters = connection_manager(configuration)["http_filters"]
    found: dict[str, Any] = next(one for one in filters if one["name"] == f"envoy.filters.http.{name}")["typed_config"]
    return found


def matches(rule: dict[str, Any], text: str | None) -> bool:
    if text is None and not rule.get("treat_missing_header_as_empty"):
        return False
    (how, wanted), text = next(iter(rule["string_match"].items())), text or ""
    found = {
        "safe_regex": lambda: re.fullmatch(wanted["regex"], text) is not None,
        "prefix": lambda: text.startswith(wanted),
        "contains": lambda: wanted in text,
    }[how]()
    return found is not rule.get("invert_match", False)


def route(configuration: dict[str, Any], path: str, **headers: str) -> dict[str, Any]:
    """The first route that Envoy would choose; header names with underscores for dashes."""
    sent = {":method": "POST"} | {name.replace("_", "-"): value for name, value in headers.items()}
    for one in connection_manager(configuration)["route_config"]["virtual_hosts"][0]["routes"]:
        match = one["match"]
        on_path = (
            match.get("path") == path
            or ("prefix" in match and path.startswith(match["prefix"]))
            or ("safe_regex" in match and re.fullmatch(match["safe_regex"]["regex"], path) is not None)
        )
        if on_path and all(matches(rule, sent.get(rule["name"])) for rule in match.get("headers", [])):
            found: dict[str, Any] = one
            return found
    raise AssertionError(f"no route matches {path}")


def grpc_route(configuration: dict[str, Any], rpc: Rpc) -> dict[str, Any]:
    return route(configuration, rpc.path, content_type="application/grpc")


def validate(configuration: Path) -> str:
    checked = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", configuration], capture_output=True, text=True, check=False
    )
    return checked.stdout + checked.stderr if checked.returncode else ""


def tls(folder: Path) -> dict[str, str]:
    """The settings with certificates as operators make them."""
    make(folder)
    names = {"TLS_CERTIFICATE": "tls.crt", "TLS_KEY": "tls.key", "TLS_CA": "ca.crt"}
    return {variable: str(folder / "gateway" / name) for variable, name in names.items()}


class TestRealBinary:
    def test_accepts_the_defaults(self, api: Api, tmp_path: Path) -> None:
        assert validate(write(api, Settings.read({}), tmp_path)) == ""

    def test_accepts_host_names_several_endpoints_a_collector_and_no_access_log(self, api: Api, tmp_path: Path) -> None:
        settings = Settings.read(
            tls(tmp_path)
            | {
                "CONTENT_ADDRESS": "content-0.content:7102,content-1.content:7102",
                "IDENTITY_ADDRESS": "127.0.0.1:7101,127.0.0.1:7111",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
                "TRACE_SAMPLE_PERCENT": "0.5",
                "ACCESS_LOG": "",
                "GATEWAY_ADDRESS": "0.0.0.0:8080",
                "GATEWAY_METRICS_ADDRESS": "0.0.0.0:9902",
                "TRUSTED_PROXIES": "1",
                "CORS_ORIGINS": r"https://app\.example,http://localhost:[0-9]+",
            }
        )
        assert validate(write(api, settings, tmp_path)) == ""

    def test_accepts_a_socket_for_its_administration_and_a_secret(self, api: Api, tmp_path: Path) -> None:
        settings = Settings.read({"GATEWAY_ADMIN_ADDRESS": f"unix:{tmp_path}/admin.sock", "GATEWAY_SECRET": "s%cret"})
        assert validate(write(api, settings, tmp_path)) == ""


@pytest.fixture(scope="module")
def made(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a secret in it."""
    folder = tmp_path_factory.mktemp("secret")
    # As an earlier run may have left it.
    (folder / "envoy.yaml").touch(0o644)
    return write(api, Settings.read({"GATEWAY_SECRET": "s3cret"}), folder)


class TestSecret:
    def test_goes_to_services_in_place_of_what_a_client_sends(self, made: Path) -> None:
        configuration = yaml.safe_load(made.read_text())
        (host,) = connection_manager(configuration)["route_config"]["virtual_hosts"]
        proof = {"key": "x-gateway-secret", "value": "s3cret"}
        assert host["request_headers_to_add"] == [{"header": proof, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]

    def test_is_taken_from_clients_even_when_the_gateway_has_none(self, configuration: dict[str, Any]) -> None:
        manager = connection_manager(configuration)
        (early,) = manager["early_header_mutation_extensions"]
        assert {"remove": "x-gateway-secret"} in early["typed_config"]["mutations"]
        assert "request_headers_to_add" not in manager["route_config"]["virtual_hosts"][0]

    def test_stands_in_a_file_for_its_owner_alone_and_in_no_access_log(self, made: Path) -> None:
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert made.read_text().count("s3cret") == 1
        log = connection_manager(yaml.safe_load(made.read_text()))["access_log"]
        assert "gateway-secret" not in str(log).lower()

    def test_is_not_shown_with_the_settings(self) -> None:
        assert "s3cret" not in repr(Settings.read({"GATEWAY_SECRET": "s3cret"}))


class TestTokenRules:
    def test_exempt_every_public_rpc_and_only_those(self, api: Api, configuration: dict[str, Any]) -> None:
        rules = http_filter(configuration, "jwt_authn")["rules"]
        exempt = {rule["match"]["path"] for rule in rules if "requires" not in rule}
        assert exempt == {rpc.path for rpc in api.exposed if rpc.access.kind == "public"}
        assert exempt

    def test_end_with_one_that_matches_everything(self, configuration: dict[str, Any]) -> None:
        last = http_filter(configuration, "jwt_authn")["rules"][-1]
        assert last == {"match": {"prefix": "/"}, "requires": {"provider_name": "storyloom"}}

    def test_are_off_only_where_nothing_is_forwarded(self, configuration: dict[str, Any]) -> None:
        routes = connection_manager(configuration)["route_config"]["virtual_hosts"][0]["routes"]
        off = [one for one in routes if "envoy.filters.http.jwt_authn" in one.get("typed_per_filter_config", {})]
        assert {one["match"].get("path") for one in off} == {"/docs", "/read", "/openapi.json"}
        assert all("direct_response" in one for one in off)

    def test_demand_issuer_audience_and_expiry_from_the_header_alone(self, configuration: dict[str, Any]) -> None:
        provider = http_filter(configuration, "jwt_authn")["providers"]["storyloom"]
        assert (provider["issuer"], provider["audiences"]) == ("https://storyloom.example", ["storyloom"])
        assert provider["require_expiration"] is True
        assert [one["name"] for one in provider["from_headers"]] == ["authorization"]

    def test_set_only_headers_that_are_taken_from_clients_first(self, configuration: dict[str, Any]) -> None:
        provider = http_filter(configuration, "jwt_authn")["providers"]["storyloom"]
        (early,) = connection_manager(configuration)["early_header_mutation_extensions"]
        removed = {change.get("remove") for change in early["typed_config"]["mutations"]}
        assert {claim["header_name"] for claim in provider["claim_to_headers"]} == {"x-tenant-id", "x-user-id"}
        assert {"x-tenant-id", "x-user-id", "traceparent", "x-envoy-original-path"} <= removed
        assert "x-act-in-tenant" not in removed


class TestRoutes:
    def test_no_internal_rpc_is_reachable(self, api: Api, configuration: dict[str, Any]) -> None:
        internal = [rpc for service in api.services for rpc in service.rpcs if not rpc.exposed]
        assert any(rpc.name == "DeliverEvents" for rpc in internal)
        for rpc in internal:
            assert grpc_route(configuration, rpc)["direct_response"]["status"] == 404, rpc.path
            assert not rpc.rules, rpc.path

    def test_every_other_rpc_goes_to_the_service_that_owns_it(self, api: Api, configuration: dict[str, Any]) -> None:
        for rpc in api.exposed:
            assert grpc_route(configuration, rpc)["route"]["cluster"] == rpc.service.split(".")[1], rpc.path

    @pytest.mark.parametrize(
        "path", ["/", "/made.up.Service/Get", "/grpc.health.v1.Health/Check", "/storyloom.content.v1.StoryService/Nope"]
    )
    def test_names_that_no_proto_has_are_refused(self, configuration: dict[str, Any], path: str) -> None:
        found = route(configuration, path, content_type="application/grpc-web+proto")
        assert found["direct_response"]["status"] == 404

    def test_streams_have_no_overall_timeout(self, api: Api, configuration: dict[str, Any]) -> None:
        for rpc in (rpc for rpc in api.exposed if rpc.streaming):
            target = grpc_route(configuration, rpc)["route"]
            assert (target["timeout"], target["idle_timeout"]) == ("0s", "300s"), rpc.path

    def test_an_rpc_that_becomes_a_stream_loses_its_timeout(self, descriptor_set: bytes, tmp_path: Path) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        for method in (method for file in files.file for service in file.service for method in service.method):
            method.server_streaming = method.name.startswith("List")
            method.client_streaming = method.name.startswith("Create")
        api = Api(files.SerializeToString())
        made = write(api, Settings.read({}), tmp_path)
        assert validate(made) == ""
        configuration = yaml.safe_load(made.read_text())
        for rpc in api.exposed:
            found = grpc_route(configuration, rpc)
            assert (found["route"]["timeout"] == "0s") == rpc.name.startswith(("List", "Create")), rpc.path
            unlimited = "envoy.filters.http.body_size_limit" in found.get("typed_per_filter_config", {})
            assert unlimited == rpc.name.startswith("Create"), rpc.path
        assert connection_manager(configuration)["request_timeout"] == "3600s"

    def test_every_unary_rpc_gets_a_deadline(self, api: Api, configuration: dict[str, Any]) -> None:
        for rpc in api.exposed:
            if not rpc.streaming:
                found = grpc_route(configuration, rpc)
                assert found["route"]["timeout"] == "10s", rpc.path
                assert found["request_headers_to_add"][0]["header"] == {"key": "grpc-timeout", "value": "10S"}

    def test_only_reads_are_repeated_after_they_may_have_run(self, api: Api, configuration: dict[str, Any]) -> None:
        host = connection_manager(configuration)["route_config"]["virtual_hosts"][0]
        assert "unavailable" not in host["retry_policy"]["retry_on"]
        for rpc in api.exposed:
            policy = grpc_route(configuration, rpc)["route"].get("retry_policy", host["retry_policy"])
            assert ("unavailable" in policy["retry_on"].split(",")) == (rpc.read and not rpc.streaming), rpc.path

    @pytest.mark.parametrize(
        ("header", "value"), [("grpc_timeout", "banana"), ("grpc_timeout", "123456789S"), ("grpc_encoding", "zip")]
    )
    def test_metadata_that_grpc_cannot_parse_never_reaches_a_service(
        self, api: Api, configuration: dict[str, Any], header: str, value: str
    ) -> None:
        found = route(configuration, api.exposed[0].path, content_type="application/grpc", **{header: value})
        assert found["direct_response"]["status"] == 400

    def test_the_transcoder_knows_no_service_without_http_rules(self, api: Api, configuration: dict[str, Any]) -> None:
        known = http_filter(configuration, "grpc_json_transcoder")["services"]
        assert set(known) == {rpc.service for rpc in api.exposed if rpc.rules}

    def test_every_preflight_finds_a_real_route(self, configuration: dict[str, Any]) -> None:
        assert route(configuration, "/v1/anything")["route"] == {"cluster": "blackhole"}


class TestDeclarations:
    """A mistake in a proto stops the gateway from being made instead of opening it."""

    def changed(self, descriptor_set: bytes, name: str, change: str) -> Api:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        for file in files.file:
            for service in file.service:
                for method in service.method:
                    if method.name == name:
                        if change == "rule":
                            method.options.Extensions[annotations_pb2.http].get = "/v1/inbox"
                        else:
                            method.options.Clear()
        return Api(files.SerializeToString())

    def test_an_internal_rpc_with_an_http_rule_is_refused(self, descriptor_set: bytes) -> None:
        with pytest.raises(ValueError, match="DeliverEvents is internal"):
            _ = self.changed(descriptor_set, "DeliverEvents", "rule").services

    def test_an_rpc_that_does_not_say_who_may_call_it_is_refused(self, descriptor_set: bytes) -> None:
        with pytest.raises(ValueError, match="DeliverEvents does not say who may call it"):
            _ = self.changed(descriptor_set, "DeliverEvents", "access").services


class TestSettings:
    def test_the_limits_come_from_the_environment(self, api: Api, tmp_path: Path) -> None:
        settings = Settings.read({"RATE_LIMIT_PER_TENANT": "7", "SIGN_IN_LIMIT_PER_ADDRESS": "3"})
        made = write(api, settings, tmp_path).read_text()
        assert "max_tokens: 7\n" in made
        assert "max_tokens: 3\n" in made

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("GATEWAY_ADDRESS", "8080"),
            ("GATEWAY_ADDRESS", "0.0.0.0:8080"),
            ("GATEWAY_ADMIN_ADDRESS", "unix:admin.sock"),
            ("GATEWAY_ADMIN_ADDRESS", "10.0.0.7:9901"),
            ("GATEWAY_METRICS_ADDRESS", "9902"),
            ("TRUSTED_PROXIES", "-1"),
            ("CONTENT_ADDRESS", "127.0.0.1:7102,"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("TRACE_SAMPLE_PERCENT", "200"),
            ("RATE_LIMIT_PER_USER", "0"),
        ],
    )
    def test_a_value_that_cannot_be_meant_is_named(self, name: str, value: str) -> None:
        with pytest.raises(ValueError, match=name):
            Settings.read({name: value})


FETCHED = {
    "docs.html": ['"/openapi.json"'],
    "read.html": ["path, { method, headers, body: body && JSON.stringify(body) }"],
}


@pytest.mark.parametrize("name", PAGE_FILES)
class TestPages:
    def test_run_under_their_own_content_security_policy(self, name: str) -> None:
        page = (PAGES / name).read_text()
        policy = content_security_policy(page, PAGE_FILES[name])
        assert policy.count("'sha256-") == 2
        assert "unsafe" not in policy
        assert not re.search(r"\sstyle=|\son[a-z]+=\"", page)

    def test_ask_nobody_but_the_gateway(self, name: str) -> None:
        page = (PAGES / name).read_text()
        assert not re.search(r"https?://|\ssrc=|url\(", page)
        assert re.findall(r"fetch\((.*?)\)(?:;|\.then)", page) == FETCHED[name]

    def test_never_make_markup_of_text(self, name: str) -> None:
        made = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
        assert not re.search(made, (PAGES / name).read_text())
