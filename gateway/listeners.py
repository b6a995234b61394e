"""Where the gateway listens: for clients; in memory, for its own question for keys; for whoever watches it."""

from pathlib import Path
from typing import Any

from gateway.clusters import ADMINISTRATION, KEYS
from gateway.descriptors import Api
from gateway.filters import http_filters, key_filters, router, transcoder
from gateway.local_replies import local_reply_config
from gateway.routes import PAGE_FILES, virtual_host
from gateway.settings import Address, Settings
from gateway.tls import with_clients
from kit.settings import TRUSTED_HEADERS

MANAGER = "envoy.filters.network.http_connection_manager"
CONNECTION_MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
EARLY_MUTATION = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
CLAIM = "DYNAMIC_METADATA(envoy.filters.http.jwt_authn:jwt:"
# Metadata that grpc-core parses as typed values: a malformed one would spoil the shared connection for other clients.
PARSED_BY_GRPC = "(.*-bin|grpc-status|grpc-message|grpc-(internal|previous|retry|trace|tags|server|lb).*)"
# Names that HTTP allows and grpc-core does not: it would refuse the whole call as its own fault. A colon only begins
# the names that HTTP/2 itself sets.
NO_METADATA = ":?[a-z0-9_.-]*[^a-z0-9_.:-].*"
# All that a scraper or a probe of the platform may ask of the administration.
WATCHED = ("/ready", "/stats/prometheus")


def listeners(api: Api, settings: Settings, files: Path) -> list[dict[str, Any]]:
    """`files` is the absolute folder of what `envoy.write` puts beside the configuration."""
    found = [_ingress(api, settings, files), _keys(api, files)]
    return [*found, _metrics(settings.metrics)] if settings.metrics else found


def socket_at(address: Address) -> dict[str, Any]:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _ingress(api: Api, settings: Settings, files: Path) -> dict[str, Any]:
    chain = _chain(_connection_manager(api, settings, files))
    if settings.public_tls is not None:
        chain |= {"transport_socket": with_clients(files), "transport_socket_connect_timeout": "10s"}
    return {
        "name": "ingress",
        "address": socket_at(settings.listen),
        # Tells it from the others, which go on while it is drained.
        "traffic_direction": "INBOUND",
        "per_connection_buffer_limit_bytes": 1048576,
        "filter_chains": [chain],
    }


def _keys(api: Api, files: Path) -> dict[str, Any]:
    """The public RPC of the keys, and nothing else. No port: it does not matter whether clients need TLS."""
    target = {"match": {"path": api.keys.path}, "route": {"cluster": "identity", "timeout": "2s"}}
    manager = _plain_http("keys", [target], key_filters(api, files / "keys.binpb"))
    return {
        "name": KEYS,
        "internal_listener": {},
        "bypass_overload_manager": True,
        "filter_chains": [_chain(manager)],
    }


def _metrics(address: Address) -> dict[str, Any]:
    """For Prometheus and the kubelet, also when the gateway refuses everybody else."""
    reading = [{"name": ":method", "string_match": {"exact": "GET"}}]
    targets: list[dict[str, Any]] = [
        {"match": {"path": path, "headers": reading}, "route": {"cluster": ADMINISTRATION, "timeout": "10s"}}
        for path in WATCHED
    ]
    return {
        "name": "metrics",
        "address": socket_at(address),
        "bypass_overload_manager": True,
        "filter_chains": [_chain(_plain_http("metrics", targets, [router()]))],
    }


def _plain_http(name: str, routes: list[dict[str, Any]], filters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": CONNECTION_MANAGER,
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "request_headers_timeout": "5s",
        "request_timeout": "10s",
        "stream_idle_timeout": "15s",
        "common_http_protocol_options": {"idle_timeout": "120s", "max_headers_count": 50},
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    }


def _chain(manager: dict[str, Any]) -> dict[str, Any]:
    return {"filters": [{"name": MANAGER, "typed_config": manager}]}


def _connection_manager(api: Api, settings: Settings, files: Path) -> dict[str, Any]:
    from_json = transcoder(api, files / "descriptors.binpb")
    largest = max((files / name).stat().st_size for name in ("openapi.json", *PAGE_FILES))
    return {
        "@type": CONNECTION_MANAGER,
        "stat_prefix": "ingress",
        "codec_type": "AUTO",
        # An edge: x-envoy-* headers of clients are dropped. The client's address is the connection's, or what as many
        # proxies as are ours have said.
        "use_remote_address": True,
        "xff_num_trusted_hops": settings.trusted_proxies,
        "normalize_path": True,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "always_set_request_id_in_response": True,
        "server_name": "storyloom",
        **_receiving_limits(api),
        "early_header_mutation_extensions": [_strip_untrusted()],
        **({"tracing": _tracing(settings)} if settings.collector else {}),
        "access_log": [_access_log(settings.access_log)] if settings.access_log else [],
        "local_reply_config": local_reply_config(),
        "route_config": {
            "name": "main",
            "max_direct_response_body_size_bytes": largest,
            "virtual_hosts": [virtual_host(api, settings, from_json, files)],
        },
        "http_filters": http_filters(api, settings, from_json),
    }


def _receiving_limits(api: Api) -> dict[str, Any]:
    uploads = any(rpc.client_streaming for rpc in api.exposed)
    return {
        # At most what the services' grpc.max_metadata_size admits.
        "max_request_headers_kb": 32,
        "request_headers_timeout": "10s",
        # Counts to the end of the request, so with client streams it must outlast the longest of them.
        "request_timeout": "3600s" if uploads else "60s",
        "stream_idle_timeout": "60s",
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": 100,
        },
        # The only way an HTTP/1.1 client can learn that a stream ended in an error.
        "http_protocol_options": {"enable_trailers": True},
        "http2_protocol_options": {
            "max_concurrent_streams": 128,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
    }


def _strip_untrusted() -> dict[str, Any]:
    """Before routing and every filter: nothing a client sends may arrive under a name that is trusted further in."""
    names = (*TRUSTED_HEADERS, "x-envoy-original-path", "traceparent", "tracestate", "baggage")
    mutations: list[dict[str, Any]] = [{"remove": name} for name in names]
    for regex in (PARSED_BY_GRPC, NO_METADATA):
        mutations.append({"remove_on_match": {"key_matcher": {"safe_regex": {"regex": regex}}}})
    return {"name": "edge", "typed_config": {"@type": EARLY_MUTATION, "mutations": mutations}}


def _tracing(settings: Settings) -> dict[str, Any]:
    return {
        "random_sampling": {"value": settings.trace_percent},
        # The span is named after the RPC, or the path of what was refused before there was one; never after the query,
        # which may hold personal data.
        "max_path_tag_length": 0,
        "spawn_upstream_span": False,
        "operation": "%PATH(NQ:PATH)%",
        "custom_tags": [{"tag": "tenant_id", "request_header": {"name": "x-tenant-id"}}],
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "service_name": "storyloom-gateway",
                "grpc_service": {"envoy_grpc": {"cluster_name": "otlp"}, "timeout": "1s"},
            },
        },
    }


def _access_log(path: str) -> dict[str, Any]:
    line = {
        "time": "%START_TIME%",
        "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
        "path": "%PATH(NQ:ORIG_OR_PATH)%",
        "rpc": "%PATH(NQ:PATH)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "upstream": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "trace_id": "%TRACE_ID%",
        "tenant": f"%{CLAIM}tid)%",
        "user": f"%{CLAIM}sub)%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {"@type": FILE_LOG, "path": path, "log_format": {"json_format": line}},
    }
