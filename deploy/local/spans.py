"""Reads spans back out of the store of `traces`."""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from .errors import RunError

ERROR = trace_pb2.Status.STATUS_CODE_ERROR
# A root is looked for in this much of the newest data; the services' batches arrive seconds apart.
RECENT_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Span:
    """One span; times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    start: int
    end: int
    error: str | None
    attributes: Mapping[str, str]


def parse_trace_id(text: str) -> str:
    """The 32 digits of a trace id, alone or within a `traceparent`."""
    found = re.fullmatch(r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-[0-9a-f]{2})?", text.strip().lower())
    if not found:
        raise RunError(f"{text!r} is not a trace id: it takes 32 hexadecimal digits; `make trace` lists recent ones.")
    return found[1]


def read_trace(file: Path, trace_id: str) -> list[Span]:
    """All spans kept of one trace, in no particular order, each once."""
    wanted = bytes.fromhex(trace_id)
    spans = (span for batch in _batches(file) if wanted in batch for span in _decoded(batch, wanted))
    return list({span.span_id: span for span in spans}.values())


def read_roots(file: Path, count: int) -> list[Span]:
    """The latest spans without a parent, newest first."""
    roots: list[Span] = []
    size = 0
    for batch in _batches(file):
        size += len(batch)
        roots += [span for span in _decoded(batch) if not span.parent_id]
        if size > RECENT_BYTES and len(roots) >= count:
            break
    return sorted(roots, key=lambda span: span.start, reverse=True)[:count]


def _batches(file: Path) -> Iterator[bytes]:
    """Newest first."""
    if not file.exists():
        raise RunError("No traces are kept here yet: `make run` keeps those of the stack it starts.")
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    try:
        for (batch,) in connection.execute("SELECT request FROM batches ORDER BY id DESC"):
            yield batch
    except sqlite3.DatabaseError as error:
        raise RunError(f"{file} can't be read ({error}): stop the stack, remove the file, and run it again.") from error
    finally:
        connection.close()


def _decoded(batch: bytes, trace_id: bytes | None = None) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(batch).resource_spans:
        service = _attributes(resource.resource.attributes).get("service.name", "?")
        for scope in resource.scope_spans:
            for span in scope.spans:
                if trace_id is None or span.trace_id == trace_id:
                    yield _span(service, span)


def _span(service: str, span: trace_pb2.Span) -> Span:
    attributes = _attributes(span.attributes)
    for event in span.events:
        if event.name == "exception":
            attributes |= _attributes(event.attributes)
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        error=span.status.message if span.status.code == ERROR else None,
        attributes=attributes,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case None:
            return ""
        case "bool_value":
            return str(value.bool_value).lower()
        case "array_value":
            return ",".join(map(_text, value.array_value.values))
        case kind:
            return str(getattr(value, kind))
