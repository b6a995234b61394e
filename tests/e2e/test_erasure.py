"""Who is exported is found in all five services; who is erased is found nowhere, whatever table one looks into."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import grpc
import pytest

from kit.holdings import ERASED
from kit.settings import SERVICES
from services.audit.sealing import ERASED as ERASED_VALUE
from services.identity import erasures
from storyloom.audit.v1.audit_logs_pb2 import ExportAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1 import erasures_pb2
from storyloom.identity.v1.erasures_pb2 import ErasureState
from storyloom.identity.v1.erasures_pb2_grpc import ErasureServiceStub
from storyloom.learning.v1 import enrollments_pb2
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from tests.contract.population import LANGUAGES, ask
from tests.running import Running
from tests.stack import PASSWORD, Person, School, Stack, found_school, from_address, refused

# Where the id of an erased user may still stand, and of a purged tenant: as proof, or for minutes.
TRACES = {
    "audit.audit_logs": "append-only; what is personal in it is sealed",
    "audit.subject_keys": "that the key is destroyed",
    "identity.erasures": "the proof of the erasure",
    "identity.access_revisions": "forgotten after fifteen minutes",
    "identity.erasure_receipts": "numbers of rows",
    "content.erasure_receipts": "numbers of rows",
    "learning.erasure_receipts": "numbers of rows",
    "assessment.erasure_receipts": "numbers of rows",
    "audit.erasure_receipts": "numbers of rows",
}
# What the log of a tenant is proven with outlives the tenant, as the log does.
PROOFS = {
    f"audit.{name}"
    for name in ("audit_logs", "subject_keys", "tree_leaves", "tree_nodes", "trees", "checkpoints")
}
TABLES = """
SELECT c.oid::regclass::text AS name FROM pg_class c
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""

pytestmark = pytest.mark.slow


@dataclass
class Traced:
    """A school in which one teacher, who also learns, has left traces in every service."""

    school: School
    gone: Person
    canary: str
    address: str
    approval: str
    story: str


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    """Past the services and their row-level security."""
    connection = await asyncpg.connect(stack.cluster.superuser_url)
    yield connection
    await connection.close()


async def leave_traces(stack: Stack) -> Traced:
    mark = secrets.token_hex(4)
    school = await found_school(stack, f"trail{mark}", f"beside{mark}")
    canary = f"kanari{mark}"
    user = {"email": f"{canary}@x.example", "display_name": f"Cô {canary}", "roles": ["teacher", "student"]}
    made = await ask(school.admin, "CreateUser", user={**user, "attributes": {"nick": canary}}, password=PASSWORD)
    grant = {"user_id": made.id, "permission": {"resource": "role", "action": "read"}, "reason": canary}
    await ask(school.admin, "CreateUserPermission", user_permission=grant)
    address = f"2001:db8::{mark[:4]}:{mark[4:]}"
    gone = await stack.sign_in(f"trail{mark}", made.email)
    gone.extra = from_address(address)
    story, approval = await _teach(school, gone, canary)
    await _learn(school, gone, canary)
    await stack.settle()
    return Traced(school, gone, canary, address, approval, story)


async def _teach(school: School, gone: Person, canary: str) -> tuple[str, str]:
    """Content of their own, and comments on it and on a colleague's."""
    course = await ask(gone, "CreateCourse", course={"title": "t", "story_language": "vi", "learning_language": "en"})
    await ask(gone, "CreateUnit", unit={"course_id": course.id, "title": "u"})
    wanted = {"title": "t", "text": "Ngày xưa có con mèo.", **LANGUAGES}
    mine, theirs = [await ask(one, "CreateStory", story=wanted) for one in (gone, school.teacher)]
    approvals = []
    for author, story in ((gone, mine), (school.teacher, theirs)):
        asked = {"entity_type": "story_version", "entity_id": story.current_version.id}
        asked["comment"] = canary if author is gone else "please"
        approvals.append(await ask(author, "CreateApproval", approval=asked))
    await ask(gone, "ApproveApproval", id=approvals[1].id, comment=canary)
    await ask(school.teacher, "ApproveApproval", id=approvals[0].id, comment="fine")
    await school.settle()
    await ask(gone, "PublishStory", id=mine.id)
    return str(mine.id), str(approvals[0].id)


async def _learn(school: School, gone: Person, canary: str) -> None:
    course = await ask(
        school.teacher, "CreateCourse", course={"title": "t", "story_language": "vi", "learning_language": "en"}
    )
    await ask(school.teacher, "PublishCourse", id=course.id)
    unit = await ask(school.teacher, "CreateUnit", unit={"course_id": course.id, "title": "u"})
    lesson = await ask(school.teacher, "CreateLesson", lesson={"unit_id": unit.id, "title": "l"})
    await ask(school.teacher, "PublishLesson", id=lesson.id)
    for person in (gone, school.student):
        await ask(
            school.teacher, "CreateEnrollment", enrollment={"course_id": course.id, "user_id": person.user_id}
        )
    await school.settle()
    asked = {"type": "QUESTION_TYPE_FILL_BLANK", "prompt": "Ai ___?", "blanks": [{"accepted": [{"text": "ai"}]}]}
    question = await ask(gone, "CreateQuestion", question=asked)
    quiz = await ask(
        gone,
        "CreateQuiz",
        quiz={"title": "q", "lesson_id": lesson.id, "items": [{"question_id": question.id, "points": "1"}]},
    )
    await ask(gone, "PublishQuiz", id=quiz.id)
    for person in (gone, school.student):
        progress = {"lesson_id": lesson.id, "status": "PROGRESS_STATUS_IN_PROGRESS", "position_percent": 50}
        keyed = Person(person.stack, person.user_id, person.email, person.token)
        keyed.extra = (("idempotency-key", secrets.token_hex(8)),)
        await ask(keyed, "UpdateProgress", progress=progress)
        await ask(person, "CreateLearningSession", learning_session={"lesson_id": lesson.id})
        attempt = await ask(person, "CreateAttempt", quiz_id=quiz.id)
        answer = {"question_id": question.id, "blanks": [canary if person is gone else "ai"]}
        await ask(person, "SubmitAttempt", id=attempt.id, responses=[answer])


async def tables_with(database: asyncpg.Connection, needle: str) -> dict[str, int]:
    """How many rows of each table of each service say this, as text or as the bytes of it."""
    found = {}
    forms = [f"%{needle}%", f"%{needle.encode().hex()}%", f"%{needle.replace('-', '')}%"]
    for table in await database.fetch(TABLES, list(SERVICES)):
        rows = await database.fetchval(
            f"SELECT count(*) FROM {table['name']} AS row WHERE row::text ILIKE ANY ($1)", forms
        )
        if rows:
            found[table["name"]] = rows
    return found


async def sizes(database: asyncpg.Connection, tenant_id: str) -> dict[str, int]:
    """Rows of a tenant by table, but for what only time takes away."""
    found = {}
    for table in await database.fetch(TABLES, list(SERVICES)):
        name = table["name"]
        scoped = await database.fetchval(
            "SELECT 1 FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'tenant_id'", name
        )
        if scoped and name not in {"identity.access_revisions", "audit.tree_queue", *PROOFS} and "outbox" not in name:
            found[name] = await database.fetchval(
                f"SELECT count(*) FROM {name} WHERE tenant_id = $1", UUID(tenant_id)
            )
    return found


async def done(person: Person, erasure_id: str) -> erasures_pb2.Erasure:
    """The erasure, once it is done: a service that was stopped in the middle of a step goes on when its lease ends."""
    service = person.stub(ErasureServiceStub, "identity")
    async with asyncio.timeout(erasures.LEASE.total_seconds() + 15):
        while True:
            found = await service.GetErasure(erasures_pb2.GetErasureRequest(id=erasure_id))
            if found.state == ErasureState.ERASURE_STATE_DONE:
                return found
            await asyncio.sleep(0.1)


async def logged(person: Person, database: asyncpg.Connection) -> str:
    """The whole log of the tenant as its auditors export it."""
    # An export has what is in the tree.
    async with asyncio.timeout(10):
        while await database.fetchval("SELECT count(*) FROM audit.tree_queue"):
            await asyncio.sleep(0.05)
    stub = person.stub(AuditLogServiceStub, "audit")
    return "".join([one.body.data.decode() async for one in stub.ExportAuditLogs(ExportAuditLogsRequest())])


async def exported(person: Person, user_id: str) -> list[erasures_pb2.ExportUserResponse]:
    service = person.stub(ErasureServiceStub, "identity")
    return [one async for one in service.ExportUser(erasures_pb2.ExportUserRequest(user_id=user_id))]


def said(erasure: erasures_pb2.Erasure) -> dict[str, dict[str, dict[str, int]]]:
    """The receipts: rows by service, table and action."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for receipt in erasure.receipts:
        for one in receipt.counts:
            found.setdefault(receipt.service, {}).setdefault(one.table, {})[one.action] = one.rows
    return found


class TestUser:
    async def test_is_exported_from_all_services_and_then_found_in_none(
        self, stack: Stack, database: asyncpg.Connection
    ) -> None:
        traced = await leave_traces(stack)
        admin, user_id = traced.school.admin, traced.gone.user_id
        records = await exported(admin, user_id)
        assert {one.service for one in records} == set(SERVICES)
        holding = {one.service for one in records if traced.canary in str(one.values)}
        assert holding == {"identity", "assessment", "audit"}
        assert traced.address in "".join(str(one.values) for one in records)
        before = await tables_with(database, traced.canary)
        assert {"identity.users", "assessment.responses", "audit.approvals"} <= before.keys()
        assert "audit.audit_logs" not in before
        told = await logged(admin, database)
        canary = traced.canary
        for text in (f"{canary}@x.example", f"Cô {canary}", f'"comment":"{canary}"', f'["{canary}"]', traced.address):
            assert text in told, text
        assert ERASED_VALUE not in told
        await ask(admin, "DeleteUser", id=user_id)
        asked = await ask(admin, "PurgeUser", user_id=user_id)
        erasure = await done(admin, asked.id)
        await stack.settle()
        for text in (traced.canary, traced.address):
            assert await tables_with(database, text) == {}
        assert (await tables_with(database, user_id)).keys() <= TRACES.keys()
        told = await logged(admin, database)
        assert traced.canary not in told
        assert traced.address not in told
        assert told.count(ERASED_VALUE) > 12
        receipts = said(erasure)
        assert receipts.keys() == set(SERVICES)
        assert receipts["audit"]["subject_keys"] == {"destroyed": 1}
        assert receipts["identity"]["users"] == {"deleted": 1}
        assert receipts["assessment"]["responses"] == {"deleted": 1}
        assert receipts["content"]["stories"] == {"anonymized": 1}
        assert receipts["audit"]["audit_logs"]["kept"] > 12
        await self._what_is_others_stays(traced)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(traced.gone, "ListStories")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    async def _what_is_others_stays(self, traced: Traced) -> None:
        school = traced.school
        story = await ask(school.admin, "GetStory", id=traced.story)
        assert (story.author_id, story.current_version.author_id) == (str(ERASED), str(ERASED))
        assert story.current_version.text == "Ngày xưa có con mèo."
        approval = await ask(school.admin, "GetApproval", id=traced.approval)
        assert (approval.requester_id, approval.comment) == (str(ERASED), "")
        assert [one.comment for one in approval.decisions] == ["fine"]
        assert len((await ask(school.teacher, "ListAttempts", user_id=school.student.user_id)).attempts) == 1
        again = {"email": f"{traced.canary}@x.example", "display_name": "Somebody else"}
        await ask(school.admin, "CreateUser", user=again)

    async def test_stays_pending_while_a_service_is_down(
        self, stack: Stack, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        traced = await leave_traces(stack)
        admin, user_id = traced.school.admin, traced.gone.user_id
        await ask(admin, "DeleteUser", id=user_id)
        await stack.settle()
        await stack.stop_service("assessment")
        try:
            asked = await ask(admin, "PurgeUser", user_id=user_id)
            await asyncio.sleep(erasures.FIRST_AFTER.total_seconds() + 1.5)
            found = await ask(admin, "GetErasure", id=asked.id)
            assert found.state == ErasureState.ERASURE_STATE_PENDING
            assert await database.fetchval("SELECT count(*) FROM identity.users WHERE id = $1", UUID(user_id)) == 1
            assert await database.fetchval(
                "SELECT count(*) FROM learning.user_progress WHERE user_id = $1", UUID(user_id)
            ) == 0
            # Identity is started again meanwhile: what is to be done is in the database.
            await stack.stop_service("identity")
            await stack.start_service("identity")
        finally:
            await stack.start_service("assessment")
        await done(admin, asked.id)
        await stack.settle()
        assert await tables_with(database, traced.canary) == {}

    async def test_is_not_brought_back_by_an_event_that_was_on_its_way(
        self, stack: Stack, database: asyncpg.Connection
    ) -> None:
        traced = await leave_traces(stack)
        school, user_id = traced.school, traced.gone.user_id
        await stack.stop_service("content")
        try:
            service = school.teacher.stub(EnrollmentServiceStub, "learning")
            taken = await service.ListEnrollments(enrollments_pb2.ListEnrollmentsRequest(user_id=user_id))
            for one in taken.enrollments:
                await ask(school.teacher, "WithdrawEnrollment", id=one.id)
            # The delivery takes its time: content is asked to erase before it hears of the enrolment.
            held = await database.execute(
                "UPDATE learning.outbox SET due_at = now() + interval '6 seconds' WHERE consumer = 'content'"
            )
            assert held == "UPDATE 1"
        finally:
            await stack.start_service("content")
        await ask(school.admin, "DeleteUser", id=user_id)
        asked = await ask(school.admin, "PurgeUser", user_id=user_id)
        async with asyncio.timeout(5):
            access = "SELECT count(*) FROM content.course_access WHERE user_id = $1"
            while await database.fetchval(access, UUID(user_id)):
                await asyncio.sleep(0.05)
        assert await database.fetchval("SELECT count(*) FROM learning.outbox WHERE consumer = 'content'") == 1
        await done(school.admin, asked.id)
        await stack.settle()
        assert (await tables_with(database, user_id)).keys() <= TRACES.keys()


class TestTenant:
    async def test_is_found_nowhere_and_its_neighbour_is_whole(
        self, stack: Stack, database: asyncpg.Connection
    ) -> None:
        traced = await leave_traces(stack)
        school, tenant_id = traced.school, traced.school.admin.tenant_id
        neighbour = school.outsider_admin.tenant_id
        await ask(school.outsider_teacher, "CreateStory", story={"title": "t", "text": "Con mèo.", **LANGUAGES})
        await stack.settle()
        before = await sizes(database, neighbour)
        assert sum(before.values()) > 20
        await ask(school.root, "SuspendTenant", id=tenant_id)
        service = school.root.stub(ErasureServiceStub, "identity")
        asked = await service.PurgeTenant(erasures_pb2.PurgeTenantRequest(id=tenant_id))
        erasure = await done(school.root, asked.id)
        await stack.settle()
        assert {name: rows for name, rows in (await sizes(database, tenant_id)).items() if rows} == {}
        for text in (traced.canary, traced.address):
            assert await tables_with(database, text) == {}
        assert (await tables_with(database, tenant_id)).keys() <= TRACES.keys() | PROOFS
        unwrapped = "SELECT count(*) FROM audit.subject_keys WHERE tenant_id = $1 AND wrapped_key IS NOT NULL"
        assert await database.fetchval(unwrapped, UUID(tenant_id)) == 0
        assert await sizes(database, neighbour) == before
        receipts = said(erasure)
        assert receipts.keys() == set(SERVICES)
        assert receipts["content"]["story_versions"] == {"deleted": 2}
        assert receipts["identity"]["tenants"] == {"deleted": 1}
        assert receipts["audit"]["audit_logs"]["kept"] > 20
        assert receipts["audit"]["subject_keys"]["destroyed"] > 5
        async with refused("RESOURCE_NOT_FOUND"):
            await ask(school.root, "GetTenant", id=tenant_id)
        # The slug is free.
        await found_school(stack, school.slug, f"{school.slug}-2")


class TestGateway:
    def test_streams_an_export_as_one_json_array(self, platform: Running) -> None:
        person = platform.sign_in("lan")
        records = person.post(f"/v1/users/{person.user['id']}:export", {})
        assert {one["service"] for one in records} >= {"identity", "content", "audit"}
        (user,) = (one["values"] for one in records if one["kind"] == "users")
        assert user["email"] == person.user["email"]
        assert "password_hash" not in user
