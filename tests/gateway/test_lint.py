"""No configuration is written, or passes the check, that lets in what it must not: each way to break it is told."""

import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import envoy
from gateway.descriptors import Api
from gateway.envoy import write
from gateway.lint import faults
from gateway.settings import Settings
from tests.gateway.edge import http_filter, ingress

Configuration = dict[str, Any]
Change = Callable[[Configuration], Any]
LIST = "/storyloom.content.v1.CourseService/ListCourses"
INBOX = "/storyloom.event.v1.EventInboxService/DeliverEvents"
SIGN_IN = "/storyloom.identity.v1.SessionService/CreateSession"
OFF = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
JWT, LIMIT, BODY, LUA = (
    f"envoy.filters.http.{name}" for name in ("jwt_authn", "local_ratelimit", "body_size_limit", "lua")
)


def routes(configuration: Configuration) -> list[Any]:
    found: list[Any] = ingress(configuration)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def host(configuration: Configuration) -> Configuration:
    found: Configuration = ingress(configuration)["route_config"]["virtual_hosts"][0]
    return found


def layers(configuration: Configuration) -> list[Any]:
    found: list[Any] = configuration["layered_runtime"]["layers"]
    return found


def forwarding(configuration: Configuration, kind: str = "content-reads") -> Configuration:
    found: Configuration = next(one for one in routes(configuration) if one["name"] == kind)
    return found


def rules(configuration: Configuration) -> list[Any]:
    found: list[Any] = http_filter(configuration, "jwt_authn")["rules"]
    return found


def listeners(configuration: Configuration) -> list[Any]:
    found: list[Any] = configuration["static_resources"]["listeners"]
    return found


def content(configuration: Configuration) -> Configuration:
    found: Configuration = configuration["static_resources"]["clusters"][1]
    assert found["name"] == "content"
    return found


def limit(configuration: Configuration) -> Configuration:
    return http_filter(configuration, "local_ratelimit")


def to_content(path: str) -> Configuration:
    return {"name": "mine", "match": {"path": path}, "route": {"cluster": "content", "timeout": "5s"}}


def second_listener(configuration: Configuration) -> None:
    made = deepcopy(listeners(configuration)[1])
    made |= {"name": "back-door", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 1}}}  # noqa: S104
    made["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"] = [
        to_content(LIST)
    ]
    listeners(configuration).append(made)


def bytes_onward(configuration: Configuration) -> None:
    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "audit"}
    listeners(configuration)[0]["filter_chains"].append({"filters": [{"name": "tcp", "typed_config": proxy}]})


def without_filter(name: str) -> Change:
    def change(configuration: Configuration) -> None:
        filters = ingress(configuration)["http_filters"]
        filters[:] = [one for one in filters if one["name"] != f"envoy.filters.http.{name}"]

    return change


def reversed_filters(configuration: Configuration) -> None:
    ingress(configuration)["http_filters"].reverse()


def early(configuration: Configuration) -> list[Any]:
    found: list[Any] = ingress(configuration)["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    return found


def without(name: str) -> Change:
    return lambda made: early(made).remove({"remove": name})


WAYS: dict[str, tuple[str, Change]] = {
    "a path made public": (f"no token is asked for at {LIST}", lambda c: rules(c).insert(0, {"match": {"path": LIST}})),
    "a prefix made public": (
        "no token is asked for at /storyloom.content.v1.",
        lambda c: rules(c).insert(0, {"match": {"prefix": "/storyloom.content.v1."}}),
    ),
    "a public RPC by prefix": (
        f"no token is asked for at {SIGN_IN}",
        lambda c: rules(c).insert(0, {"match": {"prefix": SIGN_IN}}),
    ),
    "a token that may be missing": (
        f"no token is asked for at {LIST}",
        lambda c: rules(c).insert(0, {"match": {"path": LIST}, "requires": {"allow_missing": {}}}),
    ),
    "no last rule": ("no rule asks for a token wherever", lambda c: rules(c).pop()),
    "no rules": ("no rule asks for a token wherever", lambda c: rules(c).clear()),
    "a last rule for a provider that is not there": (
        "no rule asks for a token wherever",
        lambda c: rules(c)[-1].update(requires={"provider_name": "nobody"}),
    ),
    "a token without end": (
        "provider storyloom has no require_expiration",
        lambda c: http_filter(c, "jwt_authn")["providers"]["storyloom"].pop("require_expiration"),
    ),
    "no audience": (
        "provider storyloom has no audiences",
        lambda c: http_filter(c, "jwt_authn")["providers"]["storyloom"].pop("audiences"),
    ),
    "a token in the query": (
        "provider storyloom takes tokens from queries",
        lambda c: http_filter(c, "jwt_authn")["providers"]["storyloom"].update(from_params=["t"]),
    ),
    "no tokens at all": (f"{JWT} does not stand before", without_filter("jwt_authn")),
    "tokens checked too late": (f"{JWT} does not stand before", reversed_filters),
    "a filter that is off": (
        f"{JWT} is disabled",
        lambda c: next(one for one in ingress(c)["http_filters"] if one["name"] == JWT).update(disabled=True),
    ),
    "a route without tokens": (
        "content-reads forwards without asking for a token",
        lambda c: forwarding(c).update(typed_per_filter_config={JWT: OFF}),
    ),
    "a host without tokens": (
        "tokens are not asked for as usual by storyloom",
        lambda c: ingress(c)["route_config"]["virtual_hosts"][0]["typed_per_filter_config"].update({JWT: OFF}),
    ),
    "a route for an internal RPC": (f"mine forwards {INBOX}", lambda c: routes(c).insert(0, to_content(INBOX))),
    "a route for everything": (
        "mine forwards /x.Y/z",
        lambda c: routes(c).insert(0, to_content("/") | {"match": {"prefix": "/"}}),
    ),
    "a route for a whole service": (
        "mine forwards /storyloom.content.v1.StoryService/Nope",
        lambda c: routes(c).insert(0, to_content("/") | {"match": {"prefix": "/storyloom.content.v1.StoryService/"}}),
    ),
    "a second route": (f"{LIST} has 2 routes", lambda c: routes(c).insert(0, to_content(LIST))),
    "no route": (f"{LIST} has 0 routes", lambda c: routes(c).remove(forwarding(c))),
    "a route to another service": (
        f"{LIST} goes to audit",
        lambda c: forwarding(c)["route"].update(cluster="audit"),
    ),
    "a route to who knows where": (
        "content-reads forwards to elsewhere",
        lambda c: forwarding(c)["route"].update(cluster="elsewhere"),
    ),
    "a path that becomes another": (
        "identity-calls does more than to forward: prefix_rewrite",
        lambda c: forwarding(c, "identity-calls")["route"].update(prefix_rewrite=INBOX),
    ),
    "a request that others see": (
        "content-reads does more than to forward: request_mirror_policies",
        lambda c: forwarding(c)["route"].update(request_mirror_policies=[{"cluster": "elsewhere"}]),
    ),
    "routes that nobody knows": (
        "ingress has its routes from elsewhere",
        lambda c: ingress(c).update(rds={"route_config_name": "main"}),
    ),
    "routes of a tree": ("storyloom has routes that nobody here knows", lambda c: host(c).update(matcher={})),
    "listeners that nobody knows": (
        "listeners or clusters come from elsewhere",
        lambda c: c.update(dynamic_resources={"lds_config": {}}),
    ),
    "a host without limits": (
        f"{LIMIT} is not as usual for storyloom",
        lambda c: host(c)["typed_per_filter_config"].update({LIMIT: OFF}),
    ),
    "bodies without limit on a route": (
        "takes bodies of any size",
        lambda c: forwarding(c, "content-calls").update(typed_per_filter_config={BODY: OFF}),
    ),
    "a script for every request": (
        f"{LUA} changes all requests",
        lambda c: next(one for one in ingress(c)["http_filters"] if one["name"] == LUA).pop("disabled"),
    ),
    "no timeout": (f"{LIST} has no timeout", lambda c: forwarding(c)["route"].pop("timeout")),
    "a timeout of none": (f"{LIST} has no timeout", lambda c: forwarding(c)["route"].update(timeout="0s")),
    "a stream without end": (
        "may last for ever",
        lambda c: forwarding(c, "content-uploads")["route"].pop("max_stream_duration"),
    ),
    "writes that are repeated": (
        "is no read and repeated after it may have run",
        lambda c: forwarding(c, "content-calls")["route"].update(retry_policy={"retry_on": "reset,unavailable"}),
    ),
    "limits that enforce nothing": (
        "filter_enforced of the limits is not 100 %",
        lambda c: limit(c)["filter_enforced"]["default_value"].update(numerator=0),
    ),
    "limits that are not on": (
        "filter_enabled of the limits is not 100 %",
        lambda c: limit(c).pop("filter_enabled"),
    ),
    "limits off in the runtime": (
        "storyloom.ratelimit_enforced is 0 %",
        lambda c: c["layered_runtime"]["layers"][0]["static_layer"]["storyloom"].update(ratelimit_enforced=0),
    ),
    "limits off in a layer above": (
        "storyloom.ratelimit_enforced is 0 %",
        lambda c: layers(c).append({"name": "mine", "static_layer": {"storyloom.ratelimit_enforced": 0}}),
    ),
    "a runtime from a disk": (
        "the runtime's layer mine comes from elsewhere",
        lambda c: layers(c).append({"name": "mine", "disk_layer": {"symlink_root": "/srv"}}),
    ),
    "no limit by user": (
        "there is no limit by tenant and user",
        lambda c: limit(c)["descriptors"].pop(1),
    ),
    "sign-ins without limit": (
        f"{SIGN_IN} is not limited by address",
        lambda c: limit(c).update(rate_limits=limit(c)["rate_limits"][:2]),
    ),
    "bodies without limit": ("bodies have no limit", without_filter("body_size_limit")),
    "a tenant that clients say": ("x-tenant-id of clients is not taken away", without("x-tenant-id")),
    "a secret that clients say": ("x-gateway-secret of clients is not taken away", without("x-gateway-secret")),
    "metadata that spoils connections": (
        "grpc-status-details-bin of clients is not taken away",
        lambda c: early(c).__delitem__(slice(-2, None)),
    ),
    "addresses that clients say": (
        "what clients say of their address is believed",
        lambda c: ingress(c).update(use_remote_address=False),
    ),
    "plaintext for everybody": (
        "clients of other machines come in plaintext",
        lambda c: listeners(c)[0]["address"]["socket_address"].update(address="0.0.0.0"),  # noqa: S104
    ),
    "no time for headers": (
        "ingress has no request_headers_timeout",
        lambda c: ingress(c).pop("request_headers_timeout"),
    ),
    "no time for requests": ("ingress has no request_timeout", lambda c: ingress(c).update(request_timeout="0s")),
    "queries in the log": (
        "the access log has %PATH(",
        lambda c: ingress(c)["access_log"][0]["typed_config"]["log_format"]["json_format"].update(path="%PATH(WQ)%"),
    ),
    "tokens in the log": (
        "the access log has %REQ(",
        lambda c: ingress(c)["access_log"][0]["typed_config"]["log_format"].update(
            json_format={"token": "%REQ(AUTHORIZATION)%"}
        ),
    ),
    "queries in traces": ("traces have %REQ(", lambda c: ingress(c).update(tracing={"operation": "%REQ(:PATH)%"})),
    "tokens in the log by another name": (
        "the access log has %REQUEST_HEADER(",
        lambda c: ingress(c)["access_log"][0]["typed_config"]["log_format"].update(
            json_format={"token": "%REQUEST_HEADER(AUTHORIZATION)%"}
        ),
    ),
    "tokens in the log where an id is missing": (
        "the access log has %REQ(",
        lambda c: ingress(c)["access_log"][0]["typed_config"]["log_format"].update(
            json_format={"token": "%REQ(X-REQUEST-ID?AUTHORIZATION)%"}
        ),
    ),
    "a listener beside": ("back-door forwards to content and asks for no token", second_listener),
    "bytes onward": ("ingress forwards bytes of which nobody knows what they are", bytes_onward),
    "administration for everybody": (
        "administration listens on 10.0.0.7",
        lambda c: c["admin"]["address"]["socket_address"].update(address="10.0.0.7"),
    ),
    "administration without bounds": ("administration does all that it can", lambda c: c["admin"].pop("allow_paths")),
    "administration that stops the gateway": (
        "administration does /quitquitquit",
        lambda c: c["admin"]["allow_paths"].append({"prefix": "/quit"}),
    ),
    "administration for other users": (
        "administration is for all users",
        lambda c: c["admin"].update(address={"pipe": {"path": "/run/admin.sock"}}),
    ),
    "memory without end": (
        "nothing refuses requests when memory ends",
        lambda c: c["overload_manager"]["actions"].pop(),
    ),
    "health that nobody asks for": ("content has no health_checks", lambda c: content(c).pop("health_checks")),
    "hosts that are never left out": (
        "content has no outlier_detection",
        lambda c: content(c).pop("outlier_detection"),
    ),
    "retries without a budget": (
        "content has no retry_budget",
        lambda c: content(c)["circuit_breakers"]["thresholds"][0].pop("retry_budget"),
    ),
    "no breaker": ("content has no max_requests", lambda c: content(c).pop("circuit_breakers")),
}


@pytest.fixture(scope="module")
def with_metrics(api: Api, written: Path) -> Configuration:
    return envoy.configuration(api, Settings.read({"GATEWAY_METRICS_ADDRESS": "127.0.0.1:9902"}), written)


def test_finds_nothing_in_what_is_made(api: Api, with_metrics: Configuration) -> None:
    assert list(faults(with_metrics, api)) == []


@pytest.mark.parametrize("way", WAYS)
def test_tells_what_is_wrong_with(api: Api, configuration: Configuration, way: str) -> None:
    expected, change = WAYS[way]
    broken = deepcopy(configuration)
    change(broken)
    assert broken != configuration
    found = list(faults(broken, api))
    assert any(fault.startswith(expected) or expected in fault for fault in found), found


@pytest.mark.parametrize("asked", ["/stats", "/config_dump", "/runtime_modify"])
def test_lets_nobody_ask_the_administration_for_more_than_metrics(
    api: Api, with_metrics: Configuration, asked: str
) -> None:
    broken = deepcopy(with_metrics)
    manager = listeners(broken)[2]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["match"]["path"] = asked
    assert list(faults(broken, api)) == ["metrics forwards to administration and asks for no token"]


def test_lets_no_listener_make_another_path_of_what_may_be_watched(api: Api, with_metrics: Configuration) -> None:
    broken = deepcopy(with_metrics)
    manager = listeners(broken)[2]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["prefix_rewrite"] = "/quitquitquit"
    assert list(faults(broken, api)) == ["a route does more than to forward: prefix_rewrite"]


def test_stands_before_every_file_that_is_written(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the code that makes the configuration leaves the old one where it is."""
    (tmp_path / "envoy.yaml").write_text("the old one")

    def careless(*arguments: Any) -> Configuration:
        content = configuration_of(*arguments)
        rules(content).insert(0, {"match": {"path": LIST}})
        return content

    configuration_of = envoy.configuration
    monkeypatch.setattr(envoy, "configuration", careless)
    with pytest.raises(ValueError, match=f"unsafe: no token is asked for at {LIST}"):
        write(api, Settings.read({}), tmp_path)
    assert (tmp_path / "envoy.yaml").read_text() == "the old one"


def test_is_a_command_for_files_that_others_have_changed(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = deepcopy(configuration)
    rules(broken).pop()
    (tmp_path / "envoy.yaml").write_text(yaml.safe_dump(broken))
    monkeypatch.setattr(sys, "argv", ["gateway.envoy", "--check", str(tmp_path / "envoy.yaml")])
    with pytest.raises(SystemExit, match=r"^gateway: the configuration is unsafe: no rule asks for a token wherever"):
        envoy.main()
