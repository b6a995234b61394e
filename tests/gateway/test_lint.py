"""No configuration is written that leads past tokens, or into what services trust: each way to do so is told."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from gateway import envoy
from gateway.descriptors import Api
from gateway.envoy import write
from gateway.lint import faults
from gateway.settings import Settings
from kit.settings import TRUSTED_HEADERS
from tests.contract.tree import ROOT
from tests.gateway.edge import Configuration, http_filter, ingress
from tests.gateway.parts import (
    CHANGES,
    INBOX,
    JWT,
    LIST,
    LUA,
    OFF,
    SIGN_IN,
    Change,
    early,
    forwarding,
    host,
    listeners,
    named_filter,
    provider,
    routes,
    rules,
    said,
    without_filter,
)


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


def reversed_filters(configuration: Configuration) -> None:
    ingress(configuration)["http_filters"].reverse()


def without(name: str) -> Change:
    return lambda made: early(made).remove({"remove": name})


WAYS: dict[str, tuple[str, Change]] = {
    "a path made public": (
        f"tokens are asked for in another way at {LIST}",
        lambda c: rules(c).insert(0, {"match": {"path": LIST}}),
    ),
    "a prefix made public": (
        "tokens are asked for in another way at /storyloom.content.v1.",
        lambda c: rules(c).insert(0, {"match": {"prefix": "/storyloom.content.v1."}}),
    ),
    "a public RPC by prefix": (
        f"tokens are asked for in another way at {SIGN_IN}",
        lambda c: rules(c).insert(0, {"match": {"prefix": SIGN_IN}}),
    ),
    "a token that may be missing": (
        f"tokens are asked for in another way at {LIST}",
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
        lambda c: provider(c).pop("require_expiration"),
    ),
    "no audience": (
        "provider storyloom has no audiences",
        lambda c: provider(c).pop("audiences"),
    ),
    "a token in the query": (
        "provider storyloom takes tokens from elsewhere",
        lambda c: provider(c).update(from_params=["t"]),
    ),
    "no tokens at all": (f"{JWT} does not stand before", without_filter(JWT)),
    "tokens checked too late": (f"{JWT} does not stand before", reversed_filters),
    "a filter that is off": (
        f"{JWT} is disabled",
        lambda c: named_filter(c, JWT).update(disabled=True),
    ),
    "a route without tokens": (
        "content-reads asks for tokens in another way",
        lambda c: forwarding(c).update(typed_per_filter_config={JWT: OFF}),
    ),
    "a host without tokens": (
        "storyloom asks for tokens in another way",
        lambda c: host(c)["typed_per_filter_config"].update({JWT: OFF}),
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
    "a second route": (f"{LIST} goes to content, content", lambda c: routes(c).insert(0, to_content(LIST))),
    "no route": (f"{LIST} goes to nobody", lambda c: routes(c).remove(forwarding(c))),
    "a route to another service": (f"{LIST} goes to audit", lambda c: forwarding(c)["route"].update(cluster="audit")),
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
    "a script for every request": (
        f"{LUA} is for all requests",
        lambda c: named_filter(c, LUA).pop("disabled"),
    ),
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
    "a listener beside": ("back-door forwards to content and asks for no token", second_listener),
    "bytes onward": ("ingress forwards bytes of which nobody knows what they are", bytes_onward),
    "a requirement by its name where no token is needed": (
        f"tokens are asked for in another way at {SIGN_IN}",
        lambda c: rules(c)[0].update(match={"path": SIGN_IN}, requirement_name="anybody"),
    ),
    "a token for whoever has none yet": (
        f"a token is asked for at {SIGN_IN}",
        lambda c: rules(c).remove({"match": {"path": SIGN_IN}}),
    ),
    "a token of a cookie": (
        "provider storyloom takes tokens from elsewhere",
        lambda c: provider(c).update(from_cookies=["t"]),
    ),
    "a user by another claim": (
        "provider storyloom says something else of the user",
        lambda c: provider(c)["claim_to_headers"][1].update(claim_name="act"),
    ),
    "a user that a route says": (
        "content-reads says x-user-id in the client's place",
        lambda c: forwarding(c).update(request_headers_to_add=[said("X-User-Id")]),
    ),
    "a tenant that a host says": (
        "storyloom says x-tenant-id in the client's place",
        lambda c: host(c).update(request_headers_to_add=[said("x-tenant-id")]),
    ),
    "an address that all routes say": (
        "main says x-envoy-external-address in the client's place",
        lambda c: ingress(c)["route_config"].update(request_headers_to_add=[said("x-envoy-external-address")]),
    ),
    "a wish that a route appends": (
        "rest says x-act-in-tenant in the client's place",
        lambda c: forwarding(c, "rest")["typed_per_filter_config"][CHANGES]["mutations"]["request_mutations"].append(
            {"append": said("x-act-in-tenant")}
        ),
    ),
    "a user that all requests are of": (
        "x-user-id is said of all requests",
        lambda c: early(c).append({"append": said("x-user-id")}),
    ),
    "headers that a filter changes": (
        "envoy.filters.http.header_mutation changes all requests",
        lambda c: http_filter(c, "header_mutation").update(
            mutations={"request_mutations": [{"append": said("x-user-id")}]}
        ),
    ),
    "several targets of a route": (
        "content-reads does more than to forward: weighted_clusters",
        lambda c: forwarding(c)["route"].update(weighted_clusters={"clusters": []}),
    ),
    "a user that clients say": ("x-user-id of clients is not taken away", without("x-user-id")),
    "an address that clients say": (
        "x-envoy-external-address of clients is not taken away",
        without("x-envoy-external-address"),
    ),
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
    with pytest.raises(ValueError, match=f"unsafe: tokens are asked for in another way at {LIST}"):
        write(api, Settings.read({}), tmp_path)
    assert (tmp_path / "envoy.yaml").read_text() == "the old one"


def test_knows_all_that_services_believe_of_a_call() -> None:
    read = re.compile(r'metadata\.(?:get|pop)\("(x-[a-z-]+)"|refuse_mismatch\(call, "(x-[a-z-]+)"')
    found = {one or other for path in (ROOT / "kit").glob("*.py") for one, other in read.findall(path.read_text())}
    assert found - {"x-act-in-tenant", "x-request-id"} == set(TRUSTED_HEADERS)
