"""Errors that Envoy makes itself, told to REST clients as the same google.rpc.Status JSON that services send."""

from dataclasses import dataclass
from typing import Any

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
UNAVAILABLE = "A service that this call depends on is not available."
SIGN_IN_FIRST = "No access token was sent: it belongs into `authorization: Bearer …`."
FAILED_TOKEN = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "jwt_failed"}, {"key": "message"}]}


@dataclass(frozen=True)
class Reply:
    """What to say for an HTTP status: gRPC code, ErrorReason, and a message where Envoy's own would tell too much."""

    status: int
    code: int
    reason: str
    message: str = ""


REPLIES = (
    Reply(400, 3, "MALFORMED_REQUEST"),
    Reply(401, 16, "INVALID_TOKEN"),
    Reply(403, 7, "PERMISSION_REQUIRED"),
    Reply(404, 5, "UNKNOWN_METHOD", "No RPC has this path and verb."),
    Reply(408, 4, "DEADLINE_TOO_SHORT"),
    Reply(413, 3, "MALFORMED_REQUEST"),
    Reply(426, 3, "MALFORMED_REQUEST"),
    Reply(429, 8, "TOO_MANY_ATTEMPTS", "Too many calls; come back after the time in `retry-after`."),
    Reply(431, 3, "MALFORMED_REQUEST"),
    Reply(500, 13, "INTERNAL_FAULT", "A fault of the platform; the request id finds it in the logs."),
    Reply(502, 14, "DEPENDENCY_UNAVAILABLE", UNAVAILABLE),
    Reply(503, 14, "DEPENDENCY_UNAVAILABLE", UNAVAILABLE),
    Reply(504, 4, "DEADLINE_TOO_SHORT", "The deadline passed before the service answered."),
)

# Where gRPC has a word of its own.
GRPC = {404: 12}

# REST = the transcoder has rewritten the request, or its content type is not gRPC's. The content type alone does not
# tell: after the transcoder it is application/grpc. A client's own copy of the first header is stripped at the edge.
REST: dict[str, Any] = {
    "or_filter": {
        "filters": [
            {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": True}}},
            {
                "header_filter": {
                    "header": {
                        "name": "content-type",
                        "string_match": {"prefix": "application/grpc"},
                        "invert_match": True,
                        "treat_missing_header_as_empty": True,
                    }
                }
            },
        ]
    }
}


def local_reply_config() -> dict[str, Any]:
    """The first mapper that matches decides, so the causes told apart by metadata stand before the plain statuses."""
    key_set_missing = _failed_token("prefix", "Jwks remote fetch")
    no_token = _failed_token("exact", "Jwt is missing")
    wrong_audience = _both(_status(403), _failed_token("prefix", "Audiences in Jwt"))
    return {
        "mappers": [
            # A key set that cannot be fetched is our fault, not a bad token.
            _mapper(_both(key_set_missing, REST), Reply(503, 14, "DEPENDENCY_UNAVAILABLE", UNAVAILABLE), restate=True),
            {"filter": key_set_missing, "status_code": 503, **_grpc(14, UNAVAILABLE)},
            _mapper(_both(no_token, REST), Reply(401, 16, "MISSING_TOKEN", SIGN_IN_FIRST)),
            _mapper(_both(wrong_audience, REST), Reply(401, 16, "INVALID_TOKEN"), restate=True),
            {"filter": wrong_audience, "status_code": 401, **_grpc(16)},
            *(_mapper(_both(_status(reply.status), REST), reply) for reply in REPLIES),
            # gRPC clients get the body as the status message: addresses and socket errors are not for them either.
            *(
                {"filter": _status(reply.status), **_grpc(GRPC.get(reply.status, reply.code), reply.message)}
                for reply in REPLIES
            ),
        ]
    }


def _mapper(condition: dict[str, Any], reply: Reply, *, restate: bool = False) -> dict[str, Any]:
    detail = {"@type": ERROR_INFO, "reason": reply.reason, "domain": "storyloom"}
    status = {"code": reply.code, "message": reply.message or "%LOCAL_REPLY_BODY%", "details": [detail]}
    return {
        "filter": condition,
        **({"status_code": reply.status} if restate else {}),
        "body_format_override": {"content_type": "application/json", "json_format": status},
    }


def _grpc(code: int, message: str = "") -> dict[str, Any]:
    """What a gRPC client is told. Left to itself, Envoy would make UNKNOWN of 413, and INTERNAL of 400."""
    header = {"header": {"key": "grpc-status", "value": str(code)}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"headers_to_add": [header], **({"body": {"inline_string": message}} if message else {})}


def _status(status: int) -> dict[str, Any]:
    # Envoy asks for a runtime key even where nothing will ever override the value.
    value = {"default_value": status, "runtime_key": "none"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _failed_token(how: str, message: str) -> dict[str, Any]:
    matcher = {**FAILED_TOKEN, "value": {"string_match": {how: message}}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _both(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": list(filters)}}
