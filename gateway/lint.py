"""What is wrong with a configuration of Envoy: ways past tokens or into what services trust, and what others changed.

The ways are looked for as Envoy will read it, with the protos beside it, and nothing of the code that writes it."""

import re
from collections.abc import Iterator
from typing import Any

from gateway.descriptors import Api
from kit.settings import SERVICES, TRUSTED_HEADERS

Part = dict[str, Any]
FILTER = "envoy.filters.http"
JWT, LIMIT, TRANSCODER = f"{FILTER}.jwt_authn", f"{FILTER}.local_ratelimit", f"{FILTER}.grpc_json_transcoder"
ROUTER, LUA, CHANGES = f"{FILTER}.router", f"{FILTER}.lua", f"{FILTER}.header_mutation"
# What nobody but the gateway says, and what grpc-core would stumble over.
TAKEN_AWAY = (*TRUSTED_HEADERS, "x-envoy-original-path", "grpc-status-details-bin")
# All that is added to what a client sends: a deadline, the gateway's proof of itself, and what its token says.
ADDED = {"grpc-timeout", "x-gateway-secret"}
CLAIMS = {"x-tenant-id": "tid", "x-user-id": "sub"}
ADMINISTRATION, WATCHED = "administration", {"/ready", "/stats/prometheus"}
# As anybody may write a path that no proto has.
STRANGE = ("/", "/v1/me", "/storyloom.content.v1.StoryService/Nope", "/grpc.health.v1.Health/Check", "/x.Y/z")
# All that a route may do with a request besides passing it on: it neither rewrites paths, which tokens were asked for
# by, nor shows requests to others.
ONWARD = {"cluster", "timeout", "idle_timeout", "max_stream_duration", "retry_policy"}
# Sizes of the machine, which no setting says: whoever runs it may write other numbers.
SIZES = re.compile(
    r"overload_manager\.resource_monitors\.[\w.]+\.typed_config\.max_(heap_size_bytes|active_downstream_connections)"
    r"|static_resources\.clusters\.\w+\.circuit_breakers\.thresholds\.0\.max_(connections|pending_requests|requests)"
)
NOTHING = object()


def differences(found: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Where a configuration is another than the expected one, sizes apart. Without values: some are secret."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**expected, **found}:
            place = f"{where}.{key}" if where else str(key)
            yield from differences(found.get(key, NOTHING), expected.get(key, NOTHING), place)
    elif isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            yield f"{where} has {len(found)} parts, not {len(expected)}"
            return
        for nth, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, f"{where}.{_name(other, str(nth))}")
    elif found is NOTHING or expected is NOTHING:
        yield f"{where} is missing" if found is NOTHING else f"{where} is new"
    elif type(found) is type(expected) and found == expected:
        return
    elif not (type(found) is int and found > 0 and SIZES.fullmatch(where)):
        yield f"{where} is another"


def _name(part: Any, place: str) -> str:
    return str(part.get("name", place)) if isinstance(part, dict) else place


def faults(configuration: Part, api: Api) -> Iterator[str]:
    """A sentence for each way past tokens or into what services trust, in the order of the file."""
    for listener in configuration["static_resources"]["listeners"]:
        for network in _network_filters(listener):
            manager, name = network["typed_config"], listener["name"]
            if not manager["@type"].endswith(".HttpConnectionManager"):
                yield f"{name} forwards bytes of which nobody knows what they are"
                continue
            yield from _targets(manager)
            filters = _filters(manager)
            if JWT in filters or name == "ingress":
                yield from _ingress(api, manager, filters)
            else:
                yield from _unverified(api, name, manager)


def _targets(manager: Part) -> Iterator[str]:
    """Whether routes do what they are known to do, and say nothing in the client's place."""
    for place in _places(manager):
        if unknown := sorted(set(place.get("route", {})) - ONWARD):
            yield f"{place['name']} does more than to forward: {', '.join(unknown)}"
        for name in _added(place):
            if name not in ADDED:
                yield f"{place['name']} says {name} in the client's place"


def _places(manager: Part) -> list[Part]:
    """Whatever may have rules of its own for requests: all routes together, hosts, each route."""
    everything = manager["route_config"]
    hosts = everything["virtual_hosts"]
    routes = [{"name": "a route", **route} for host in hosts for route in host["routes"]]
    return [everything, *hosts, *routes]


def _added(place: Part) -> Iterator[str]:
    """Names of the headers that a request gets here, in lower case."""
    changes = place.get("typed_per_filter_config", {}).get(CHANGES, {}).get("mutations", {})
    appended = [one["append"] for one in changes.get("request_mutations", []) if "append" in one]
    for one in (*place.get("request_headers_to_add", []), *appended):
        yield one["header"]["key"].lower()


def _ingress(api: Api, manager: Part, filters: dict[str, Part]) -> Iterator[str]:
    yield from _filter_order(filters)
    yield from _token_rules(api, filters.get(JWT, {}))
    for place in _places(manager):
        if JWT in place.get("typed_per_filter_config", {}) and "direct_response" not in place:
            yield f"{place['name']} asks for tokens in another way"
    yield from _rpcs(api, manager)
    if not manager.get("use_remote_address"):
        yield "what clients say of their address is believed"
    extensions = manager.get("early_header_mutation_extensions", [])
    changes = [change for early in extensions for change in early["typed_config"]["mutations"]]
    yield from (f"{one['append']['header']['key']} is said of all requests" for one in changes if "append" in one)
    matched = [one["remove_on_match"]["key_matcher"] for one in changes if "remove_on_match" in one]
    removed = [re.escape(one["remove"]) for one in changes if "remove" in one]
    removed += [one["safe_regex"]["regex"] for one in matched]
    for name in TAKEN_AWAY:
        if not any(re.fullmatch(one, name) for one in removed):
            yield f"{name} of clients is not taken away"


def _filter_order(filters: dict[str, Part]) -> Iterator[str]:
    places = {name: place for place, name in enumerate(filters)}
    for name, one in filters.items():
        if one["disabled"] is not (name == LUA):
            yield f"{name} is {'disabled' if one['disabled'] else 'for all requests'}"
    if filters.get(CHANGES, {}).get("mutations"):
        yield f"{CHANGES} changes all requests"
    for before, after in ((TRANSCODER, JWT), (JWT, LIMIT), (LIMIT, ROUTER)):
        if not places.get(before, 99) < places.get(after, -1):
            yield f"{before} does not stand before {after}"


def _token_rules(api: Api, jwt: Part) -> Iterator[str]:
    """One rule for each public RPC, that asks for nothing, and a last one that asks for a token everywhere else."""
    rules, providers = jwt.get("rules", []), jwt.get("providers", {})
    free = [{"match": {"path": rpc.path}} for rpc in api.exposed if rpc.access.kind == "public"]
    for rule in (rule for rule in rules[:-1] if rule not in free):
        yield f"tokens are asked for in another way at {next(iter(rule.get('match', {}).values()), 'everything')}"
    yield from (f"a token is asked for at {rule['match']['path']}" for rule in free if rule not in rules)
    everywhere = [{"match": {"prefix": "/"}, "requires": {"provider_name": name}} for name in providers]
    if not rules or rules[-1] not in everywhere:
        yield "no rule asks for a token wherever no other rule does"
    for name, provider in providers.items():
        checked = ("issuer", "audiences", "require_expiration", "remote_jwks", "from_headers")
        yield from (f"provider {name} has no {one}" for one in checked if not provider.get(one))
        if {"from_params", "from_cookies"} & set(provider):
            yield f"provider {name} takes tokens from elsewhere than a header"
        if {one["header_name"]: one["claim_name"] for one in provider.get("claim_to_headers", [])} != CLAIMS:
            yield f"provider {name} says something else of the user than the token"


def _rpcs(api: Api, manager: Part) -> Iterator[str]:
    """Who can be reached, tried with the paths of all RPCs and some that are of none."""
    onward = [place for place in _places(manager) if place.get("route", {}).get("cluster", "blackhole") != "blackhole"]
    internal = [rpc.path for service in api.services for rpc in service.rpcs if not rpc.exposed]
    for path in (*internal, *STRANGE):
        yield from (f"{route['name']} forwards {path}" for route in onward if _matches(route["match"], path))
    for route in onward:
        if route["route"]["cluster"] not in SERVICES:
            yield f"{route['name']} forwards to {route['route']['cluster']}"
    for rpc in api.exposed:
        found = [route["route"]["cluster"] for route in onward if _matches(route["match"], rpc.path)]
        if found != [rpc.service.split(".")[1]]:
            yield f"{rpc.path} goes to {', '.join(found) or 'nobody'}"


def _unverified(api: Api, name: str, manager: Part) -> Iterator[str]:
    """A listener that asks nobody for a token: public RPCs by their names, and what may be watched."""
    public = {"identity": {api.keys.path}, ADMINISTRATION: WATCHED}
    for place in _places(manager):
        cluster = place.get("route", {}).get("cluster", "")
        if "match" in place and place["match"].get("path") not in public.get(cluster, ()):
            yield f"{name} forwards to {cluster or 'a cluster'} and asks for no token"


def _network_filters(listener: Part) -> list[Part]:
    chains = [*listener["filter_chains"], *filter(None, [listener.get("default_filter_chain")])]
    return [one for chain in chains for one in chain["filters"]]


def _filters(manager: Part) -> dict[str, Part]:
    found = manager["http_filters"]
    return {one["name"]: {**one["typed_config"], "disabled": one.get("disabled", False)} for one in found}


def _matches(match: Part, path: str) -> bool:
    """Whether Envoy would take the route for some request with this path; what headers it wants counts for nothing."""
    if "path" in match:
        return bool(match["path"] == path)
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    # Whatever other way there is: of those that forward, none is ours.
    return "prefix" not in match or path.startswith(match["prefix"])
