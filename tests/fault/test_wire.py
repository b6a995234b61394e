"""Deliveries that get lost on the wire, are answered by nobody, come twice or come late: each takes effect once."""

import asyncio
import random
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from kit.errors import StoryloomError, Unavailable
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1.courses_pb2 import Course, CreateCourseRequest, UpdateCourseRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.event.v1.events_pb2 import DeliverEventsRequest, DeliverEventsResponse
from tests.audit.calls import approve, entries, requested, version_of, write_story
from tests.stack import School

STEPS = ("well", "request lost", "answer lost", "twice at once", "again later", "half of it first", "late")
LOST = Unavailable("Another service cannot be reached; try again.")


class Wire:
    """What stands between a relay and an inbox. `taken` counts what it did, by step; some copies still come later."""

    def __init__(self, inbox: Any, dice: random.Random) -> None:
        self._inbox, self._dice = inbox, dice
        self.taken: Counter[str] = Counter()
        self.later: list[asyncio.Task[Any]] = []

    async def __call__(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        step = self._dice.choice(STEPS)
        self.taken[step] += 1
        match step:
            case "request lost":
                raise LOST
            case "answer lost":
                await self._inbox(request)
                raise LOST
            case "twice at once":
                return (await asyncio.gather(self._inbox(request), self._inbox(request)))[0]
            case "again later":
                self.later.append(asyncio.create_task(self._repeat(request)))
            case "half of it first":
                await self._inbox(DeliverEventsRequest(events=request.events[: (len(request.events) + 1) // 2]))
            case "late":
                await asyncio.sleep(self._dice.uniform(0, 0.2))
        return await self._inbox(request)

    async def _repeat(self, request: DeliverEventsRequest) -> None:
        await asyncio.sleep(self._dice.uniform(0, 1))
        try:
            await self._inbox(request)
        except StoryloomError as error:
            sys.stdout.write(f"a late copy was refused: {error}\n")


@asynccontextmanager
async def wire(school: School, source: str, consumer: str, seed: int) -> AsyncIterator[Wire]:
    """Deliveries from one service to another are disturbed meanwhile."""
    inboxes = school.stack.services[source]._relay._inboxes
    disturbed = Wire(inboxes[consumer], random.Random(seed))
    inboxes[consumer], whole = disturbed, inboxes[consumer]
    try:
        yield disturbed
        await school.stack.settle(60)
    finally:
        inboxes[consumer] = whole
        await asyncio.gather(*disturbed.later)


@pytest.fixture
def seed() -> int:
    made = secrets.randbits(32)
    sys.stdout.write(f"seed {made}\n")
    return made


async def test_each_change_has_one_entry_in_its_order(school: School, seed: int) -> None:
    courses, logs = school.teacher.stub(CourseServiceStub, "content"), school.auditor.stub(AuditLogServiceStub, "audit")
    made: dict[str, list[str]] = {}

    async def write() -> None:
        for _ in range(4):
            course = await courses.CreateCourse(CreateCourseRequest(course=Course(title="0")))
            made[course.id] = ["0"]
            for n in range(1, 5):
                await courses.UpdateCourse(UpdateCourseRequest(course=Course(id=course.id, title=str(n))))
                made[course.id].append(str(n))
                await asyncio.sleep(0.05)

    async with wire(school, "content", "audit", seed) as disturbed:
        await asyncio.gather(*(write() for _ in range(6)))
    await school.settle()
    sys.stdout.write(f"{disturbed.taken}\n")
    assert len(disturbed.taken) > len(STEPS) // 2
    for course, titles in made.items():
        found = (await logs.ListAuditLogs(ListAuditLogsRequest(entity_id=course))).audit_logs
        assert [one.new_values["title"] for one in reversed(found)] == titles


async def test_each_decision_takes_effect_once(school: School, seed: int) -> None:
    approvals = []
    async with wire(school, "audit", "content", seed):
        for _ in range(12):
            story = await write_story(school.teacher)
            approval = await requested(school.teacher, story.current_version.id, str(uuid4()))
            approvals.append(await approve(school.teacher2, approval))
            await asyncio.sleep(0.1)
    for one in approvals:
        assert (await version_of(school.teacher, one.entity_id)).approval_id == one.id
        bound = type(one)(id=one.entity_id)
        assert [entry.action for entry in await entries(school, bound, "story_version")] == ["approve"]
