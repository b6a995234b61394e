"""Headers with which a client might pass for somebody else, or for the gateway: each spelling has a name."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

Lines = tuple[tuple[str, str], ...]
# What gRPC's clients send themselves, or refuse to send.
NOT_METADATA = {"host", "connection", "te", "transfer-encoding", "upgrade", "http2-settings", "content-length"}
ADDRESS = "203.0.113.9"
# Asked for by whoever rewrites methods or paths.
METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override", "_method", "x-original-method")
PATH_OVERRIDES = (
    *("x-original-path", "x-envoy-original-path", "x-original-url", "x-rewrite-url", "x-forwarded-uri"),
    *("x-forwarded-path", "x-forwarded-prefix", "x-envoy-original-dst-host", "x-accel-redirect", ":path"),
)
ADDRESS_HEADERS = (
    *("x-envoy-external-address", "x-forwarded-for", "x-real-ip", "true-client-ip", "x-client-ip", "forwarded"),
    *("cf-connecting-ip", "x-cluster-client-ip", "fastly-client-ip", "x-originating-ip"),
)


@dataclass(frozen=True, slots=True)
class Victim:
    """Whom the caller would like to be, and who the caller is."""

    tenant_id: str
    user_id: str
    row_id: str
    own_tenant_id: str
    own_user_id: str


@dataclass(frozen=True, slots=True)
class Spoof:
    name: str
    lines: Lines

    @property
    def metadata(self) -> Lines | None:
        """As gRPC can carry it, or None."""
        for name, value in self.lines:
            legal = name == name.lower() and all(char.isalnum() or char in "-_." for char in name) and name.isascii()
            if not legal or name.startswith("grpc-") or name in NOT_METADATA:
                return None
            if name.endswith("-bin") or not (value.isascii() and value.isprintable()):
                return None
        return self.lines

    def claimed(self, name: str) -> str | None:
        """What a service reads under the name."""
        return dict(self.lines).get(name)


def spoofs(victim: Victim) -> list[Spoof]:
    found = [Spoof(name, tuple(lines)) for name, lines in _all(victim)]
    assert len({one.name for one in found}) == len(found)
    return found


def _all(victim: Victim) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for header, theirs, own in (
        ("x-tenant-id", victim.tenant_id, victim.own_tenant_id),
        ("x-user-id", victim.user_id, victim.own_user_id),
        ("x-act-in-tenant", victim.tenant_id, victim.own_tenant_id),
    ):
        yield from _spellings(header, theirs)
        yield from _values(header, theirs, own)
    both = [("x-tenant-id", victim.tenant_id), ("x-user-id", victim.user_id)]
    yield "both ids", both
    yield "both ids and a guessed secret", [*both, ("x-gateway-secret", "guess")]
    yield "all three", [*both, ("x-act-in-tenant", victim.tenant_id)]
    for name in ("tenant-id", "x-tenant", "tenant", "x-org-id", "x-jwt-claim-tid", "x-jwt-payload", "tid"):
        yield f"{name} instead", [(name, victim.tenant_id)]
    yield "a cookie", [("cookie", f"x-tenant-id={victim.tenant_id}; tenant={victim.tenant_id}")]
    yield from _gateway()
    yield from _overrides(victim)
    yield from _protocol(victim)


def _spellings(header: str, theirs: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    names = {
        "as it is": header,
        "in upper case": header.upper(),
        "in title case": header.title(),
        "with underscores": header.replace("-", "_"),
        "with one underscore": header[::-1].replace("-", "_", 1)[::-1],
        "with dots": header.replace("-", "."),
        "without hyphens": header.replace("-", ""),
        "with two hyphens": header.replace("-", "--"),
        "with other hyphens": header.replace("-", "\u2010"),
        "percent-encoded": header.replace("-", "%2D"),
        "with a space before the colon": f"{header} ",
        "with a tab before the colon": f"{header}\t",
        "with a space in front": f" {header}",
        "with NUL": f"{header}\0",
        "with a colon": f":{header}",
        "as metadata of a JSON bridge": f"grpc-metadata-{header}",
        "as an extension of gRPC": f"grpc-{header}",
        "as forwarded": f"x-forwarded-{header.removeprefix('x-')}",
        "as original": f"x-original-{header.removeprefix('x-')}",
        "with a long s": header.replace("-", "-\u017f", 1),
    }
    for name, spelled in names.items():
        yield f"{header} {name}", [(spelled, theirs)]
    octets = (theirs.encode(), UUID(theirs).bytes)
    yield f"{header}-bin", [(f"{header}-bin", base64.b64encode(octets[0]).decode())]
    yield f"{header}-bin with octets", [(f"{header}-bin", base64.b64encode(octets[1]).decode().rstrip("="))]


def _values(header: str, theirs: str, own: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    yield f"{header} twice, own first", [(header, own), (header, theirs)]
    yield f"{header} twice, own last", [(header, theirs), (header, own)]
    yield f"{header} in two cases, own first", [(header, own), (header.upper(), theirs)]
    yield f"{header} empty and theirs", [(header, ""), (header, theirs)]
    values = {
        "joined by a comma": f"{own}, {theirs}",
        "joined by a comma, own last": f"{theirs},{own}",
        "joined by a semicolon": f"{own};{theirs}",
        "with blanks around": f"  {theirs}\t",
        "in quotes": f'"{theirs}"',
        "with escapes": theirs.replace("-", "%2D"),
        "of capitals": theirs.upper(),
        "of digits alone": theirs.replace("-", ""),
        "in braces": f"{{{theirs}}}",
        "as a URN": f"urn:uuid:{theirs}",
        "as a list": f'["{theirs}"]',
        "with a line break": f"{own}\r\n\t{theirs}",
        "with SQL": f"{own}' OR '1'='1",
        "the platform's": str(UUID(int=0)),
        "a wildcard": "*",
        "null": "null",
        "of full-width digits": "".join(chr(ord(char) + 0xFEE0) if char.isdigit() else char for char in theirs),
    }
    for name, value in values.items():
        yield f"{header} {name}", [(header, value)]


def _gateway() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for header in ADDRESS_HEADERS:
        value = f"for={ADDRESS};proto=https;by=127.0.0.1" if header == "forwarded" else ADDRESS
        yield f"an address in {header}", [(header, value)]
        yield f"an address in {header} with a guessed secret", [(header, value), ("x-gateway-secret", "guess")]
    address = ("x-envoy-external-address", ADDRESS)
    for name, secret in (("empty", ""), ("long", "A" * 4000), ("short", "A"), ("two", "A, B"), ("accented", "\u00e9")):
        yield f"a secret that is {name}", [("x-gateway-secret", secret), address]
    yield "the secret twice", [("x-gateway-secret", "A"), ("x-gateway-secret", "B"), address]
    yield "the secret in upper case", [("X-GATEWAY-SECRET", "A"), address]
    yield "the secret in octets", [("x-gateway-secret-bin", "AAAA"), address]
    for name in ("internal", "force-trace", "decorator-operation", "ip-tags", "attempt-count", "hedge-on-per-try"):
        yield f"x-envoy-{name}", [(f"x-envoy-{name}", "true")]
    yield "a deadline for Envoy", [("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-expected-rq-timeout-ms", "1")]
    yield "retries for Envoy", [("x-envoy-retry-on", "5xx,retriable-4xx"), ("x-envoy-max-retries", "99")]
    ids = {"long": "r" * 3000, "SQL": "'; DROP TABLE x; --", "empty": "", "a path": "../etc", "accented": "\u00e9"}
    for name, value in ids.items():
        yield f"a request id, {name}", [("x-request-id", value)]


def _overrides(victim: Victim) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for header in METHOD_OVERRIDES:
        yield f"DELETE in {header}", [(header, "DELETE")]
    for header in PATH_OVERRIDES:
        yield f"a path in {header}", [(header, f"/v1/courses/{victim.row_id}")]
    rpc = "/storyloom.identity.v1.AccessService/GetAccessSnapshot"
    yield "an RPC in x-envoy-original-path", [("x-envoy-original-path", rpc)]
    for name in ("evil.example", "localhost", "identity:7101", "127.0.0.1:9901", "", "a b", "x.example/v1", "\u00e9.x"):
        yield f"host {name!r}", [("host", name)]
    yield "an authority", [(":authority", "evil.example")]
    yield "a forwarded host", [("x-forwarded-host", "identity"), ("x-forwarded-proto", "https")]


def _protocol(victim: Victim) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for value in ("banana", "1n", "0S", "-1S", "99999999H", "999999999S", "", "1S, 1S"):
        yield f"grpc-timeout {value!r}", [("grpc-timeout", value)]
    for value in ("trailers", "trailers, deflate", "x", "gzip;q=0.5"):
        yield f"te {value!r}", [("te", value)]
    more = {"grpc-encoding": "zip", "grpc-status": "0", "grpc-message": "%zz", "grpc-status-details-bin": "!!!"}
    more |= {"grpc-tags-bin": "!", "grpc-trace-bin": "!", "grpc-previous-rpc-attempts": "x", "grpc-retry": "x"}
    more |= {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "x=y", "baggage": "tenant=other"}
    more |= {"x-b3-traceid": "1" * 32, "idempotency-key": "k" * 3000, "via": "1.1 gateway"}
    for header, value in more.items():
        yield f"{header} {value[:20]}", [(header, value)]
    theirs = ("x-tenant-id", victim.tenant_id)
    for nominated in ("authorization", "x-tenant-id", "x-user-id, x-gateway-secret", "close, x-tenant-id", "te"):
        yield f"connection takes {nominated} away", [("connection", nominated)]
        yield f"connection takes {nominated} away, with ids", [("connection", nominated), theirs]
    yield "an upgrade", [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")]
    yield "a tunnel", [("connection", "upgrade"), ("upgrade", "websocket")]
    yield "two framings", [("transfer-encoding", "chunked"), ("content-length", "4")]
