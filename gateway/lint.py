"""What is wrong with a configuration of Envoy: the ways it could let in what it must not, or let a client take all.

Reads the configuration as Envoy will, and knows the protos, but nothing of the code that writes it."""

import re
from collections.abc import Iterator
from typing import Any

from gateway.descriptors import READ_PREFIXES, Api, Rpc
from kit.settings import SERVICES, is_loopback

Part = dict[str, Any]
FILTER = "envoy.filters.http"
JWT, LIMIT, TRANSCODER = f"{FILTER}.jwt_authn", f"{FILTER}.local_ratelimit", f"{FILTER}.grpc_json_transcoder"
BODY, ROUTER, LUA = f"{FILTER}.body_size_limit", f"{FILTER}.router", f"{FILTER}.lua"
# What services believe, and what grpc-core would stumble over.
UNTRUSTED = ("x-tenant-id", "x-user-id", "x-gateway-secret", "x-envoy-original-path", "grpc-status-details-bin")
ADMINISTRATION, WATCHED = "administration", {"/ready", "/stats/prometheus"}
LONGEST_UNARY = 30.0
# As anybody may write a path that no proto has.
STRANGE = ("/", "/v1/me", "/storyloom.content.v1.StoryService/Nope", "/grpc.health.v1.Health/Check", "/x.Y/z")
# All that a route may do with a request besides passing it on: it neither rewrites paths, which tokens were asked for
# by, nor shows requests to others.
ONWARD = {"cluster", "timeout", "idle_timeout", "max_stream_duration", "retry_policy"}
# What is said nowhere here: somebody else would tell Envoy later.
ELSEWHERE = ("rds", "scoped_routes", "scoped_route_provider", "route_config_provider")
# What administration must not do: stop the gateway, and show its secrets.
TOO_MUCH = ("/quitquitquit", "/config_dump", "/certs", "/logging", "/tap", "/heapdump", "/cpuprofiler")
# Whatever takes something of a request into the log, or into a trace, but for these.
LOGGED = re.compile(
    r"%(?!PATH\(NQ:|REQ\(X-REQUEST-ID\)|REQ\(X-ENVOY-ORIGINAL-METHOD\?:METHOD\)"
    r"|DYNAMIC_METADATA\(envoy\.filters\.http\.jwt_authn:jwt:(?:tid|sub)\))([A-Z_]+\()"
)


def refuse_faults(configuration: Part, api: Api) -> None:
    """ValueError with all that is wrong."""
    if found := list(faults(configuration, api)):
        raise ValueError("the configuration is unsafe: " + "; ".join(found))


def faults(configuration: Part, api: Api) -> Iterator[str]:
    """A sentence for each fault, in the order of the file."""
    yield from _administration(configuration.get("admin", {}))
    yield from _overload(configuration)
    if configuration.get("dynamic_resources"):
        yield "listeners or clusters come from elsewhere"
    resources = configuration.get("static_resources", {})
    for listener in resources.get("listeners", []):
        for network in _network_filters(listener):
            manager, name = network.get("typed_config", {}), listener["name"]
            if not manager.get("@type", "").endswith(".HttpConnectionManager"):
                yield f"{name} forwards bytes of which nobody knows what they are"
                continue
            yield from (f"{name} has its routes from elsewhere" for one in ELSEWHERE if one in manager)
            yield from _targets(manager)
            filters = _filters(manager)
            if JWT in filters or name == "ingress":
                yield from _ingress(api, listener, manager, filters)
            else:
                yield from _unverified(api, name, manager)
            yield from _times(name, manager)
    for cluster in resources.get("clusters", []):
        if cluster["name"] in SERVICES:
            yield from _cluster(cluster)


def _administration(admin: Part) -> Iterator[str]:
    socket = admin.get("address", {}).get("socket_address")
    if socket and not is_loopback(f"{socket['address']}:{socket['port_value']}"):
        yield f"administration listens on {socket['address']}"
    if admin.get("address", {}).get("pipe", {"mode": 0}).get("mode", 0o777) & 0o077:
        yield "administration is for all users of the machine"
    allowed = admin.get("allow_paths", [])
    if not allowed:
        yield "administration does all that it can"
    for path in TOO_MUCH:
        if any(_allows(one, path) for one in allowed):
            yield f"administration does {path}"


def _allows(matcher: Part, path: str) -> bool:
    """Whether a path of the administration is one of these; what is not looked into here may allow all of them."""
    if "exact" in matcher:
        return bool(matcher["exact"] == path)
    return not ("prefix" in matcher and not path.startswith(matcher["prefix"]))


def _overload(configuration: Part) -> Iterator[str]:
    names = {one["name"].rpartition(".")[2] for one in configuration.get("overload_manager", {}).get("actions", [])}
    if "stop_accepting_requests" not in names:
        yield "nothing refuses requests when memory ends"
    for layer in configuration.get("layered_runtime", {}).get("layers", []):
        if not {"static_layer", "admin_layer"} & set(layer):
            yield f"the runtime's layer {layer.get('name')} comes from elsewhere"
        static = layer.get("static_layer", {})
        flat = {key.removeprefix("storyloom."): one for key, one in static.items() if key.startswith("storyloom.")}
        for key, value in (static.get("storyloom", {}) | flat).items():
            if value != 100:
                yield f"storyloom.{key} is {value} % in the runtime"


def _targets(manager: Part) -> Iterator[str]:
    """Whether all routes are told of here, and do what routes are known to do."""
    for host in manager.get("route_config", {}).get("virtual_hosts", []):
        if "matcher" in host or "request_mirror_policies" in host:
            yield f"{host['name']} has routes that nobody here knows"
        for route in host.get("routes", []):
            if unknown := sorted(set(route.get("route", {})) - ONWARD):
                yield f"{route.get('name', 'a route')} does more than to forward: {', '.join(unknown)}"


def _ingress(api: Api, listener: Part, manager: Part, filters: dict[str, Part]) -> Iterator[str]:
    hosts = manager.get("route_config", {}).get("virtual_hosts", [])
    routes = [route for host in hosts for route in host.get("routes", [])]
    yield from _filter_order(filters)
    yield from _token_rules(api, filters.get(JWT, {}))
    for place in (manager.get("route_config", {}), *hosts):
        own, whose = place.get("typed_per_filter_config", {}), place.get("name", "all routes")
        if JWT in own:
            yield f"tokens are not asked for as usual by {whose}"
        yield from (f"{one} is not as usual for {whose}" for one in (LIMIT, BODY) if one in own)
    for route in routes:
        yield from _route(api, route)
    yield from _rpcs(api, routes)
    yield from _limits(api, filters.get(LIMIT, {}))
    yield from _edge(listener, manager)
    if filters.get(BODY, {}).get("max_request_bytes", 0) < 1:
        yield "bodies have no limit"


def _filter_order(filters: dict[str, Part]) -> Iterator[str]:
    places = {name: place for place, name in enumerate(filters)}
    for name, one in filters.items():
        if one.get("disabled") and name in (JWT, LIMIT, BODY, ROUTER):
            yield f"{name} is disabled"
        if name == LUA and not one.get("disabled"):
            yield f"{name} changes all requests"
    for before, after in ((TRANSCODER, JWT), (JWT, LIMIT), (LIMIT, ROUTER)):
        if not places.get(before, 99) < places.get(after, -1):
            yield f"{before} does not stand before {after}"


def _token_rules(api: Api, jwt: Part) -> Iterator[str]:
    public = {rpc.path for rpc in api.exposed if rpc.access.kind == "public"}
    rules = jwt.get("rules", [])
    for rule in rules:
        where = rule.get("match", {})
        if _demands(rule.get("requires"), jwt.get("providers", {})):
            continue
        if set(where) != {"path"} or where["path"] not in public:
            yield f"no token is asked for at {next(iter(where.values()), 'everything')}"
    last = rules[-1] if rules else {}
    if last.get("match") != {"prefix": "/"} or not _demands(last.get("requires"), jwt.get("providers", {})):
        yield "no rule asks for a token wherever no other rule does"
    if jwt.get("requirement_map") or jwt.get("filter_state_rules") or jwt.get("bypass_cors_preflight"):
        yield "tokens are asked for by other means than rules"
    for name, provider in jwt.get("providers", {}).items():
        checked = ("issuer", "audiences", "require_expiration", "remote_jwks", "from_headers")
        yield from (f"provider {name} has no {one}" for one in checked if not provider.get(one))
        if provider.get("from_params"):
            yield f"provider {name} takes tokens from queries"


def _demands(requires: Part | None, providers: Part) -> bool:
    """Only the plain form: the others admit what they are missing."""
    return requires is not None and set(requires) == {"provider_name"} and requires["provider_name"] in providers


def _route(api: Api, route: Part) -> Iterator[str]:
    name, target = route.get("name", "a route"), route.get("route", {})
    own = route.get("typed_per_filter_config", {})
    if JWT in own and "direct_response" not in route:
        yield f"{name} forwards without asking for a token as usual"
    if LIMIT in own and "direct_response" not in route:
        yield f"{name} forwards without the usual limits"
    if target.get("cluster", "blackhole") in ("blackhole", *SERVICES):
        return
    yield f"{name} forwards to {target['cluster']}"


def _rpcs(api: Api, routes: list[Part]) -> Iterator[str]:
    """Who can be reached, tried with the paths of all RPCs and some that are of none."""
    onward = [route for route in routes if route.get("route", {}).get("cluster") in SERVICES]
    internal = [rpc.path for service in api.services for rpc in service.rpcs if not rpc.exposed]
    for path in (*internal, *STRANGE):
        yield from (f"{route.get('name')} forwards {path}" for route in onward if _matches(route["match"], path))
    for rpc in api.exposed:
        found = [route for route in onward if _matches(route["match"], rpc.path)]
        if len(found) != 1:
            yield f"{rpc.path} has {len(found)} routes"
        for route in found:
            if route["route"]["cluster"] != rpc.service.split(".")[1]:
                yield f"{rpc.path} goes to {route['route']['cluster']}"
            if BODY in route.get("typed_per_filter_config", {}) and not rpc.client_streaming:
                yield f"{rpc.path} takes bodies of any size"
            yield from _deadline(rpc, route["route"])


def _deadline(rpc: Rpc, target: Part) -> Iterator[str]:
    if rpc.streaming:
        if not _seconds(target.get("max_stream_duration", {}).get("max_stream_duration")):
            yield f"{rpc.path} may last for ever"
        if not _seconds(target.get("idle_timeout")):
            yield f"{rpc.path} may be idle for ever"
    elif not 0 < _seconds(target.get("timeout")) <= LONGEST_UNARY:
        yield f"{rpc.path} has no timeout"
    if not rpc.name.startswith(READ_PREFIXES) and not rpc.read:
        repeated = target.get("retry_policy", {}).get("retry_on", "").split(",")
        if set(repeated) - {"", "connect-failure", "refused-stream", "reset-before-request"}:
            yield f"{rpc.path} is no read and repeated after it may have run"


def _limits(api: Api, limit: Part) -> Iterator[str]:
    for name in ("filter_enabled", "filter_enforced"):
        if limit.get(name, {}).get("default_value", {}).get("numerator") != 100:
            yield f"{name} of the limits is not 100 %"
    buckets = {
        tuple(entry["key"] for entry in one.get("entries", [])): one.get("token_bucket", {}).get("max_tokens", 0)
        for one in limit.get("descriptors", [])
    }
    for keys in (("tenant",), ("tenant", "user"), ("sign_in", "masked_remote_address")):
        if not buckets.get(keys):
            yield f"there is no limit by {' and '.join(keys)}"
    limited = str(limit.get("rate_limits", []))
    for rpc in api.exposed:
        if rpc.access.kind == "public" and not rpc.read and not rpc.takes_file and f"'{rpc.path}'" not in limited:
            yield f"{rpc.path} is not limited by address"


def _edge(listener: Part, manager: Part) -> Iterator[str]:
    said = ("internal_address_config", "original_ip_detection_extensions")
    if not manager.get("use_remote_address") or any(one in manager for one in said):
        yield "what clients say of their address is believed"
    address = listener.get("address", {}).get("socket_address", {"address": "", "port_value": 0})
    beyond = not is_loopback(f"{address['address']}:{address['port_value']}")
    chains = listener.get("filter_chains", [])
    if beyond and not manager.get("xff_num_trusted_hops") and any("transport_socket" not in one for one in chains):
        yield "clients of other machines come in plaintext"
    removed = [
        change.get("remove") or change.get("remove_on_match", {}).get("key_matcher", {}).get("safe_regex", {})["regex"]
        for early in manager.get("early_header_mutation_extensions", [])
        for change in early["typed_config"].get("mutations", [])
    ]
    for name in UNTRUSTED:
        if not any(re.fullmatch(one, name) for one in removed):
            yield f"{name} of clients is not taken away"
    for log in manager.get("access_log", []):
        for part in LOGGED.findall(str(log)):
            yield f"the access log has %{part}"
    for part in LOGGED.findall(str(manager.get("tracing", {}))):
        yield f"traces have %{part}"


def _unverified(api: Api, name: str, manager: Part) -> Iterator[str]:
    """A listener that asks nobody for a token: public RPCs by their names, and what may be watched."""
    public = {"identity": {api.keys.path}, ADMINISTRATION: WATCHED}
    for host in manager.get("route_config", {}).get("virtual_hosts", []):
        for route in host.get("routes", []):
            cluster = route.get("route", {}).get("cluster", "")
            if "direct_response" not in route and route["match"].get("path") not in public.get(cluster, ()):
                yield f"{name} forwards to {cluster or 'a cluster'} and asks for no token"


def _times(name: str, manager: Part) -> Iterator[str]:
    common = manager.get("common_http_protocol_options", {})
    for one in ("request_headers_timeout", "request_timeout", "stream_idle_timeout"):
        if not _seconds(manager.get(one)):
            yield f"{name} has no {one}"
    if not _seconds(common.get("idle_timeout")) or not common.get("max_headers_count"):
        yield f"{name} has no limit of idle connections or of headers"


def _cluster(cluster: Part) -> Iterator[str]:
    name = cluster["name"]
    yield from (f"{name} has no {one}" for one in ("health_checks", "outlier_detection") if not cluster.get(one))
    thresholds = cluster.get("circuit_breakers", {}).get("thresholds", [{}])[0]
    for one in ("max_requests", "max_pending_requests", "retry_budget"):
        if not thresholds.get(one):
            yield f"{name} has no {one}"


def _network_filters(listener: Part) -> list[Part]:
    chains = [*listener.get("filter_chains", []), *filter(None, [listener.get("default_filter_chain")])]
    return [one for chain in chains for one in chain.get("filters", [])]


def _filters(manager: Part) -> dict[str, Part]:
    filters = manager.get("http_filters", [])
    return {one["name"]: {**one.get("typed_config", {}), "disabled": one.get("disabled", False)} for one in filters}


def _matches(match: Part, path: str) -> bool:
    """Whether Envoy would take the route for some request with this path; what headers it wants counts for nothing."""
    if "path" in match:
        return bool(match["path"] == path)
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    # Whatever other way there is: of those that forward, none is ours.
    return "prefix" not in match or path.startswith(match["prefix"])


def _seconds(text: str | None) -> float:
    return float((text or "0s").removesuffix("s"))
