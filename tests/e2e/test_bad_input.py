"""Nothing a client sends gives a 5xx, a stack trace or SQL: each refusal is JSON with a reason."""

import json
import socket
from typing import Any

import httpx
import pytest

from tests.running import Running

FAULTS = ("traceback", "select ", "asyncpg", "sqlalchemy", ".py", "/site-packages")
ANY_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"


def answer(platform: Running, method: str, path: str, *, token: str = "", **request: Any) -> httpx.Response:
    headers = dict(request.pop("headers", {}))
    if token:
        headers["authorization"] = f"Bearer {token}"
    with httpx.Client(base_url=platform.url, timeout=20) as client:
        return client.request(method, path, headers=headers, **request)


def assert_refused(response: httpx.Response, status: int, reason: str = "") -> None:
    assert response.status_code == status, response.text
    body = response.json()
    reasons = [detail.get("reason") for detail in body["details"] if "reason" in detail]
    assert reasons, body
    assert not reason or reason in reasons, body
    lowered = response.text.lower()
    assert not any(word in lowered for word in FAULTS)


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"not json",
            b"[]",
            b'"text"',
            b'{"title": 7',
            b'{"title": {"a": 1}}',
            b'{"title": "\xff\xfe"}',
            b'{"status": "NO_SUCH_STATUS", "title": "t"}',
            b'{"title": "t", "storyLanguage": ["vi"]}',
            b"\x00\x01\x02",
            ('{"a":' * 5000 + "1" + "}" * 5000).encode(),
            b'{"title":"\\ud800"}',
        ],
    )
    def test_refuses_what_is_no_course(self, platform: Running, body: bytes) -> None:
        token = platform.sign_in("lan").token
        response = answer(
            platform, "POST", "/v1/courses", token=token, content=body, headers={"content-type": "application/json"}
        )
        assert_refused(response, 400)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "course"),
            ({"title": "x" * 201}, "course.title"),
            ({"title": "a\0b"}, "course.title"),
            ({"title": "t", "storyLanguage": "v" * 40}, "course.story_language"),
        ],
    )
    def test_names_the_field(self, platform: Running, body: Any, field: str) -> None:
        response = answer(platform, "POST", "/v1/courses", token=platform.sign_in("lan").token, json=body)
        assert_refused(response, 400, "INVALID_FIELD")
        bad = next(d for d in response.json()["details"] if "fieldViolations" in d)
        assert field in [violation["field"] for violation in bad["fieldViolations"]]

    def test_refuses_an_unknown_enum_number(self, platform: Running) -> None:
        body = {"term": "a", "translation": "b", "partOfSpeech": 99, "language": "vi", "learningLanguage": "en"}
        response = answer(platform, "POST", "/v1/vocabularies", token=platform.sign_in("lan").token, json=body)
        assert_refused(response, 400, "INVALID_FIELD")

    def test_refuses_deep_nesting_that_json_allows(self, platform: Running) -> None:
        nested: Any = 1
        for _ in range(90):
            nested = {"a": nested}
        token = platform.sign_in("admin").token
        response = answer(platform, "POST", "/v1/users", token=token, json={"user": {"attributes": nested}})
        assert_refused(response, 400)

    def test_refuses_a_huge_body(self, platform: Running) -> None:
        token = platform.sign_in("lan").token
        response = answer(platform, "POST", "/v1/stories", token=token, content=b'{"text":"' + b"a" * 6_000_000 + b'"}')
        assert_refused(response, 413)


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/", 404),
            ("GET", "/v1/nothing", 404),
            ("GET", "/v2/courses", 404),
            ("PUT", "/v1/courses", 404),
            ("POST", f"/v1/courses/{ANY_ID}:explode", 404),
            ("GET", "/v1/courses?nope=1", 400),
            ("GET", "/v1/courses?pageSize=many", 400),
            ("GET", "/v1/courses?pageSize=-1", 400),
            ("GET", "/v1/courses?pageSize=99999999999999", 400),
            ("GET", "/v1/courses?pageToken=forged", 400),
            ("GET", "/v1/courses?status=NOPE", 400),
            ("GET", "/v1/courses/not-a-uuid", 400),
            ("GET", f"/v1/courses/{ANY_ID}%00", 400),
            ("GET", "/v1/courses/%FF%FE", 400),
            ("GET", f"/v1/courses/{ANY_ID}", 404),
            ("GET", f"/v1/courses/{ANY_ID}/../..", 404),
            ("POST", "/storyloom.event.v1.EventInboxService/DeliverEvents", 404),
            ("POST", "/storyloom.identity.v1.AccessService/GetAccessSnapshot", 404),
        ],
    )
    def test_refuses(self, platform: Running, method: str, path: str, status: int) -> None:
        assert_refused(answer(platform, method, path, token=platform.sign_in("lan").token), status)

    def test_a_query_cannot_override_the_path(self, platform: Running) -> None:
        teacher = platform.sign_in("lan")
        mine = teacher.get("/v1/courses")["courses"][0]["id"]
        outsider = platform.sign_in("sophie", "bamboo")
        response = answer(platform, "GET", f"/v1/courses/{ANY_ID}?id={mine}", token=outsider.token)
        assert_refused(response, 404)

    def test_refuses_an_unknown_field_of_an_update_mask(self, platform: Running) -> None:
        teacher = platform.sign_in("lan")
        course = teacher.get("/v1/courses")["courses"][0]["id"]
        for mask in ("nothing", "status", "id", "authorId"):
            response = answer(
                platform, "PATCH", f"/v1/courses/{course}?updateMask={mask}", token=teacher.token, json={"title": "t"}
            )
            assert_refused(response, 400, "INVALID_UPDATE_MASK")

    def test_refuses_a_stale_etag(self, platform: Running) -> None:
        teacher = platform.sign_in("lan")
        course = teacher.post("/v1/courses", {"title": "t", "storyLanguage": "vi", "learningLanguage": "en"})
        teacher.patch(f"/v1/courses/{course['id']}", {"title": "u", "etag": course["etag"]})
        response = answer(
            platform,
            "PATCH",
            f"/v1/courses/{course['id']}",
            token=teacher.token,
            json={"title": "v", "etag": course["etag"]},
        )
        assert_refused(response, 409, "STALE_ETAG")


class TestTokens:
    def test_refuses_a_call_without_token(self, platform: Running) -> None:
        assert_refused(answer(platform, "GET", "/v1/me"), 401, "MISSING_TOKEN")

    @pytest.mark.parametrize(
        "token", ["x", "a.b.c", "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.", "Bearer", "." * 3000]
    )
    def test_refuses_a_forged_token(self, platform: Running, token: str) -> None:
        assert_refused(answer(platform, "GET", "/v1/me", token=token), 401)

    def test_refuses_a_token_whose_payload_was_changed(self, platform: Running) -> None:
        header, payload, signature = platform.sign_in("mai").token.split(".")
        other = platform.sign_in("admin").token.split(".")[1]
        assert_refused(answer(platform, "GET", "/v1/me", token=f"{header}.{other}.{signature}"), 401)
        assert_refused(answer(platform, "GET", "/v1/me", token=f"{header}.{payload}."), 401)

    def test_a_token_in_the_query_is_none(self, platform: Running) -> None:
        token = platform.sign_in("mai").token
        assert answer(platform, "GET", f"/v1/me?access_token={token}").status_code in {400, 401}

    def test_refuses_wrong_credentials_without_saying_which(self, platform: Running) -> None:
        wrong = [
            {"tenant": "hoa-sen", "email": "mai@hoa-sen.example", "password": "wrong"},
            {"tenant": "hoa-sen", "email": "nobody@hoa-sen.example", "password": "wrong"},
            {"tenant": "no-such-school", "email": "mai@hoa-sen.example", "password": "wrong"},
        ]
        answers = [answer(platform, "POST", "/v1/sessions", json=body) for body in wrong]
        for response in answers:
            assert_refused(response, 401, "INVALID_CREDENTIALS")
        assert len({response.content for response in answers}) == 1


class TestHeaders:
    @pytest.mark.parametrize(
        "headers",
        [
            {"x-tenant-id": ANY_ID},
            {"X-Tenant-Id": ANY_ID, "x-user-id": ANY_ID},
            {"x-envoy-original-path": "/v1/users"},
            {"grpc-timeout": "banana"},
            {"grpc-encoding": "zip"},
            {"x-anything-bin": "!!!"},
            {"traceparent": "garbage"},
            {"te": "trailers, nonsense"},
            {"~": "x", "en&-g'": "x", "+0.0": "x", "qd3jz~qwzmk6": "x", "a|b": "", "%41": "x", "!#$": "x"},
        ],
    )
    def test_spoofed_headers_change_nothing(self, platform: Running, headers: dict[str, str]) -> None:
        mai = platform.sign_in("mai")
        response = answer(platform, "GET", "/v1/me", token=mai.token, headers=headers)
        assert response.status_code == 200, response.text
        assert response.json()["id"] == mai.user["id"]

    def test_underscored_spellings_are_refused(self, platform: Running) -> None:
        token = platform.sign_in("mai").token
        assert_refused(answer(platform, "GET", "/v1/me", token=token, headers={"x_tenant_id": ANY_ID}), 400)

    def test_nobody_acts_in_another_tenant(self, platform: Running) -> None:
        token = platform.sign_in("admin").token
        response = answer(platform, "GET", "/v1/courses", token=token, headers={"x-act-in-tenant": ANY_ID})
        assert_refused(response, 403, "PERMISSION_REQUIRED")

    @pytest.mark.parametrize(
        "raw",
        [
            b"\x16\x03\x01 garbage\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /v1/me HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
            b"POST /v1/me HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    )
    def test_raw_garbage_gets_a_4xx(self, platform: Running, raw: bytes) -> None:
        gateway = platform.settings.gateway
        with socket.create_connection((gateway.host, gateway.port), timeout=15) as connection:
            connection.sendall(raw)
            head = connection.recv(4096).split(b"\r\n")[0]
        assert b" 4" in head, head

    def test_the_gateway_still_works_after_all_this(self, platform: Running) -> None:
        assert json.loads(answer(platform, "GET", "/v1/me", token=platform.sign_in("mai").token).content)["email"]
