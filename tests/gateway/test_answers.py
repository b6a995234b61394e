"""What the gateway answers itself, to each kind of client; what it writes down; and how long it waits for anybody."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from gateway.descriptors import Api
from tests.gateway.edge import Configuration, Edge, ingress, reason, running, slow_refill

# One Envoy serves them all.
pytestmark = pytest.mark.xdist_group("gateway-answers")
LIST = "/storyloom.content.v1.CourseService/ListCourses"
EMPTY = bytes(5)
LONG = b"\0" + (4_100_000).to_bytes(4, "big") + b"x" * 4_100_000


def hurried(configuration: Configuration) -> None:
    """All times are half a second."""
    manager = ingress(configuration)
    manager |= {"request_headers_timeout": "0.5s", "stream_idle_timeout": "0.5s"}
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        if route.get("route", {}).get("timeout") == "10s":
            route["route"]["timeout"] = "0.5s"
    slow_refill(configuration)


@pytest.fixture(scope="module")
async def edge(api: Api, written: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    folder = tmp_path_factory.mktemp("answers")
    async with running(api, written, folder, change=hurried, settings={"RATE_LIMIT_PER_USER": "20"}) as found:
        yield found


async def native(
    edge: Edge, headers: dict[str, str], path: str = LIST, content: bytes = EMPTY
) -> tuple[str, str]:
    """Code and message that a gRPC client sees."""
    metadata = tuple(headers.items())
    async with grpc.aio.insecure_channel(edge.address, [("grpc.max_send_message_length", -1)]) as channel:
        try:
            await channel.unary_unary(path)(content[5:], metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
    return "OK", ""


async def slow(context: Any) -> None:
    await asyncio.sleep(3)


async def raw(edge: Edge, sent: bytes) -> bytes:
    """What the gateway says of itself, as JSON."""
    host, _, port = edge.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.readuntil(b"}\n"), 10)
    finally:
        writer.close()
        await writer.wait_closed()


class TestErrors:
    """Of JSON clients: the same `google.rpc.Status` as from services."""

    @pytest.mark.parametrize(
        ("method", "path", "headers", "content", "expected"),
        [
            ("GET", "/v1/me", {}, b"", (401, 16, "MISSING_TOKEN")),
            ("GET", "/v1/me", {"authorization": "Bearer a.b.c"}, b"", (401, 16, "INVALID_TOKEN")),
            ("GET", "/v1/nothing", {}, b"", (404, 5, "UNKNOWN_METHOD")),
            ("GET", "/v1/courses?nothing=1", {}, b"", (400, 3, "MALFORMED_REQUEST")),
            ("POST", "/v1/sessions", {}, b"{", (400, 3, "MALFORMED_REQUEST")),
            ("GET", "/v1/me", {"x_y": "1"}, b"", (400, 3, "MALFORMED_REQUEST")),
            ("GET", "/v1/me", {"x": "y" * 40_000}, b"", (431, 3, "MALFORMED_REQUEST")),
            ("GET", "/v1/me", {f"x{nth}": "y" for nth in range(120)}, b"", (431, 3, "MALFORMED_REQUEST")),
        ],
    )
    async def test_are_json_with_a_reason(
        self, edge: Edge, method: str, path: str, headers: dict[str, str], content: bytes, expected: tuple[object, ...]
    ) -> None:
        answer = await edge.client.request(method, path, headers=headers, content=content)
        assert (answer.status_code, answer.json()["code"], reason(answer)) == expected

    async def test_come_in_time_although_a_service_does_not(self, edge: Edge) -> None:
        edge.upstream.behaviour = slow
        answer = await edge.client.get("/v1/courses", headers=edge.issuer.bearer("slow"))
        edge.upstream.behaviour = None
        assert (answer.status_code, answer.json()["code"], reason(answer)) == (504, 4, "DEADLINE_TOO_SHORT")

    @pytest.mark.parametrize(
        ("sent", "status", "code"),
        [
            (b"GET /v1/me HTTP/1.1\r\nhost: x\r\nx-slow: ", 408, 4),
            (b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{", 408, 4),
            (b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 4100000\r\n\r\n{", 413, 3),
        ],
        ids=["head", "body", "length"],
    )
    async def test_end_requests_that_do_not_or_would_not(
        self, edge: Edge, sent: bytes, status: int, code: int
    ) -> None:
        answer = await raw(edge, sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b'"code":%d' % code in answer


class TestGrpcErrors:
    @pytest.mark.parametrize(
        ("path", "token", "content", "code"),
        [
            (LIST, "", EMPTY, "UNAUTHENTICATED"),
            (LIST, "a.b.c", EMPTY, "UNAUTHENTICATED"),
            ("/x.Y/Z", "good", EMPTY, "UNIMPLEMENTED"),
            ("/storyloom.event.v1.EventInboxService/DeliverEvents", "good", EMPTY, "UNIMPLEMENTED"),
            ("/storyloom.identity.v1.SessionService/CreateSession", "", LONG, "INVALID_ARGUMENT"),
        ],
    )
    async def test_have_the_code_that_says_what_is_wrong(
        self, edge: Edge, path: str, token: str, content: bytes, code: str
    ) -> None:
        sent = {"good": edge.issuer.bearer("good"), "": {}}.get(token, {"authorization": f"Bearer {token}"})
        assert (await native(edge, sent, path, content))[0] == code

    async def test_of_metadata_that_cannot_be_parsed_are_the_callers_own(self, edge: Edge) -> None:
        headers = {"content-type": "application/grpc", "grpc-timeout": "banana"} | edge.issuer.bearer("banana")
        answer = await edge.client.post(LIST, content=EMPTY, headers=headers)
        assert (answer.headers["grpc-status"], answer.headers["grpc-message"]) == ("3", "malformed grpc-timeout")
        assert await native(edge, edge.issuer.bearer("another")) == ("OK", "")

    async def test_of_too_many_calls_and_of_no_time_are_told_apart(self, edge: Edge) -> None:
        found = [await native(edge, edge.issuer.bearer("many")) for _ in range(21)]
        assert found[19:] == [("OK", ""), ("RESOURCE_EXHAUSTED", found[20][1])]
        edge.upstream.behaviour = slow
        assert (await native(edge, edge.issuer.bearer("slow")))[0] == "DEADLINE_EXCEEDED"
        edge.upstream.behaviour = None


class TestProtocols:
    @pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
    async def test_grpc_web_of_both_kinds(self, edge: Edge, text: bool) -> None:
        kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
        headers = {"content-type": kind, "accept": kind} | edge.issuer.bearer("web")
        content = base64.b64encode(EMPTY) if text else EMPTY
        answer = await edge.client.post(LIST, content=content, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, f"{kind}+proto" if text else kind)
        # Each frame is encoded by itself, with its own padding.
        parts = answer.text.replace("=", " ").split() if text else []
        frames = b"".join(base64.b64decode(part + "=" * (-len(part) % 4)) for part in parts) if text else answer.content
        assert frames[:5] == EMPTY
        assert b"grpc-status:0" in frames[5:]

    async def test_grpc_web_is_refused_like_everybody_else(self, edge: Edge) -> None:
        answer = await edge.client.post(LIST, content=EMPTY, headers={"content-type": "application/grpc-web+proto"})
        assert (answer.status_code, answer.headers["grpc-status"]) == (401, "16")

    async def test_http2_without_an_upgrade(self, edge: Edge) -> None:
        """The preface of HTTP/2 and empty settings: answered with settings, in frames."""
        host, _, port = edge.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        head = await asyncio.wait_for(reader.readexactly(9), 10)
        writer.close()
        await writer.wait_closed()
        assert head[3:4] == b"\4"


class TestRequestIds:
    @pytest.mark.parametrize("path", ["/v1/me", "/docs", "/healthz", "/v1/nothing"])
    async def test_are_in_every_answer_and_nobodys_choice(self, edge: Edge, path: str) -> None:
        mine = {"x-request-id": "11111111-1111-4111-8111-111111111111"}
        answers = [await edge.client.get(path, headers=mine) for _ in range(2)]
        ids = {one.headers["x-request-id"] for one in answers}
        assert len(ids) == 2
        assert mine["x-request-id"] not in ids

    async def test_lead_from_the_answer_to_the_service_and_the_log(self, edge: Edge) -> None:
        answer = await edge.client.get("/v1/me", headers=edge.issuer.bearer("an", "hoa-sen"))
        assert edge.upstream.calls[-1][0] == answer.headers["x-request-id"]
        line = await edge.logged(answer)
        assert (line["user"], line["tenant"], line["status"]) == ("an", "hoa-sen", 200)
        assert (line["path"], line["rpc"]) == ("/v1/me", "/storyloom.identity.v1.UserService/GetMe")


class TestAccessLog:
    async def test_has_neither_queries_nor_secrets_nor_bodies(self, edge: Edge) -> None:
        private = {
            "query": "in-query-5e1",
            "email": "lan@hoa-sen.example",
            "password": "in-body-5e2",
            "agent": "in-agent-5e3",
            "cookie": "in-cookie-5e4",
        }
        token = edge.issuer.token("an")
        headers = {
            "authorization": f"Bearer {token}",
            "user-agent": private["agent"],
            "cookie": private["cookie"],
            "referer": f"https://a.example/?q={private['query']}",
            "idempotency-key": "in-key-5e5",
        }
        query = f"access_token={token}&q={private['query']}&email={private['email']}"
        body = {"tenant": "hoa-sen", "email": private["email"], "password": private["password"]}
        answers = [
            await edge.client.post(f"/v1/sessions?{query}", json=body, headers=headers),
            await edge.client.post("/v1/sessions", json=body, headers=headers),
            await edge.client.get(f"/v1/users?{query}", headers=headers),
            await edge.client.get(f"/v1/nothing?{query}", headers=headers),
            await edge.client.get(f"/docs?{query}", headers=headers),
            await edge.client.get(f"/v1/me?{query}", headers={"authorization": "Bearer in-token-5e6.x.y"}),
        ]
        lines = [await edge.logged(one) for one in answers]
        assert [line["status"] for line in lines] == [400, 200, 400, 404, 200, 400]
        assert not [line["path"] for line in lines if "?" in line["path"]]
        text = (edge.folder / "access.log").read_text()
        assert not [one for one in (*private.values(), "in-key", "in-token", token[-40:], "Bearer") if one in text]
        assert not [one for one in private.values() if one in (edge.folder / "envoy.log").read_text()]


def test_an_answer_is_told_from_a_page() -> None:
    """The test above would find nothing in an empty log."""
    with pytest.raises(KeyError):
        reason(httpx.Response(200, json={}))
