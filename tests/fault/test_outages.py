"""A process that dies takes nothing with it: the others answer, nothing acknowledged is lost, events arrive later."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.rest import Rest, RestError
from tests.running import Running

READS = {
    "identity": "/v1/me",
    "content": "/v1/courses",
    "learning": "/v1/progress",
    "assessment": "/v1/quizzes",
    "audit": "/v1/approvals",
}
# It takes 3 s where nothing else runs, and five are promised. Beside other tests it has less than a processor, and the
# runner, who has seen it die a moment ago, too, waits before it starts it again.
READY_SECONDS = 15


@pytest.fixture(autouse=True)
async def whole_again(platform: Running) -> Any:
    """Each test leaves the platform healthy for the next."""
    yield
    await platform.until_healthy()


def wait_for(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    """The condition's value as soon as it is true."""
    give_up = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.05)
    return value


class TestOneServiceDown:
    @pytest.mark.parametrize("victim", list(READS))
    def test_the_others_answer(self, platform: Running, victim: str) -> None:
        # Not lan, whom many tests sign in: that ends the oldest of too many sessions, and what services know of her
        # they have to ask anew, a moment later.
        teacher = platform.sign_in("minh")
        time.sleep(1)
        # So often that each process of a service that has two knows the user.
        for path in [*READS.values()] * 8:
            teacher.get(path)
        platform.kill(victim)
        for service, path in READS.items():
            if service != victim:
                assert teacher.get(path) is not None
        wait_for(lambda: answers(teacher, READS[victim]), timeout=10)

    def test_a_dead_service_is_a_503_with_a_reason(self, platform: Running) -> None:
        teacher = platform.sign_in("lan")
        platform.kill("assessment")
        with pytest.raises(RestError) as caught:
            while True:
                teacher.get(READS["assessment"])
        assert (caught.value.status, caught.value.reason) == (503, "DEPENDENCY_UNAVAILABLE")


def answers(who: Rest, path: str) -> bool:
    with suppress(RestError, httpx.HTTPError):
        who.get(path)
        return True
    return False


class TestEvents:
    def test_entries_written_while_audit_is_down_arrive_when_it_is_back(self, platform: Running) -> None:
        teacher, auditor = platform.sign_in("lan"), platform.sign_in("auditor")
        platform.kill("audit")
        made = [new_course(teacher)["id"] for _ in range(5)]

        def entries() -> bool:
            with suppress(RestError, httpx.HTTPError):
                return all(auditor.get("/v1/auditLogs", entityId=one)["auditLogs"] for one in made)
            return False

        wait_for(entries)
        for one in made:
            assert len(auditor.get("/v1/auditLogs", entityId=one, action="create")["auditLogs"]) == 1

    def test_an_enrolment_made_while_content_is_down_opens_its_lessons_later(self, platform: Running) -> None:
        teacher, student = platform.sign_in("lan"), platform.sign_in("khoa")
        course = new_course(teacher)
        teacher.post(f"/v1/courses/{course['id']}:publish")
        unit = teacher.post("/v1/units", {"courseId": course["id"], "title": "u"})
        lesson = teacher.post("/v1/lessons", {"unitId": unit["id"], "title": "l"})
        teacher.post(f"/v1/lessons/{lesson['id']}:publish")
        with pytest.raises(RestError):
            student.get(f"/v1/lessons/{lesson['id']}")
        teacher.post("/v1/enrollments", {"courseId": course["id"], "userId": student.user["id"]})
        platform.kill("content")
        wait_for(lambda: answers(student, f"/v1/lessons/{lesson['id']}"))


def new_course(teacher: Rest) -> Any:
    return teacher.post("/v1/courses", {"title": uuid4().hex, "storyLanguage": "vi", "learningLanguage": "en"})


class Ledger:
    """Clients that write without pause and remember what was acknowledged, each write under its own key."""

    def __init__(self, platform: Running) -> None:
        self.teacher = platform.sign_in("lan")
        self.acknowledged: list[str] = []
        self.until = 0.0

    async def write(self, client: httpx.AsyncClient) -> None:
        headers = {"authorization": f"Bearer {self.teacher.token}"}
        while time.monotonic() < self.until:
            title = uuid4().hex
            body = {"title": title, "storyLanguage": "vi", "learningLanguage": "en"}
            keyed = headers | {"idempotency-key": title}
            # The same key until there is an answer: a lost answer must not become a second course.
            for _ in range(100):
                with suppress(httpx.HTTPError):
                    if (await client.post("/v1/courses", json=body, headers=keyed)).status_code == httpx.codes.OK:
                        self.acknowledged.append(title)
                        break
                await asyncio.sleep(0.1)

    async def run(self, url: str, seconds: float, writers: int = 4) -> None:
        self.until = time.monotonic() + seconds
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            await asyncio.gather(*(self.write(client) for _ in range(writers)))

    def titles(self) -> Iterator[str]:
        token = ""
        while True:
            page = self.teacher.get("/v1/courses", pageSize=100, **({"pageToken": token} if token else {}))
            yield from (course["title"] for course in page["courses"])
            token = page.get("nextPageToken", "")
            if not token:
                return


class TestWrites:
    @pytest.mark.parametrize("victim", ["content", "postgres", "gateway"])
    async def test_no_acknowledged_write_is_lost_or_doubled(self, platform: Running, victim: str) -> None:
        ledger = await asyncio.to_thread(Ledger, platform)
        writing = asyncio.create_task(ledger.run(platform.url, seconds=6))
        await asyncio.sleep(1)
        platform.kill(victim)
        await writing
        await platform.until_healthy()
        found = await asyncio.to_thread(lambda: list(ledger.titles()))
        assert len(ledger.acknowledged) > 10
        assert {title: found.count(title) for title in ledger.acknowledged if found.count(title) != 1} == {}

    async def test_ready_again_within_seconds(self, platform: Running) -> None:
        platform.kill("content")
        assert not platform.healthy()
        await platform.until_healthy(timeout=READY_SECONDS)
