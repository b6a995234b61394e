"""The gateway's edge: documents, CORS, native gRPC and gRPC-Web on one port, sessions and their end."""

import base64
import time

import grpc
import httpx
import pytest

from deploy.rest import Rest, RestError
from storyloom.content.v1 import courses_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.event.v1 import events_pb2
from storyloom.event.v1.events_pb2_grpc import EventInboxServiceStub
from storyloom.identity.v1 import access_pb2
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from tests.running import Running


class TestDocuments:
    def test_serves_the_openapi_document_and_a_page_to_browse_it(self, platform: Running) -> None:
        document = httpx.get(f"{platform.url}/openapi.json").json()
        assert document["openapi"].startswith("3.1")
        assert {"/v1/sessions", "/v1/stories/{id}:weave"} <= document["paths"].keys()
        page = httpx.get(f"{platform.url}/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src" in page.headers["content-security-policy"]

    def test_publishes_the_keys_that_verify_tokens(self, platform: Running) -> None:
        keys = httpx.get(f"{platform.url}/.well-known/jwks.json").json()["keys"]
        assert keys
        assert all(key["kty"] == "OKP" and "d" not in key for key in keys)


class TestCors:
    def test_answers_a_preflight_of_an_allowed_origin(self, platform: Running) -> None:
        headers = {"origin": "http://localhost:3000", "access-control-request-method": "GET"}
        response = httpx.options(f"{platform.url}/v1/me", headers=headers)
        assert response.headers["access-control-allow-origin"] == "http://localhost:3000"

    def test_allows_no_other_origin(self, platform: Running) -> None:
        headers = {"origin": "https://evil.example", "access-control-request-method": "GET"}
        response = httpx.options(f"{platform.url}/v1/me", headers=headers)
        assert "access-control-allow-origin" not in response.headers


class TestProtocols:
    async def test_native_grpc_on_the_same_port(self, platform: Running) -> None:
        token = platform.sign_in("lan").token
        async with grpc.aio.insecure_channel(str(platform.settings.gateway)) as channel:
            listed = await CourseServiceStub(channel).ListCourses(
                courses_pb2.ListCoursesRequest(), metadata=(("authorization", f"Bearer {token}"),), timeout=10
            )
        assert listed.courses

    async def test_internal_rpcs_do_not_exist_at_the_gateway(self, platform: Running) -> None:
        metadata = (("authorization", f"Bearer {platform.sign_in('admin').token}"),)
        async with grpc.aio.insecure_channel(str(platform.settings.gateway)) as channel:
            for call, request in (
                (EventInboxServiceStub(channel).DeliverEvents, events_pb2.DeliverEventsRequest()),
                (AccessServiceStub(channel).GetAccessSnapshot, access_pb2.GetAccessSnapshotRequest()),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(request, metadata=metadata, timeout=10)
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_grpc_web(self, platform: Running) -> None:
        message = courses_pb2.ListCoursesRequest(page_size=1).SerializeToString()
        frame = base64.b64encode(b"\0" + len(message).to_bytes(4, "big") + message)
        response = httpx.post(
            f"{platform.url}/storyloom.content.v1.CourseService/ListCourses",
            content=frame,
            headers={
                "content-type": "application/grpc-web-text",
                "accept": "application/grpc-web-text",
                "authorization": f"Bearer {platform.sign_in('lan').token}",
            },
        )
        assert response.status_code == 200
        # Each frame is encoded by itself, with its own padding.
        assert b"grpc-status:0" in b"".join(
            base64.b64decode(part + "=" * (-len(part) % 4)) for part in response.text.replace("=", " ").split()
        )


class TestSessions:
    def test_a_refreshed_session_goes_on_and_an_old_token_ends_it(self, platform: Running) -> None:
        nobody = Rest(platform.url)
        first = nobody.post(
            "/v1/sessions",
            {"tenant": "hoa-sen", "email": "thao@hoa-sen.example", "password": platform.password},
        )
        second = nobody.post("/v1/sessions:refresh", {"refreshToken": first["refreshToken"]})
        third = nobody.post("/v1/sessions:refresh", {"refreshToken": second["refreshToken"]})
        with pytest.raises(RestError) as caught:
            nobody.post("/v1/sessions:refresh", {"refreshToken": first["refreshToken"]})
        assert caught.value.status == 401
        with pytest.raises(RestError):
            nobody.post("/v1/sessions:refresh", {"refreshToken": third["refreshToken"]})

    def test_a_sign_out_is_in_force_on_every_service_within_two_seconds(self, platform: Running) -> None:
        paths = ("/v1/me", "/v1/courses", "/v1/progress", "/v1/quizzes", "/v1/approvals")
        admin = platform.sign_in("admin")
        for path in paths:
            admin.get(path)
        admin.post("/v1/sessions:signOut")
        time.sleep(2)
        for path in paths:
            with pytest.raises(RestError) as caught:
                admin.get(path)
            assert caught.value.status == 401, path

    def test_a_change_of_role_is_in_force_within_two_seconds(self, platform: Running) -> None:
        admin, khoa = platform.sign_in("admin"), platform.sign_in("khoa")
        roles = {role["slug"]: role["id"] for role in admin.get("/v1/roles")["roles"]}
        with pytest.raises(RestError):
            khoa.post("/v1/courses", {"title": "t", "storyLanguage": "vi", "learningLanguage": "en"})
        admin.post(f"/v1/users/{khoa.user['id']}:setRoles", {"roleIds": [roles["teacher"]]})
        time.sleep(2)
        khoa.post("/v1/courses", {"title": "t", "storyLanguage": "vi", "learningLanguage": "en"})
        admin.post(f"/v1/users/{khoa.user['id']}:setRoles", {"roleIds": [roles["student"]]})
        time.sleep(2)
        with pytest.raises(RestError):
            khoa.post("/v1/courses", {"title": "t", "storyLanguage": "vi", "learningLanguage": "en"})
