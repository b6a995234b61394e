"""Writes everything Envoy needs into one folder: its configuration, the descriptor set, the API reference.

The descriptors stay a file of their own: embedded, they would bury what a reader of envoy.yaml looks for."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from gateway import openapi
from gateway.clusters import clusters, secrets
from gateway.descriptors import DESCRIPTORS, Api
from gateway.filters import http_filters, transcoder
from gateway.local_replies import local_reply_config
from gateway.routes import PAGE_FILES, virtual_host
from gateway.settings import Address, Settings
from kit.tls import read_material

PAGES = Path(__file__).parent
MONITORS = "type.googleapis.com/envoy.extensions.resource_monitors"
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
ADMIN_PATHS = ("/stats", "/healthcheck/", "/drain_listeners", "/clusters", "/server_info", "/memory", "/runtime")


def configuration(api: Api, settings: Settings, files: Path) -> dict[str, Any]:
    """The bootstrap; `files` is the absolute folder of descriptors.binpb, openapi.json and the pages."""
    limits = {"ratelimit_enabled": 100, "ratelimit_enforced": 100}
    # The default of 100 is meant for expressions of strangers; these list our own RPCs, a few hundred of them.
    longest_expression = {"max_program_size": {"error_level": 20000, "warn_level": 20000}}
    # Spans are sent in batches; the default of five at a time would be a call to the collector for each few requests.
    batches = {"tracing": {"opentelemetry": {"min_flush_spans": 256, "flush_interval_ms": 1000}}}
    return {
        "node": {"id": "storyloom-gateway", "cluster": "storyloom"},
        "admin": {
            "address": _socket(settings.admin) if isinstance(settings.admin, tuple) else _pipe(settings.admin),
            "allow_paths": [{"exact": "/ready"}, *({"prefix": path} for path in ADMIN_PATHS)],
        },
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": {"storyloom": limits, "re2": longest_expression} | batches},
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "overload_manager": _overload(),
        "static_resources": {"listeners": [_listener(api, settings, files)], "clusters": clusters(settings, files)},
    }


def _listener(api: Api, settings: Settings, files: Path) -> dict[str, Any]:
    manager = _connection_manager(api, settings, files)
    return {
        "name": "ingress",
        "address": _socket(settings.listen),
        "per_connection_buffer_limit_bytes": 1048576,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _connection_manager(api: Api, settings: Settings, files: Path) -> dict[str, Any]:
    from_json = transcoder(api, files / "descriptors.binpb")
    largest = max((files / name).stat().st_size for name in ("openapi.json", *PAGE_FILES))
    return {
        "@type": CONNECTION_MANAGER,
        "stat_prefix": "ingress",
        "codec_type": "AUTO",
        # An edge: x-envoy-* headers of clients are dropped and the client's address is the connection's.
        "use_remote_address": True,
        "xff_num_trusted_hops": 0,
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
    trusted = ("x-tenant-id", "x-user-id", "x-gateway-secret", "x-envoy-original-path")
    names = (*trusted, "traceparent", "tracestate", "baggage")
    mutations: list[dict[str, Any]] = [{"remove": name} for name in names]
    for regex in (PARSED_BY_GRPC, NO_METADATA):
        mutations.append({"remove_on_match": {"key_matcher": {"safe_regex": {"regex": regex}}}})
    return {"name": "edge", "typed_config": {"@type": EARLY_MUTATION, "mutations": mutations}}


def _tracing(settings: Settings) -> dict[str, Any]:
    return {
        "random_sampling": {"value": settings.trace_percent},
        # The span is named after the RPC; the URL would carry query strings, which may hold personal data.
        "max_path_tag_length": 0,
        "spawn_upstream_span": False,
        "operation": "%REQ(:PATH)%",
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


def _overload() -> dict[str, Any]:
    heap = "envoy.resource_monitors.fixed_heap"
    thresholds = {"shrink_heap": 0.90, "disable_http_keepalive": 0.92, "stop_accepting_requests": 0.95}
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{MONITORS}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": 536870912,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 5000,
                },
            },
        ],
        "actions": [
            {"name": f"envoy.overload_actions.{action}", "triggers": [{"name": heap, "threshold": {"value": used}}]}
            for action, used in thresholds.items()
        ],
    }


def _socket(address: Address) -> dict[str, Any]:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _pipe(path: Path) -> dict[str, Any]:
    """A socket that only its owner reaches: no other user of the machine, and no web page."""
    return {"pipe": {"path": str(path), "mode": 0o600}}


class _Plain(yaml.SafeDumper):
    """Repeats what occurs twice instead of pointing at it: easier to read than anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(api: Api, settings: Settings, out: Path) -> Path:
    """Fills the folder and returns the path of envoy.yaml in it."""
    files = out.resolve()
    files.mkdir(parents=True, exist_ok=True)
    (files / "descriptors.binpb").write_bytes(api.slim())
    openapi.write(api, files / "openapi.json")
    for page in PAGE_FILES:
        shutil.copyfile(PAGES / page, files / page)
    for name, content in secrets(settings.tls).items() if settings.tls else ():
        (files / name).write_text(yaml.safe_dump(content, sort_keys=False))
    made = files / "envoy.yaml"
    made.unlink(missing_ok=True)
    # It holds the gateway's secret. Created with its final mode: at no moment can another user open it.
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out_file:
        yaml.dump(configuration(api, settings, files), out_file, Dumper=_Plain, sort_keys=False, width=120)
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(prog="gateway.envoy", description=__doc__)
    arguments.add_argument("--out", type=Path, required=True, help="folder to write envoy.yaml and its files into")
    arguments.add_argument("--descriptors", type=Path, default=DESCRIPTORS, help="descriptor set of the protos")
    chosen = arguments.parse_args()
    try:
        settings = Settings.read(os.environ)
        if settings.tls is not None:
            read_material("gateway", settings.tls)
    except ValueError as error:
        sys.exit(f"gateway: {error}")
    print(write(Api.load(chosen.descriptors), settings, chosen.out))


if __name__ == "__main__":
    main()
