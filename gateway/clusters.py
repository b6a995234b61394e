"""Where Envoy sends requests: one cluster per service, its own listener for the key set, and the trace collector."""

import ipaddress
from pathlib import Path
from typing import Any

from gateway.settings import Address, Addresses, Settings
from gateway.tls import with_service

KEYS, ADMINISTRATION = "keys", "administration"
H2_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters(settings: Settings, files: Path) -> list[dict[str, Any]]:
    """`files` is the absolute folder with what `tls.secrets` returns."""
    found = [_service(name, addresses) for name, addresses in settings.services.items()]
    if settings.tls is not None:
        for one in found:
            one["transport_socket"] = with_service(one["name"], files)
    found += [_keys(), *([_administration(settings.administration(files))] if settings.metrics else [])]
    if settings.collector:
        found.append({**_cluster("otlp", settings.collector), **_http2()})
    # Unmapped paths need a route that CORS applies to; the transcoder refuses them before they get here.
    found.append({"name": "blackhole", "type": "STATIC", "connect_timeout": "1s"})
    return found


def _cluster(name: str, addresses: Addresses) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host, port in addresses
    ]
    static = all(_is_ip(host) for host, _ in addresses)
    return {
        "name": name,
        "type": "STATIC" if static else "STRICT_DNS",
        **({} if static else {"dns_lookup_family": "V4_PREFERRED"}),
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _service(name: str, addresses: Addresses) -> dict[str, Any]:
    return {
        **_cluster(name, addresses),
        **_http2(),
        "lb_policy": "ROUND_ROBIN",
        "per_connection_buffer_limit_bytes": 1048576,
        "common_lb_config": {
            # With the panic threshold on, requests would go to hosts that are known to be down.
            "healthy_panic_threshold": {"value": 0},
            # The default gathers changes for a second: /healthz calls a service healthy whose requests are refused.
            "update_merge_window": "0s",
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "priority": "DEFAULT",
                    "max_connections": 64,
                    "max_pending_requests": 256,
                    "max_requests": 512,
                    # A count of retries lets a dead host, which never has a request under way, swallow them all.
                    "retry_budget": {"budget_percent": {"value": 25}, "min_retry_concurrency": 50},
                    "track_remaining": True,
                }
            ]
        },
        "outlier_detection": _outliers(),
        "health_checks": [_health_check(name)],
    }


def _http2() -> dict[str, Any]:
    options = {
        "@type": f"type.googleapis.com/{H2_OPTIONS}",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "explicit_http_config": {
            "http2_protocol_options": {
                "connection_keepalive": {"interval": "60s", "timeout": "5s"},
                "initial_stream_window_size": 1048576,
                "initial_connection_window_size": 4194304,
            }
        },
    }
    return {"typed_extension_protocol_options": {H2_OPTIONS: options}}


def _outliers() -> dict[str, Any]:
    """Ejects a host for failed connections only, never for the errors of the application."""
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 50,
    }


def _health_check(service: str) -> dict[str, Any]:
    return {
        "timeout": "1s",
        "interval": "1s",
        # Of the first check only. Without, it begins while Envoy still reads the rest of its configuration, and on a
        # busy machine times out before anybody looks for the answer: who takes over a port would refuse everything.
        "initial_jitter": "0.05s",
        # The defaults are 60 s, which would hide the first failure from a gateway without traffic.
        "no_traffic_interval": "1s",
        "no_traffic_healthy_interval": "1s",
        # A host that says NOT_SERVING gets nothing more at once, whatever this is. One that says nothing may only be
        # busy: were it out at once, a pause of a second would be an outage of a service with one process.
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": f"storyloom.{service}"},
    }


def _keys() -> dict[str, Any]:
    """The key set comes from an RPC, so it needs the transcoder: Envoy asks a listener of its own for it, in memory."""
    return _to(KEYS, {"envoy_internal_address": {"server_listener_name": KEYS}})


def _administration(admin: Address | Path) -> dict[str, Any]:
    if isinstance(admin, Path):
        return _to(ADMINISTRATION, {"pipe": {"path": str(admin)}})
    return _to(ADMINISTRATION, {"socket_address": {"address": admin[0], "port_value": admin[1]}})


def _to(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
