"""What a school does all day, without pause, through the gateway: every request is counted, none is sent twice."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import grpc
import httpx

from deploy.rest import Rest
from storyloom.audit.v1.audit_logs_pb2 import ExportAuditLogsRequest, WatchAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1.vocabulary_files_pb2 import (
    ImportVocabulariesRequest,
    OnExistingVocabulary,
    VocabularyImportOptions,
)
from storyloom.content.v1.vocabulary_files_pb2_grpc import VocabularyFileServiceStub
from tests.running import Running, until

READS = ("/v1/me", "/v1/courses", "/v1/progress", "/v1/quizzes", "/v1/approvals", "/v1/stories")
COURSE = {"storyLanguage": "vi", "learningLanguage": "en"}
PAUSE = 0.01
# So many are at work at once; one more follows the log.
CLIENTS = 8
# An upload that takes its time: so many pieces, with so much between them.
PIECES, BETWEEN = 4, 0.4
OPTIONS = VocabularyImportOptions(
    dry_run=True,
    on_existing=OnExistingVocabulary.ON_EXISTING_VOCABULARY_SKIP,
    language="vi",
    learning_language="en",
)


class Load:
    """Clients of all kinds. `failures` says what went wrong, `courses` and `enrolments` what was acknowledged, `seen`
    the courses of which the followed log has told."""

    def __init__(self, platform: Running) -> None:
        self._platform = platform
        self.teacher, self.auditor = (platform.sign_in(name) for name in ("lan", "auditor"))
        self.student = new_student(platform)
        self.requests: Counter[str] = Counter()
        self.failures: list[str] = []
        self.seconds: list[tuple[float, float]] = []
        self.courses: dict[str, str] = {}
        self.enrolments: list[str] = []
        self.seen: list[str] = []
        self.follows = 0
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The block, under load. Afterwards all that was begun has ended, and the log has told of all courses."""
        url, gateway = self._platform.url, str(self._platform.settings.gateway)
        async with httpx.AsyncClient(base_url=url, timeout=20) as client, grpc.aio.insecure_channel(gateway) as channel:
            following = asyncio.create_task(self._follow(channel))
            kinds = (self._read, self._read, self._write, self._write, self._sign_in, self._sync)
            loops = [self._repeat(kind.__name__, kind, client) for kind in kinds]
            loops += [self._repeat(kind.__name__, kind, channel) for kind in (self._upload, self._export)]
            clients = asyncio.gather(*loops)
            try:
                await until(lambda: self.follows > 0)
                yield
                self._ended.set()
                await clients
                await until(lambda: set(self.seen) >= set(self.courses.values()))
            finally:
                self._ended.set()
                following.cancel()
                await asyncio.gather(clients, following, return_exceptions=True)

    def quantile(self, share: float) -> float:
        """Milliseconds that this share of the unary requests took at most."""
        found = sorted(seconds for _, seconds in self.seconds)
        return found[min(len(found) - 1, int(len(found) * share))] * 1000

    async def _repeat(self, name: str, act: Callable[[Any], Awaitable[None]], connection: Any) -> None:
        while not self._ended.is_set():
            self.requests[name.strip("_")] += 1
            try:
                await act(connection)
            except (httpx.HTTPError, grpc.aio.AioRpcError, AssertionError) as error:
                self._failed(name, error)
            await asyncio.sleep(PAUSE)

    def _failed(self, name: str, error: Exception) -> None:
        said = f"{error.code().name} {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else repr(error)
        self.failures.append(f"{datetime.now(UTC):%T.%f} {name.strip('_')}: {said}")

    async def _rest(self, client: httpx.AsyncClient, who: Rest | None, method: str, path: str, body: Any = None) -> Any:
        began = time.monotonic()
        headers = {"authorization": f"Bearer {who.token}"} if who else {}
        answer = await client.request(method, path, json=body, headers=headers)
        self.seconds.append((began, time.monotonic() - began))
        assert answer.status_code == httpx.codes.OK, f"{method} {path} {answer.status_code}: {answer.text}"
        return answer.json()

    async def _read(self, client: httpx.AsyncClient) -> None:
        path = READS[self.requests["read"] % len(READS)]
        await self._rest(client, self.teacher, "GET", path)

    async def _write(self, client: httpx.AsyncClient) -> None:
        """Without a key: sent twice, there would be two. Learning asks identity and content before it enrols."""
        title = uuid4().hex
        course = await self._rest(client, self.teacher, "POST", "/v1/courses", {"title": title, **COURSE})
        self.courses[title] = course["id"]
        await self._rest(client, self.teacher, "POST", f"/v1/courses/{course['id']}:publish", {})
        enrolment = {"courseId": course["id"], "userId": self.student.user["id"]}
        await self._rest(client, self.teacher, "POST", "/v1/enrollments", enrolment)
        self.enrolments.append(course["id"])

    async def _sign_in(self, client: httpx.AsyncClient) -> None:
        body = {"tenant": "hoa-sen", "email": "thao@hoa-sen.example", "password": self._platform.password}
        await self._rest(client, None, "POST", "/v1/sessions", body)
        # They take a processor for longest, and are limited.
        await asyncio.sleep(0.3)

    async def _sync(self, client: httpx.AsyncClient) -> None:
        now = datetime.now(UTC).isoformat()
        read = {"eventId": str(uuid4()), "eventTime": now, "storyRead": {"storyId": str(uuid4()), "vocabularyIds": []}}
        body = {"deviceId": str(uuid4()), "sendTime": now, "events": [read], "maxChanges": 5}
        await self._rest(client, self.student, "POST", "/v1/clientEvents:sync", body)

    def _call(self, kind: Any, channel: grpc.aio.Channel, who: Rest) -> tuple[Any, Any]:
        return kind(channel), (("authorization", f"Bearer {who.token}"),)

    async def _upload(self, channel: grpc.aio.Channel) -> None:
        stub, metadata = self._call(VocabularyFileServiceStub, channel, self.teacher)

        async def pieces() -> AsyncIterator[ImportVocabulariesRequest]:
            yield ImportVocabulariesRequest(options=OPTIONS)
            yield ImportVocabulariesRequest(data=b"term,translation,part_of_speech\n")
            for number in range(PIECES):
                await asyncio.sleep(BETWEEN)
                yield ImportVocabulariesRequest(data=f"{uuid4().hex},x,noun\n".encode() * (number + 1))

        answers = [answer async for answer in stub.ImportVocabularies(pieces(), metadata=metadata, timeout=20)]
        assert answers[-1].HasField("summary")

    async def _export(self, channel: grpc.aio.Channel) -> None:
        stub, metadata = self._call(AuditLogServiceStub, channel, self.auditor)
        request = ExportAuditLogsRequest(entity_type="user")
        answers = [answer async for answer in stub.ExportAuditLogs(request, metadata=metadata, timeout=20)]
        assert answers
        await asyncio.sleep(0.2)

    async def _follow(self, channel: grpc.aio.Channel) -> None:
        """The log as it grows, come back to wherever it broke off: a stream without end is bound to be cut."""
        stub, metadata = self._call(AuditLogServiceStub, channel, self.auditor)
        last = ""
        while True:
            request = WatchAuditLogsRequest(after_id=last, entity_type="course", action="create")
            try:
                async for news in stub.WatchAuditLogs(request, metadata=metadata):
                    self.follows += not last
                    last = news.audit_log.id or news.heartbeat.last_id or last
                    if news.HasField("audit_log"):
                        self.seen.append(news.audit_log.entity_id)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self._failed("follow", error)
            self.requests["follow"] += 1


def new_student(platform: Running) -> Rest:
    """Somebody whose enrolments trouble no other test."""
    name = f"s-{uuid4().hex[:8]}"
    user = {"email": f"{name}@hoa-sen.example", "displayName": name, "roles": ["student"]}
    platform.sign_in("admin").post("/v1/users", {"user": user, "password": platform.password})
    return platform.sign_in(name)
