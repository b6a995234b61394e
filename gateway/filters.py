"""The HTTP filters in their order: what runs before the transcoder sees REST paths, what runs after sees RPC paths."""

from pathlib import Path
from typing import Any

from gateway.clusters import KEYS
from gateway.descriptors import Api
from gateway.settings import Settings

FILTER = "type.googleapis.com/envoy.extensions.filters.http"
CLAIMS_KEY = "jwt"
LARGEST_REQUEST = 4_000_000
# Consumed by every request besides its own buckets, so it must never be the one that refuses.
NO_LIMIT = 1_000_000


def http_filters(api: Api, settings: Settings, transcoder: dict[str, Any]) -> list[dict[str, Any]]:
    every_service = {name: {"value": 1} for name in settings.services}
    return [
        _filter(
            "health_check",
            "health_check.v3.HealthCheck",
            pass_through_mode=False,
            headers=[{"name": ":path", "string_match": {"exact": "/healthz"}}],
            cluster_min_healthy_percentages=every_service,
        ),
        _filter("cors", "cors.v3.Cors"),
        _filter("grpc_web", "grpc_web.v3.GrpcWeb"),
        _filter("header_mutation", "header_mutation.v3.HeaderMutation"),
        _filter("body_size_limit", "body_size_limit.v3.BodySizeLimit", max_request_bytes=LARGEST_REQUEST),
        _compressor(),
        # Only where a route has a script for it.
        {**_filter("lua", "lua.v3.Lua"), "disabled": True},
        {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
        _filter("jwt_authn", "jwt_authn.v3.JwtAuthentication", providers=_providers(settings), rules=_rules(api)),
        _rate_limit(api, settings),
        _stats(),
        router(),
    ]


def key_filters(api: Api, descriptors: Path) -> list[dict[str, Any]]:
    """Of the listener that answers the gateway's own question for keys: nothing reaches it but that."""
    keys = {**transcoder(api, descriptors), "services": [api.keys.service]}
    return [{"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": keys}, router()]


def router() -> dict[str, Any]:
    return _filter("router", "router.v3.Router")


def transcoder(api: Api, descriptors: Path) -> dict[str, Any]:
    services = [service.name for service in api.services if any(rpc.rules for rpc in service.exposed)]
    return {
        "@type": f"{FILTER}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": services,
        "convert_grpc_status": True,
        # Without these, whatever the transcoder does not know goes to a service as it is, and fails there with 503.
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "max_request_body_size": 4194304,
        "max_response_body_size": 16777216,
        "print_options": {"always_print_primitive_fields": True},
    }


def _providers(settings: Settings) -> dict[str, Any]:
    return {
        "storyloom": {
            "issuer": settings.issuer,
            "audiences": [settings.audience],
            "require_expiration": True,
            "max_lifetime": "86400s",
            "clock_skew_seconds": 5,
            # The default would also take a token from the query, which ends up in logs.
            "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
            "forward": True,
            "payload_in_metadata": CLAIMS_KEY,
            "failed_status_in_metadata": "jwt_failed",
            "claim_to_headers": [
                {"header_name": "x-tenant-id", "claim_name": "tid"},
                {"header_name": "x-user-id", "claim_name": "sub"},
            ],
            "jwt_cache_config": {"jwt_cache_size": 1000},
            "remote_jwks": {
                "http_uri": {"uri": "http://keys/.well-known/jwks.json", "cluster": KEYS, "timeout": "2s"},
                "cache_duration": "60s",
                # Fetching ahead keeps the old keys in use while identity is down.
                "async_fetch": {"fast_listener": True, "failed_refetch_duration": "1s"},
                "retry_policy": {"num_retries": 2},
            },
        }
    }


def _rules(api: Api) -> list[dict[str, Any]]:
    """Fails closed: whatever is not declared public needs a token. Nothing is verified where no rule matches."""
    public = [{"match": {"path": rpc.path}} for rpc in api.exposed if rpc.access.kind == "public"]
    return [*public, {"match": {"prefix": "/"}, "requires": {"provider_name": "storyloom"}}]


def _rate_limit(api: Api, settings: Settings) -> dict[str, Any]:
    tenant, user = _claim("tenant", "tid"), _claim("user", "sub")
    return _filter(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="rate",
        token_bucket=_bucket(NO_LIMIT, "1s"),
        # Both default to 0 %: a limit that counts and refuses nobody.
        filter_enabled=_always("storyloom.ratelimit_enabled"),
        filter_enforced=_always("storyloom.ratelimit_enforced"),
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        enable_retry_after_header=True,
        max_dynamic_descriptors=10000,
        rate_limits=[{"actions": [tenant]}, {"actions": [tenant, user]}, *_by_address(api)],
        # An entry without a value makes one bucket for each value that occurs.
        descriptors=[
            {"entries": [{"key": "tenant"}], "token_bucket": _bucket(settings.per_tenant, "1s")},
            {"entries": [{"key": "tenant"}, {"key": "user"}], "token_bucket": _bucket(settings.per_user, "1s")},
            {
                "entries": [{"key": "sign_in", "value": "yes"}, {"key": "masked_remote_address"}],
                "token_bucket": _bucket(settings.sign_ins_per_address, "10s"),
            },
        ],
    )


def _by_address(api: Api) -> list[dict[str, Any]]:
    """What anybody may call and is more than a read: signing in, above all. Files take a link that was given."""
    public = [rpc for rpc in api.exposed if rpc.access.kind == "public"]
    sign_ins = [rpc.path for rpc in public if not (rpc.read or rpc.takes_file)]
    matchers = [
        {
            "descriptor_key": "sign_in",
            "descriptor_value": "yes",
            "headers": [{"name": ":path", "string_match": {"exact": path}}],
        }
        for path in sign_ins
    ]
    # One client easily has all addresses of a /64 of IPv6: they count as one, as for identity's own throttling.
    address = {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}
    return [{"actions": [{"header_value_match": matcher}, address]} for matcher in matchers]


def _claim(key: str, claim: str) -> dict[str, Any]:
    path = {"key": "envoy.filters.http.jwt_authn", "path": [{"key": CLAIMS_KEY}, {"key": claim}]}
    return {"metadata": {"descriptor_key": key, "source": "DYNAMIC", "skip_if_absent": False, "metadata_key": path}}


def _bucket(tokens: int, interval: str) -> dict[str, Any]:
    return {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": interval}


def _always(runtime_key: str) -> dict[str, Any]:
    return {"default_value": {"numerator": 100}, "runtime_key": runtime_key}


def _stats() -> dict[str, Any]:
    """Counts by RPC. Names that clients make up are not counted: they have no route, so no cluster to count for."""
    return _filter(
        "grpc_stats",
        "grpc_stats.v3.FilterConfig",
        stats_for_all_methods=True,
        enable_upstream_stats=True,
        # With dots, the metrics' labels would split the package name.
        replace_dots_in_grpc_service_name=True,
    )


def _compressor() -> dict[str, Any]:
    """Stands before the transcoder because responses pass the filters in reverse."""
    library = {
        "name": "gzip",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip",
            "compression_level": "COMPRESSION_LEVEL_1",
        },
    }
    types = [{"exact": "application/json"}, {"prefix": "text/csv"}, {"prefix": "text/html"}]
    return _filter(
        "compressor",
        "compressor.v3.Compressor",
        compressor_library=library,
        response_direction_config={"common_config": {"min_content_length": 1024, "content_type_matcher": types}},
    )


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{FILTER}.{kind}", **settings}}
