"""Which path goes to which cluster, with which deadline and retries; anything not listed is refused."""

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.descriptors import Api, Rpc
from gateway.settings import Settings
from kit.settings import SERVICES

DISABLED = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
HEADER_MUTATION = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"

LUA = "envoy.filters.http.lua"
# To the transcoder everything is 200, and a player that asked for a part takes that for the whole. Said twice: the REST
# route decides whether the filter runs, the RPC's, which the transcoder leads to, with which script.
PARTIAL = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute",
    "source_code": {
        "inline_string": """function envoy_on_response(handle)
  local headers = handle:headers()
  local grpc = string.find(headers:get("content-type") or "", "application/grpc", 1, true)
  if headers:get("content-range") and not grpc then
    headers:replace(":status", "206")
  end
end
"""
    },
}

# Not `match.grpc`, which is blind to gRPC-Web: routes are chosen before that filter rewrites the content type.
IS_GRPC = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
READING = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
# The request never reached the application: safe for every method.
SAFE_RETRIES = "connect-failure,refused-stream,reset-before-request"
READ_RETRIES = f"{SAFE_RETRIES},reset,unavailable,cancelled"
# The pages, and what each may load besides its own script, style and the API.
PAGE_FILES = {"docs.html": "", "read.html": "media-src 'self' https:; "}
UNARY_TIMEOUT, LONGEST_UNARY, LONGEST_STREAM = "10s", "30s", "3600s"


def virtual_host(api: Api, settings: Settings, transcoder: dict[str, Any], files: Path) -> dict[str, Any]:
    return {
        "name": "storyloom",
        "domains": ["*"],
        "include_request_attempt_count": True,
        **({"request_headers_to_add": [_proof(settings)]} if settings.secret else {}),
        "response_headers_to_add": [
            _header("x-content-type-options", "nosniff"),
            # Only what is encrypted may say so: browsers then never come in plaintext again.
            *([_header("strict-transport-security", "max-age=31536000")] if settings.public_tls else []),
            # What a user quotes when something went wrong; the trace has every hop under it.
            _header("x-trace-id", "%TRACE_ID%"),
        ],
        "response_headers_to_remove": ["x-envoy-upstream-service-time", "grpc-accept-encoding"],
        "typed_per_filter_config": {"envoy.filters.http.cors": _cors(settings)},
        "retry_policy": _retries(SAFE_RETRIES),
        "routes": [*_static(files), *_malformed(), *_grpc(api), *_files(api), *_rest(transcoder)],
    }


def _grpc(api: Api) -> list[dict[str, Any]]:
    """Routes of exposed RPCs by name, so that an internal one, or one not in the protos, has none."""
    routes = []
    for cluster in SERVICES:
        rpcs = [rpc for service in api.services if service.cluster == cluster for rpc in service.exposed]
        groups = {
            "uploads": [rpc for rpc in rpcs if rpc.client_streaming],
            "files": [rpc for rpc in rpcs if rpc.serves_file],
            "streams": [rpc for rpc in rpcs if rpc.streaming and not (rpc.client_streaming or rpc.serves_file)],
            "reads": [rpc for rpc in rpcs if rpc.read and not rpc.streaming],
            "calls": [rpc for rpc in rpcs if not rpc.read and not rpc.streaming],
        }
        routes += [_route(cluster, kind, members) for kind, members in groups.items() if members]
    return [*routes, _refusal("unknown-grpc", 404, "no such method", [IS_GRPC])]


def _route(cluster: str, kind: str, rpcs: list[Rpc]) -> dict[str, Any]:
    route: dict[str, Any] = {
        "name": f"{cluster}-{kind}",
        "match": {"safe_regex": {"regex": paths_regex(rpcs)}, "headers": [IS_GRPC]},
    }
    if kind in ("uploads", "files", "streams"):
        route["route"] = {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": "300s",
            "max_stream_duration": {"max_stream_duration": LONGEST_STREAM, "grpc_timeout_header_max": LONGEST_STREAM},
        }
        if kind == "uploads":
            # The limit counts the whole stream; the service limits each message. JSON uploads keep the limit.
            route["typed_per_filter_config"] = {"envoy.filters.http.body_size_limit": DISABLED}
        if kind == "files":
            route["typed_per_filter_config"] = {LUA: PARTIAL}
        return route
    # Envoy does not tell the service its own timeout: without this header a REST call would have no deadline there.
    route["request_headers_to_add"] = [_header("grpc-timeout", "10S", "ADD_IF_ABSENT")]
    deadlines = {"timeout": UNARY_TIMEOUT, "max_stream_duration": {"grpc_timeout_header_max": LONGEST_UNARY}}
    retries = {"retry_policy": _retries(READ_RETRIES)} if kind == "reads" else {}
    route["route"] = {"cluster": cluster, **deadlines, **retries}
    return route


def paths_regex(rpcs: Iterable[Rpc]) -> str:
    """One expression that matches exactly the paths of the given RPCs."""
    by_service: dict[str, list[str]] = {}
    for rpc in rpcs:
        by_service.setdefault(rpc.service, []).append(rpc.name)
    services = [f"{re.escape(service)}/({'|'.join(names)})" for service, names in by_service.items()]
    return f"/({'|'.join(services)})"


def _rest(transcoder: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a JSON request is before it is transcoded: CORS and header rules apply, then the RPC's route is looked up.

    It must be a real route: CORS skips direct responses.
    """
    per_filter = {"envoy.filters.http.header_mutation": _clean()}
    events = {**transcoder, "print_options": {**transcoder["print_options"], "stream_sse_style_delimited": True}}
    wants_events = {"name": "accept", "string_match": {"contains": "text/event-stream"}}
    return [
        {
            "name": "rest-events",
            "match": {"prefix": "/v1/", "headers": [wants_events]},
            "route": {"cluster": "blackhole"},
            "typed_per_filter_config": {**per_filter, TRANSCODER: events},
        },
        {
            "name": "rest",
            "match": {"prefix": "/"},
            "route": {"cluster": "blackhole"},
            "typed_per_filter_config": per_filter,
        },
    ]


def _files(api: Api) -> list[dict[str, Any]]:
    """Where files are sent and served as they are, by the method and path of HTTP."""
    # In pieces, which the service counts. What else clients send stays limited.
    unlimited = {"envoy.filters.http.body_size_limit": DISABLED}
    return [
        {
            "name": f"rest-file-{rpc.name}",
            "match": {
                "safe_regex": {"regex": re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(rule.path))},
                "headers": [{"name": ":method", "string_match": {"exact": rule.verb.upper()}}],
            },
            "route": {"cluster": "blackhole"},
            "typed_per_filter_config": {
                "envoy.filters.http.header_mutation": _clean(),
                **(unlimited if rpc.takes_file else {LUA: PARTIAL}),
            },
        }
        for rpc in api.exposed
        if rpc.takes_file or rpc.serves_file
        for rule in rpc.rules
    ]


def _clean() -> dict[str, Any]:
    removed = {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": "(grpc-.*|te)"}}}}
    return {"@type": HEADER_MUTATION, "mutations": {"request_mutations": [removed]}}


def _malformed() -> list[dict[str, Any]]:
    """A value that grpc-core cannot parse spoils the shared connection for other clients: it never gets there."""
    checks = {
        "grpc-timeout": ("([0-9]{1,8}[HMSmun])?", "malformed grpc-timeout"),
        "grpc-encoding": ("(identity|gzip|deflate)?", "unsupported grpc-encoding"),
    }
    return [
        _refusal(
            f"bad-{name}",
            400,
            message,
            [
                IS_GRPC,
                {
                    "name": name,
                    "string_match": {"safe_regex": {"regex": regex}},
                    "treat_missing_header_as_empty": True,
                    "invert_match": True,
                },
            ],
        )
        for name, (regex, message) in checks.items()
    ]


def _refusal(name: str, status: int, message: str, headers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"prefix": "/", "headers": headers},
        "direct_response": {"status": status, "body": {"inline_string": message}},
    }


def _static(files: Path) -> list[dict[str, Any]]:
    """The reference and the reader. CORS skips direct responses, so the document says itself that any site may read
    it."""
    document = {"content-type": "application/json", "cache-control": "public, max-age=300"}
    document["access-control-allow-origin"] = "*"
    pages = [_page(files / name, more) for name, more in PAGE_FILES.items()]
    return [_file("/openapi.json", files / "openapi.json", document), *pages]


def _page(source: Path, more: str) -> dict[str, Any]:
    headers = {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "public, max-age=300",
        "content-security-policy": content_security_policy(source.read_text(), more),
        "referrer-policy": "no-referrer",
    }
    return _file(f"/{source.stem}", source, headers)


def _file(path: str, source: Path, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "name": path.strip("/"),
        "match": {"path": path, "headers": [READING]},
        "direct_response": {"status": 200, "body": {"filename": str(source)}},
        "response_headers_to_add": [_header(name, value) for name, value in headers.items()],
        "typed_per_filter_config": {TRANSCODER: DISABLED, "envoy.filters.http.jwt_authn": DISABLED},
    }


def content_security_policy(page: str, more: str = "") -> str:
    """Lets the page's own inline script and style run, known by their hashes, and nothing else but `more`."""
    hashes = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        f"img-src data:; {more}"
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _cors(settings: Settings) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"safe_regex": {"regex": origin}} for origin in settings.cors_origins],
        "allow_methods": "GET,POST,PUT,PATCH,DELETE,OPTIONS",
        "allow_headers": "authorization,content-type,idempotency-key,x-act-in-tenant,x-grpc-web,x-user-agent,"
        "grpc-timeout",
        "expose_headers": "grpc-status,grpc-message,grpc-status-details-bin,x-request-id,retry-after,"
        "x-ratelimit-limit,x-ratelimit-remaining,x-ratelimit-reset,content-disposition,content-range,accept-ranges",
        "max_age": "600",
        "allow_credentials": True,
        "forward_not_matching_preflights": False,
    }


def _retries(retry_on: str) -> dict[str, Any]:
    return {
        "retry_on": retry_on,
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        "host_selection_retry_max_attempts": 3,
        "retry_host_predicate": [
            {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": PREVIOUS_HOSTS}}
        ],
    }


def _proof(settings: Settings) -> dict[str, Any]:
    """By which services know the gateway, and believe what it says of the client's address."""
    # To Envoy, a percent sign begins a variable.
    return _header("x-gateway-secret", settings.secret.replace("%", "%%"))


def _header(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": action}
