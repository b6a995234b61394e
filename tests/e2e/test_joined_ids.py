"""Whoever has one id of a request finds it everywhere: answer, access log, spans of all services, audit log."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx

from deploy.local.spans import Span, read_trace
from tests.running import Running, until


class TestOneRequest:
    async def test_has_the_same_ids_in_answer_access_log_spans_and_audit_log(self, platform: Running) -> None:
        teacher, auditor = platform.sign_in("lan"), platform.sign_in("auditor")
        answer = await asyncio.to_thread(
            httpx.post,
            f"{platform.url}/v1/courses",
            json={"title": "c", "storyLanguage": "vi", "learningLanguage": "en"},
            headers={"authorization": f"Bearer {teacher.token}"},
        )
        request, trace = answer.headers["x-request-id"], answer.headers["x-trace-id"]

        (entry,) = await until(lambda: entries(auditor, requestId=request))
        assert (entry["traceId"], entry["entityId"]) == (trace, answer.json()["id"])
        assert entries(auditor, traceId=trace) == [entry]

        spans = await until(lambda: of_content(platform, trace))
        server = next(span for span in spans if span.name.endswith("/CreateCourse") and span.service == "content")
        assert server.attributes["request.id"] == request
        assert {"storyloom-gateway", "content"} <= {span.service for span in spans}

        (line,) = await until(lambda: list(lines(platform, trace)))
        assert (line["request_id"], line["user"], line["status"]) == (request, teacher.user["id"], 200)
        assert line["tenant"] == server.attributes["tenant.id"]


def entries(auditor: Any, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = auditor.get("/v1/auditLogs", **query).get("auditLogs", [])
    return found


def of_content(platform: Running, trace: str) -> list[Span]:
    """The trace's spans, once the service's own is among them."""
    spans = read_trace(platform.settings.trace_file, trace)
    return spans if {"content", "storyloom-gateway"} <= {span.service for span in spans} else []


def lines(platform: Running, trace: str) -> Iterator[dict[str, Any]]:
    """Of the access log, of which a line may be half written."""
    for text in (platform.settings.logs / "gateway.log").read_text().splitlines():
        if trace in text and text.endswith("}"):
            yield json.loads(text)
