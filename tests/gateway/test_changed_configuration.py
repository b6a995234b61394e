"""A configuration is told from the one that its settings make, wherever it was changed."""

import os
import random
import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import envoy
from gateway.descriptors import Api
from gateway.lint import differences
from gateway.settings import Settings
from tests.gateway.edge import Configuration, http_filter, ingress
from tests.gateway.parts import (
    BODY,
    LIMIT,
    LUA,
    OFF,
    Change,
    content,
    forwarding,
    host,
    limit,
    listeners,
    provider,
    without_filter,
)
from tests.profile import PROOF


def layers(configuration: Configuration) -> list[Any]:
    found: list[Any] = configuration["layered_runtime"]["layers"]
    return found


def json_log(configuration: Configuration) -> Configuration:
    found: Configuration = ingress(configuration)["access_log"][0]["typed_config"]["log_format"]["json_format"]
    return found


def cors(configuration: Configuration) -> Configuration:
    found: Configuration = host(configuration)["typed_per_filter_config"]["envoy.filters.http.cors"]
    return found


def endpoint(configuration: Configuration) -> Configuration:
    """Where content is."""
    (found,) = content(configuration)["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address: Configuration = found["endpoint"]["address"]["socket_address"]
    return address


WAYS: dict[str, tuple[str, Change]] = {
    "routes that nobody knows": ("rds is new", lambda c: ingress(c).update(rds={"route_config_name": "main"})),
    "routes of a tree": ("storyloom.matcher is new", lambda c: host(c).update(matcher={})),
    "listeners that nobody knows": (
        "dynamic_resources is new",
        lambda c: c.update(dynamic_resources={"lds_config": {}}),
    ),
    "a host without limits": (
        f"typed_per_filter_config.{LIMIT} is new",
        lambda c: host(c)["typed_per_filter_config"].update({LIMIT: OFF}),
    ),
    "bodies without limit on a route": (
        "content-calls.typed_per_filter_config is new",
        lambda c: forwarding(c, "content-calls").update(typed_per_filter_config={BODY: OFF}),
    ),
    "no timeout": ("content-reads.route.timeout is missing", lambda c: forwarding(c)["route"].pop("timeout")),
    "a timeout of none": (
        "content-reads.route.timeout is another",
        lambda c: forwarding(c)["route"].update(timeout="0s"),
    ),
    "a stream without end": (
        "content-uploads.route.max_stream_duration is missing",
        lambda c: forwarding(c, "content-uploads")["route"].pop("max_stream_duration"),
    ),
    "writes that are repeated": (
        "content-calls.route.retry_policy is new",
        lambda c: forwarding(c, "content-calls")["route"].update(retry_policy={"retry_on": "reset,unavailable"}),
    ),
    "limits that enforce nothing": (
        "filter_enforced.default_value.numerator is another",
        lambda c: limit(c)["filter_enforced"]["default_value"].update(numerator=0),
    ),
    "limits that are not on": ("filter_enabled is missing", lambda c: limit(c).pop("filter_enabled")),
    "limits off in the runtime": (
        "static_layer.storyloom.ratelimit_enforced is another",
        lambda c: c["layered_runtime"]["layers"][0]["static_layer"]["storyloom"].update(ratelimit_enforced=0),
    ),
    "limits off in a layer above": (
        "layered_runtime.layers has 3 parts",
        lambda c: layers(c).append({"name": "mine", "static_layer": {"storyloom.ratelimit_enforced": 0}}),
    ),
    "a runtime from a disk": (
        "layered_runtime.layers has 3 parts",
        lambda c: layers(c).append({"name": "mine", "disk_layer": {"symlink_root": "/srv"}}),
    ),
    "no limit by user": ("descriptors has 2 parts", lambda c: limit(c)["descriptors"].pop(1)),
    "sign-ins without limit": (
        "rate_limits has 2 parts",
        lambda c: limit(c).update(rate_limits=limit(c)["rate_limits"][:2]),
    ),
    "bodies without limit": ("http_filters has 11 parts", without_filter(BODY)),
    "plaintext for everybody": (
        "ingress.address.socket_address.address is another",
        lambda c: listeners(c)[0]["address"]["socket_address"].update(address="0.0.0.0"),  # noqa: S104,
    ),
    "no time for headers": ("request_headers_timeout is missing", lambda c: ingress(c).pop("request_headers_timeout")),
    "no time for requests": ("request_timeout is another", lambda c: ingress(c).update(request_timeout="0s")),
    "queries in the log": ("json_format.path is another", lambda c: json_log(c).update(path="%PATH(WQ)%")),
    "tokens in the log": ("json_format.token is new", lambda c: json_log(c).update(token="%REQ(AUTHORIZATION)%")),
    "queries in traces": ("tracing is new", lambda c: ingress(c).update(tracing={"operation": "%REQ(:PATH)%"})),
    "tokens in the log by another name": (
        "json_format.token is new",
        lambda c: json_log(c).update(token="%REQUEST_HEADER(AUTHORIZATION)%"),
    ),
    "tokens in the log where an id is missing": (
        "json_format.token is new",
        lambda c: json_log(c).update(token="%REQ(X-REQUEST-ID?AUTHORIZATION)%"),
    ),
    "administration for everybody": (
        "admin.address.socket_address is new",
        lambda c: c["admin"].update(address={"socket_address": {"address": "10.0.0.7", "port_value": 9901}}),
    ),
    "administration without bounds": ("admin.allow_paths is missing", lambda c: c["admin"].pop("allow_paths")),
    "administration that stops the gateway": (
        "admin.allow_paths has 9 parts",
        lambda c: c["admin"]["allow_paths"].append({"prefix": "/quit"}),
    ),
    "administration for other users": (
        "admin.address.pipe.mode is missing",
        lambda c: c["admin"]["address"]["pipe"].pop("mode"),
    ),
    "memory without end": ("overload_manager.actions has 2 parts", lambda c: c["overload_manager"]["actions"].pop()),
    "health that nobody asks for": ("content.health_checks is missing", lambda c: content(c).pop("health_checks")),
    "hosts that are never left out": (
        "content.outlier_detection is missing",
        lambda c: content(c).pop("outlier_detection"),
    ),
    "retries without a budget": (
        "retry_budget is missing",
        lambda c: content(c)["circuit_breakers"]["thresholds"][0].pop("retry_budget"),
    ),
    "no breaker": ("content.circuit_breakers is missing", lambda c: content(c).pop("circuit_breakers")),
    "more proxies than there are": (
        "xff_num_trusted_hops is another",
        lambda c: ingress(c).update(xff_num_trusted_hops=1),
    ),
    "addresses by another header": (
        "original_ip_detection_extensions is new",
        lambda c: ingress(c).update(original_ip_detection_extensions=[{"name": "custom_header"}]),
    ),
    "requirements by name": (
        "jwt_authn.typed_config.requirement_map is new",
        lambda c: http_filter(c, "jwt_authn").update(requirement_map={"anybody": {"allow_missing": {}}}),
    ),
    "other keys": (
        "storyloom.remote_jwks.http_uri.cluster is another",
        lambda c: provider(c)["remote_jwks"]["http_uri"].update(cluster="blackhole"),
    ),
    "preflights that need no rule": (
        "bypass_cors_preflight is new",
        lambda c: http_filter(c, "jwt_authn").update(bypass_cors_preflight=True),
    ),
    "answers in the place of a service": (
        "content-reads.direct_response is new",
        lambda c: forwarding(c).update(direct_response={"status": 200}),
    ),
    "redirects that are followed": (
        "internal_redirect_policy is new",
        lambda c: forwarding(c)["route"].update(internal_redirect_policy={}),
    ),
    "another host": (
        "host_rewrite_literal is new",
        lambda c: forwarding(c)["route"].update(host_rewrite_literal="evil.example"),
    ),
    "any origin": (
        "allow_origin_string_match.0.safe_regex.regex is another",
        lambda c: cors(c)["allow_origin_string_match"][0]["safe_regex"].update(regex=".*"),
    ),
    "a second chain of filters": (
        "ingress.filter_chains has 2 parts",
        lambda c: listeners(c)[0]["filter_chains"].append(listeners(c)[0]["filter_chains"][0]),
    ),
    "a filter more": (
        "http_filters has 13 parts",
        lambda c: ingress(c)["http_filters"].insert(0, {"name": "envoy.filters.http.ext_proc"}),
    ),
    "a script that reads requests": (
        "inline_string is another",
        lambda c: forwarding(c, "content-files")["typed_per_filter_config"][LUA]["source_code"].update(
            inline_string=""
        ),
    ),
    "another log": (
        "access_log has 2 parts",
        lambda c: ingress(c)["access_log"].append({"name": "envoy.access_loggers.tcp_grpc"}),
    ),
    "a service at another address": (
        "socket_address.address is another",
        lambda c: endpoint(c).update(address="10.0.0.7"),
    ),
    "another bootstrap extension": (
        "bootstrap_extensions has 2 parts",
        lambda c: c["bootstrap_extensions"].append({"name": "envoy.bootstrap.wasm"}),
    ),
    "a size that is no number": (
        "max_requests is another",
        lambda c: content(c)["circuit_breakers"]["thresholds"][0].update(max_requests=True),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_tells(configuration: Configuration, way: str) -> None:
    place, change = WAYS[way]
    changed = deepcopy(configuration)
    change(changed)
    found = list(differences(changed, configuration))
    assert any(place in one for one in found), found


def alterations(part: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Each value of the configuration, by what holds it and where, with another one for it."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if isinstance(value, dict):
            yield part, key, {**value, "more": {}}
        elif isinstance(value, list):
            yield part, key, value[1:]
            yield part, key, [*value, {}]
        else:
            yield part, key, f"{value}x"
            yield part, key, not value
        if isinstance(value, (dict, list)):
            yield from alterations(value)


def test_tells_of_each_value_that_is_another(configuration: Configuration) -> None:
    made = deepcopy(configuration)
    seed = random.randrange(2**32)
    every = [one for one in alterations(made) if one[2] != one[0][one[1]]]
    for holder, key, other in every if PROOF else random.Random(seed).sample(every, 60):
        before, holder[key] = holder[key], other
        assert list(differences(made, configuration)), f"{key}: {other!r} (seed {seed})"
        holder[key] = before
    assert list(differences(made, configuration)) == []


def test_lets_sizes_be_others(configuration: Configuration) -> None:
    changed = deepcopy(configuration)
    heap, connections = changed["overload_manager"]["resource_monitors"]
    heap["typed_config"]["max_heap_size_bytes"] = 2**30
    connections["typed_config"]["max_active_downstream_connections"] = 20_000
    content(changed)["circuit_breakers"]["thresholds"][0].update(max_requests=2000, max_connections=256)
    assert list(differences(changed, configuration)) == []


def test_names_places_and_no_values(configuration: Configuration) -> None:
    ours, theirs = deepcopy(configuration), deepcopy(configuration)
    host(ours)["request_headers_to_add"] = [{"header": {"key": "x-gateway-secret", "value": "the secret"}}]
    host(theirs)["request_headers_to_add"] = [{"header": {"key": "x-gateway-secret", "value": "guessed"}}]
    (told,) = differences(theirs, ours)
    assert told.endswith("virtual_hosts.storyloom.request_headers_to_add.0.header.value is another")


class TestCommand:
    """`python -m gateway.envoy --check`"""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Services that run in this process have theirs there.
        for name in os.environ.keys() - {"PATH"}:
            monkeypatch.delenv(name)

    def test_ends_well_for_what_these_settings_make(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["gateway.envoy", "--check", str(written / "envoy.yaml")])
        envoy.main()
        monkeypatch.setenv("TRUSTED_PROXIES", "1")
        with pytest.raises(SystemExit, match=r"^gateway: the configuration is not that of .*xff_num_trusted_hops is"):
            envoy.main()

    def test_looks_at_what_stands_beside_it(
        self, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(written, tmp_path, dirs_exist_ok=True)
        (tmp_path / "docs.html").write_text("<script>steal()</script>")
        monkeypatch.setattr(sys, "argv", ["gateway.envoy", "--check", str(tmp_path / "envoy.yaml")])
        with pytest.raises(SystemExit, match=r"docs\.html is another$"):
            envoy.main()

    @pytest.mark.parametrize(
        ("place", "other"),
        [
            # To YAML 1.1, which we read, the second line stands; to Envoy it is a part of the remark.
            ("xff_num_trusted_hops: 0", "xff_num_trusted_hops: 5 #\u2028{indent}xff_num_trusted_hops: 0"),
            # Envoy knows no merges: what is in the log would be under another name.
            ("json_format:", "json_format:\n{indent}  <<: {{time: '%START_TIME%'}}"),
        ],
    )
    def test_reads_nothing_that_envoy_reads_in_another_way(
        self, api: Api, written: Path, tmp_path: Path, place: str, other: str
    ) -> None:
        shutil.copytree(written, tmp_path, dirs_exist_ok=True)
        file = tmp_path / "envoy.yaml"
        text = file.read_text().replace(str(written), str(tmp_path))
        indent = next(line for line in text.splitlines() if place in line).partition(place)[0]
        file.write_text(text.replace(place, other.format(indent=indent), 1))
        ours, theirs = (yaml.load(one, Loader=yaml.CSafeLoader) for one in (text, file.read_text()))
        assert ours == theirs
        with pytest.raises(ValueError, match="it is written in another way"):
            envoy.check(api, Settings.read({}), file)
