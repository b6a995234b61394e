"""Whatever dies, and at whatever step: each change has its entry in the log, and each entry is of one change."""

import asyncio
import json
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from storyloom.audit.v1.approvals_pb2 import Approval, ApproveApprovalRequest, CreateApprovalRequest
from storyloom.audit.v1.approvals_pb2_grpc import ApprovalServiceStub
from storyloom.content.v1.courses_pb2 import Course, CreateCourseRequest, UpdateCourseRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.stories_pb2 import CreateStoryRequest, Story
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from tests.fault.processes import Processes, acknowledged, processes
from tests.profile import PROOF
from tests.stack import PASSWORD, Person, School

# Of each of the two that take part in a delivery.
KILLS = 150 if PROOF else 5
DOWN_SECONDS = 300.0 if PROOF else 4.0
CATCH_UP_SECONDS = 30.0
WRITERS = 4
# While audit is down for long: a busy platform's.
MOST_CHANGES_A_SECOND = 100
TOKEN_SECONDS = 240
ENTRIES = """
SELECT entity_id, action, convert_from(leaf, 'UTF8') AS leaf FROM audit.audit_logs
WHERE entity_type = $1 AND tenant_id = $2::text::uuid ORDER BY id
"""

WAITING = """
SELECT event_id FROM content.outbox WHERE consumer = 'audit'
UNION ALL SELECT event_id FROM identity.outbox WHERE consumer = 'audit'
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Processes, School]]:
    async with processes(tmp_path_factory.mktemp("logs"), "identity", "content", "audit") as made:
        yield made


@dataclass
class Ledger:
    """What clients wrote, each write under its own key until it was acknowledged. Titles by course, in their order."""

    school: School
    titles: dict[str, list[str]] = field(default_factory=dict)
    approved: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = field(default_factory=time.monotonic)

    @property
    def changes(self) -> int:
        return sum(map(len, self.titles.values()))

    async def write_courses(self) -> None:
        stub = self.school.teacher.stub(CourseServiceStub, "content")
        while not self.over.is_set():
            await self._renew(self.school.teacher)
            title = secrets.token_hex(8)
            course = await acknowledged(stub.CreateCourse, CreateCourseRequest(course=Course(title=title)))
            self.titles[course.id] = [title]
            for _ in range(2):
                title = secrets.token_hex(8)
                await acknowledged(
                    stub.UpdateCourse, UpdateCourseRequest(course=Course(id=course.id, title=title))
                )
                self.titles[course.id].append(title)
            await asyncio.sleep(self.pause)

    async def have_approved(self) -> None:
        stories = self.school.teacher.stub(StoryServiceStub, "content")
        asking, deciding = (
            one.stub(ApprovalServiceStub, "audit") for one in (self.school.teacher, self.school.teacher2)
        )
        while not self.over.is_set():
            await self._renew(self.school.teacher2)
            made = Story(title="Con mèo", language="vi", learning_language="en", text=f"Con mèo {uuid4()}.")
            story = await acknowledged(stories.CreateStory, CreateStoryRequest(story=made))
            wanted = Approval(entity_type="story_version", entity_id=story.current_version.id)
            approval = await acknowledged(asking.CreateApproval, CreateApprovalRequest(approval=wanted))
            await acknowledged(deciding.ApproveApproval, ApproveApprovalRequest(id=approval.id))
            self.approved[story.current_version.id] = approval.id

    async def run(self) -> None:
        others = (self.have_approved() for _ in range(WRITERS))
        await asyncio.gather(*(self.write_courses() for _ in range(WRITERS)), *others)

    async def _renew(self, person: Person) -> None:
        # The long run takes longer than a token is good for.
        if time.monotonic() - self.since > TOKEN_SECONDS:
            self.since = time.monotonic()
            for one in (self.school.teacher, self.school.teacher2):
                one.token = (await one.stack.sign_in(self.school.slug, one.email, PASSWORD)).token


async def assert_one_to_one(stack: Processes, ledger: Ledger) -> None:
    """The changes that clients know of, those that the database has, and the entries are the same."""
    tenant = ledger.school.teacher.tenant_id
    stored = {
        str(row["id"]): row["revision"]
        for row in await stack.rows("SELECT id, revision FROM content.courses WHERE tenant_id = $1::text::uuid", tenant)
    }
    assert stored == {course: len(titles) for course, titles in ledger.titles.items()}
    told: dict[str, list[tuple[str, str]]] = {}
    for row in await stack.rows(ENTRIES, "course", tenant):
        title = json.loads(row["leaf"])["new_values"]["title"]
        told.setdefault(str(row["entity_id"]), []).append((row["action"], title))
    assert told == {
        course: [("create" if n == 0 else "update", title) for n, title in enumerate(titles)]
        for course, titles in ledger.titles.items()
    }


async def assert_approved_once(stack: Processes, ledger: Ledger) -> None:
    """Each approval that was granted is bound to its version, and that happened once."""
    tenant = ledger.school.teacher.tenant_id
    statement = "SELECT id, approval_id FROM content.story_versions WHERE tenant_id = $1::text::uuid"
    bound = {str(row["id"]): str(row["approval_id"]) for row in await stack.rows(statement, tenant)}
    assert bound == ledger.approved
    entries = await stack.rows(ENTRIES, "story_version", tenant)
    assert Counter(str(row["entity_id"]) for row in entries) == dict.fromkeys(ledger.approved, 1)
    decided = Counter((str(row["entity_id"]), row["action"]) for row in await stack.rows(ENTRIES, "approval", tenant))
    assert decided == Counter((one, action) for one in ledger.approved.values() for action in ("create", "approve"))


async def strike(stack: Processes, victim: str, other: str, dice: random.Random) -> None:
    """Kills the victim: between two of its steps, or at one at which the other waits for it, or it for the other."""
    match dice.choice(("kill", "freeze the other", "freeze the victim")):
        case "freeze the other":
            # What the victim sends now is not answered; what was claimed is not delivered when it dies.
            stack.send(other, signal.SIGSTOP)
            await asyncio.sleep(dice.uniform(0, 0.2))
            stack.kill(victim)
            await asyncio.sleep(dice.uniform(0, 0.1))
            stack.send(other, signal.SIGCONT)
        case "freeze the victim":
            # What it was sent is committed by the other meanwhile, and it never hears of that.
            stack.send(victim, signal.SIGSTOP)
            await asyncio.sleep(dice.uniform(0, 0.2))
            stack.kill(victim)
        case _:
            stack.kill(victim)


async def keep_killing(stack: Processes, victim: str, other: str, dice: random.Random) -> None:
    for _ in range(KILLS):
        await stack.until_up(victim)
        await asyncio.sleep(dice.uniform(0, 1))
        await strike(stack, victim, other, dice)
        # Until it is seen to be dead: a port of the one before does not count.
        await asyncio.sleep(0.1)


class TestKilled:
    @pytest.mark.timeout(1800 if PROOF else 120)
    async def test_entries_and_changes_are_one_to_one(self, running: tuple[Processes, School]) -> None:
        stack, school = running
        ledger, seed = Ledger(school), secrets.randbits(32)
        before, started = stack.kills, time.monotonic()
        writing = asyncio.create_task(ledger.run())
        await asyncio.gather(
            keep_killing(stack, "content", "audit", random.Random(seed)),
            keep_killing(stack, "audit", "content", random.Random(seed + 1)),
        )
        ledger.over.set()
        await writing
        await stack.until_delivered(CATCH_UP_SECONDS)
        sys.stdout.write(
            f"seed {seed}: {stack.kills - before} kills in {time.monotonic() - started:.0f} s, "
            f"{ledger.changes} changes, {len(ledger.approved)} approvals\n"
        )
        assert ledger.changes > KILLS
        assert ledger.approved
        await assert_one_to_one(stack, ledger)
        await assert_approved_once(stack, ledger)


class TestAuditDown:
    @pytest.mark.timeout(900 if PROOF else 120)
    async def test_loses_nothing_and_catches_up(self, running: tuple[Processes, School]) -> None:
        stack, school = running
        # Courses of the test before are told of already.
        await stack.rows("DELETE FROM content.courses")
        await stack.take_down("audit")
        known = {row["id"] for row in await stack.rows("SELECT id FROM audit.audit_logs")}
        # Three changes a turn.
        ledger = Ledger(school, pause=3 * WRITERS / MOST_CHANGES_A_SECOND if PROOF else 0)
        writing = asyncio.gather(*(ledger.write_courses() for _ in range(WRITERS)))
        await asyncio.sleep(DOWN_SECONDS)
        ledger.over.set()
        await writing
        promised = {row["event_id"] for row in await stack.rows(WAITING)}
        assert len(promised) >= ledger.changes
        started = time.monotonic()
        await stack.run("audit")
        up = time.monotonic() - started
        await stack.until_delivered(CATCH_UP_SECONDS)
        sys.stdout.write(
            f"down for {DOWN_SECONDS:.0f} s: {len(promised)} entries delivered {time.monotonic() - started:.1f} s after"
            f" the start of the process, which took {up:.1f} s of it\n"
        )
        assert {row["id"] for row in await stack.rows("SELECT id FROM audit.audit_logs")} == known | promised
