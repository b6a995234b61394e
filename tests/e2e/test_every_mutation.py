"""Every RPC that changes something leaves exactly one entry in the log, and the right one.

The RPCs are found through the descriptors: one that is new, and of which `mutations` says nothing, fails here.
"""

import json
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from kit.ids import NIL, SYSTEM_TENANT
from kit.options import is_read
from tests.contract import api, requests
from tests.contract.answers import answer
from tests.contract.population import Population, ask, implementer, populate, rpc_named
from tests.e2e.mutations import INTERNAL, LIFE, SEVERAL, SILENT, Step
from tests.identity.importing import import_users
from tests.stack import Person, School, Stack, found_school, from_address

ADDRESS = "203.0.113.77"
MUTATING = [rpc for rpc in api.rpcs() if not is_read(api.path_of(rpc))]
# It sends a stream, so it has a test of its own.
STREAMED_REQUESTS = {"ImportUsers", "ImportPackage", "ImportQuestions", "ImportVocabularies"}
# Bytes sent to a link, and what then becomes of them: tests/content/test_audio_files.py looks into the log.
SENT_TO_LINKS = {"PutAudioFile", "CompleteAudioUpload"}
# It writes in two tenants: tests/content/test_course_copies.py looks into both logs.
TWO_TENANTS = {"CopyCourseToTenant"}
APART = STREAMED_REQUESTS | TWO_TENANTS | SENT_TO_LINKS
READS = [rpc for rpc in api.rpcs() if is_read(api.path_of(rpc)) and not api.is_internal(rpc)]
# Reads that are entries: whoever reads the log is in it, and whoever asks what somebody else may do.
RECORDED = {
    "AuditLogService.GetAuditLog": "read_audit_log",
    "AuditLogService.ListAuditLogs": "read_audit_log",
    "AuditLogService.WatchAuditLogs": "watch_audit_log",
    "AccessService.ExplainAccess": "explain_access",
}
# Columns of an entry that repeat what its leaf says.
REPEATED = ("action", "entity_type", "entity_id", "user_id", "acting_tenant_id", "request_id", "trace_id", "rpc")
# They change things that have versions: what the entry says is of the versions.
UNTOLD = {"UpdateStory", "UpdateProgress"}
ENTRIES = """
SELECT *, convert_from(leaf, 'UTF8') AS said FROM audit.audit_logs WHERE request_id = $1 ORDER BY id
"""

pytestmark = pytest.mark.slow


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    """Past the services: looking into the log through its RPCs would be an entry as well."""
    connection = await asyncpg.connect(stack.cluster.superuser_url)
    yield connection
    await connection.close()


def rpc_of(step: Step) -> MethodDescriptor:
    if step.rpc in {"ExportUser", "PurgeTenant"}:
        (found,) = (one for one in api.rpcs() if api.short(one) == f"ErasureService.{step.rpc}")
        return found
    return rpc_named(step.rpc)


@dataclass(frozen=True)
class Done:
    """A call that was made, and what the log must say of it."""

    step: Step
    person: Person
    tenant_id: str
    entity: str
    changed: Mapping[str, Any]


@dataclass
class Life:
    """A school in which everything is done once; `known` are the values that later requests need."""

    school: School
    known: dict[str, str]
    done: dict[str, Done] = field(default_factory=dict)

    @classmethod
    async def begin(cls, stack: Stack) -> "Life":
        slug = f"life{secrets.token_hex(4)}"
        school = await found_school(stack, slug, f"{slug}-beside")
        home = school.admin.tenant_id
        return cls(school, {"slug": slug, "home": home, "student": school.student.user_id})

    async def go_through(self) -> None:
        for step in LIFE:
            await self.take(step)
            if step.settle:
                await self.school.settle()
        await self.school.settle()

    async def take(self, step: Step) -> None:
        rpc, request_id = rpc_of(step), f"life-{uuid4()}"
        person, values = self.person(step.by), self.filled(step.request)
        request = ParseDict(values, GetMessageClass(rpc.input_type)())
        metadata = (*person.metadata, ("x-request-id", request_id), *from_address(ADDRESS))
        try:
            said = await call(person, rpc, request, metadata)
        except grpc.aio.AioRpcError as error:
            raise AssertionError(f"{step.rpc}: {error.code().name} {error.details()}") from error
        self.remember(step, rpc, said)
        entity = str(self.filled(step.entity)) if step.entity else said.get("id", "")
        changed = {} if step.rpc in UNTOLD else values.get(step.about) or values.get("policy") or {}
        changed = {name: one for name, one in changed.items() if name != "id" and step.action == "update"}
        known = replace(person, user_id=str(self.filled(step.user))) if step.user else person
        self.done[request_id] = Done(step, known, str(self.filled(step.where)), entity, changed)

    def person(self, name: str) -> Person:
        if name == "root":
            return replace(self.school.root, tenant_id=str(SYSTEM_TENANT))
        if name in {"stranger", "lan"}:
            token = self.known["token"] if name == "lan" else ""
            return replace(self.school.admin, user_id=self.known["user"], token=token)
        found: Person = getattr(self.school, name)
        return found

    def filled(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self.filled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.filled(one) for one in value]
        return value.format_map(self.known) if isinstance(value, str) and "{" in value else value

    def remember(self, step: Step, rpc: MethodDescriptor, said: Mapping[str, Any]) -> None:
        if rpc.name.startswith("Create") and "id" in said:
            self.known[api.snake(rpc.name.removeprefix("Create"))] = said["id"]
        for name, path in step.keep.items():
            value: Any = said
            for part in path.split("."):
                value = value[int(part)] if part.isdigit() else value[part]
            self.known[name] = value


async def call(person: Person, rpc: MethodDescriptor, request: Any, metadata: Any) -> dict[str, Any]:
    """The answer, or the first message of a stream of them; the stream is read to its end."""
    channel, kind = person.stack.channel(implementer(rpc)), GetMessageClass(rpc.output_type)
    how = channel.unary_stream if rpc.server_streaming else channel.unary_unary
    made = how(
        api.path_of(rpc),
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=kind.FromString,
    )(request, metadata=metadata, timeout=20)
    if not rpc.server_streaming:
        return MessageToDict(await made, preserving_proto_field_name=True)
    said = [one async for one in made]
    return MessageToDict(said[0], preserving_proto_field_name=True) if said else {}


def wanted(step: Step) -> Counter[tuple[str, str]]:
    return Counter([(step.action, step.about), *step.more] if step.action else [])


def findings(done: Done, rows: list[Any]) -> list[str]:
    """What is wrong with the entries of a call."""
    step = done.step
    found = Counter((row["action"], row["entity_type"]) for row in rows)
    if found != wanted(step):
        return [f"{step.rpc}: {dict(found)} instead of {dict(wanted(step))}"]
    wrong = [one for row in rows for one in _differences(_facts(done, row))]
    for row in rows:
        if (row["action"], row["entity_type"]) == (step.action, step.about) and done.entity != "*":
            wrong += _differences(_told(done, row))
    return [f"{step.rpc}: {one}" for one in wrong]


def _differences(facts: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{name} is {found!r}, not {right!r}" for name, (found, right) in facts.items() if found != right]


def _facts(done: Done, row: Any) -> dict[str, tuple[Any, Any]]:
    """What every entry of a call says, and what it must say."""
    said, home = json.loads(row["said"]), done.person.tenant_id
    return {
        "rpc": (row["rpc"], api.path_of(rpc_of(done.step))),
        "tenant": (str(row["tenant_id"]), done.tenant_id),
        "user": (str(row["user_id"] or ""), done.person.user_id),
        "acting tenant": (str(row["acting_tenant_id"] or ""), "" if home == done.tenant_id else home),
        "service": (row["service"], ""),
        "address": ((said["client_address"] or {}).keys(), {"sealed"}),
        **{name: (said[name] or "", str(row[name] or "")) for name in REPEATED},
    }


def _told(done: Done, row: Any) -> dict[str, tuple[Any, Any]]:
    """What the one entry says of the change itself."""
    said, step = json.loads(row["said"]), done.step
    old, new = said["old_values"] or {}, said["new_values"] or {}
    facts: dict[str, tuple[Any, Any]] = {"entity": (str(row["entity_id"]), done.entity)}
    if step.action == "create":
        facts |= {"old values": (said["old_values"], None), "has new values": (bool(new), True)}
    for name, value in done.changed.items():
        facts[f"old {name}"] = (name in old and old[name] != new.get(name), True)
        facts[f"new {name}"] = (new.get(name) if "sealed" not in str(new.get(name)) else value, value)
    return facts


@pytest.fixture(scope="module")
async def life(stack: Stack) -> Life:
    """One that was gone through."""
    made = await Life.begin(stack)
    await made.go_through()
    return made


@pytest.fixture(scope="module")
async def population(stack: Stack) -> Population:
    return await populate(stack)


async def entries_of(database: asyncpg.Connection, request_id: str) -> list[tuple[str, str]]:
    rows = await database.fetch(ENTRIES, request_id)
    return [(row["action"], row["entity_type"]) for row in rows]


def asking(person: Person) -> tuple[Person, str]:
    """The person, whose next calls have this request id."""
    request_id = f"life-{uuid4()}"
    return replace(person, extra=(*person.extra, ("x-request-id", request_id))), request_id


class TestEveryMutation:
    def test_is_in_the_life(self) -> None:
        lived = {api.short(rpc_of(step)) for step in LIFE} | INTERNAL.keys()
        missing = {api.short(rpc) for rpc in MUTATING if rpc.name not in APART} - lived
        assert not missing, "say in mutations.py how to call them, and what the log must say then"

    def test_that_leaves_more_or_nothing_says_why(self) -> None:
        assert {step.rpc for step in LIFE if step.more} | STREAMED_REQUESTS | TWO_TENANTS == SEVERAL.keys()
        assert {step.rpc for step in LIFE if not step.action} == SILENT.keys()

    async def test_leaves_exactly_one_right_entry(self, life: Life, database: asyncpg.Connection) -> None:
        wrong: list[str] = []
        for request_id, done in life.done.items():
            wrong += findings(done, await database.fetch(ENTRIES, request_id))
        sys.stdout.write(f"{len(life.done)} calls of {len({step.rpc for step in LIFE})} RPCs\n")
        assert not wrong, "\n" + "\n".join(wrong)

    async def test_is_seen_to_leave_none_or_two_or_a_wrong_one(self, life: Life, database: asyncpg.Connection) -> None:
        """Or finding nothing would prove nothing."""
        for request_id, done in life.done.items():
            if not done.step.action or done.step.rpc == "BatchCreateVocabularies":
                continue
            rows = [dict(row) for row in await database.fetch(ENTRIES, request_id)]
            assert not findings(done, rows)
            assert findings(done, rows[1:])
            assert findings(done, [*rows, rows[0]])
            for name, value in (("user_id", uuid4()), ("rpc", "/x"), ("tenant_id", uuid4()), ("action", "x")):
                assert findings(done, [{**row, name: value} for row in rows]), name
            assert done.entity == "*" or findings(done, [{**row, "entity_id": uuid4()} for row in rows])

    async def test_of_many_users_leaves_one_for_each(self, life: Life, database: asyncpg.Connection) -> None:
        admin, request_id = asking(life.school.admin)
        users = "".join(f"n{n}@x.example,N {n}\n" for n in range(3))
        outcome = await import_users(admin, f"email,display_name\n{users}".encode())
        assert outcome.words == ["created"] * 3
        await life.school.settle()
        found = Counter(await entries_of(database, request_id))
        assert found == {("create", "user"): 3, ("import", "user_import"): 1}

    async def test_sent_twice_with_a_key_leaves_one(self, life: Life, database: asyncpg.Connection) -> None:
        teacher, request_id = asking(life.school.teacher)
        teacher = replace(teacher, extra=(*teacher.extra, ("idempotency-key", secrets.token_hex(8))))
        course = {"title": "t", "story_language": "vi", "learning_language": "en"}
        first, second = [await ask(teacher, "CreateCourse", course=course) for _ in range(2)]
        assert first == second
        await life.school.settle()
        assert await entries_of(database, request_id) == [("create", "course")]

    @pytest.mark.parametrize("name", ["EndLearningSession", "SubmitAttempt"])
    async def test_that_was_done_already_leaves_none(self, life: Life, database: asyncpg.Connection, name: str) -> None:
        student, request_id = asking(life.school.student)
        kind = api.snake(name.removeprefix("End").removeprefix("Submit"))
        await ask(student, name, id=life.known[kind])
        await life.school.settle()
        assert await entries_of(database, request_id) == []


class TestRefusals:
    async def test_of_every_rpc_leave_an_entry(self, population: Population, database: asyncpg.Connection) -> None:
        ids, person = population.ours.ids, population.school.auditor
        denied: dict[str, MethodDescriptor] = {}
        for rpc in MUTATING:
            if api.permission(rpc) is None or rpc.name in STREAMED_REQUESTS:
                continue
            asked, request_id = asking(person)
            request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: ids[kind][0])
            found = await answer(asked, rpc, request)
            if found.code is grpc.StatusCode.PERMISSION_DENIED:
                denied[request_id] = rpc
        await population.school.settle()
        for request_id, rpc in denied.items():
            (row,) = await database.fetch(ENTRIES, request_id)
            assert (row["action"], row["rpc"]) == ("deny", api.path_of(rpc))
            assert str(row["user_id"]) == person.user_id
            assert json.loads(row["said"])["new_values"]["count"] == 1
        sys.stdout.write(f"{len(denied)} RPCs refused\n")
        assert len(denied) > 50

    @pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
    async def test_of_sign_ins_leave_an_entry(self, life: Life, database: asyncpg.Connection, known: bool) -> None:
        stranger, request_id = asking(life.person("stranger"))
        email = life.school.student.email if known else "nobody@x.example"
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(stranger, "CreateSession", tenant=life.known["slug"], email=email, password="wrong password")
        await life.school.settle()
        (row,) = await database.fetch(ENTRIES, request_id)
        assert row["action"] == "sign_in_failed"
        assert str(row["entity_id"]) == (life.known["student"] if known else str(NIL))
        assert str(row["tenant_id"]) == life.known["home"]


class TestActsInOtherTenants:
    async def test_are_entries_of_that_tenant(self, life: Life, database: asyncpg.Connection) -> None:
        root = replace(life.person("root"), extra=(("x-act-in-tenant", life.known["home"]),))
        asked, read_id = asking(root)
        await ask(asked, "ListCourses")
        asked, write_id = asking(root)
        await ask(asked, "CreateCourse", course={"title": "t", "story_language": "vi", "learning_language": "en"})
        await life.school.settle()
        (read,) = await database.fetch(ENTRIES, read_id)
        assert read["action"] == "act_in_tenant"
        written = await database.fetch(ENTRIES, write_id)
        assert {row["action"] for row in written} == {"create", "act_in_tenant"}
        for row in (read, *written):
            assert (str(row["tenant_id"]), str(row["acting_tenant_id"])) == (life.known["home"], str(SYSTEM_TENANT))
            assert str(row["user_id"]) == root.user_id


class TestReads:
    async def test_leave_none_but_those_of_the_log_itself(
        self, population: Population, database: asyncpg.Connection
    ) -> None:
        ids, opened = population.ours.ids, 0
        for rpc in READS:
            asked, request_id = asking(population.ours.admin)
            request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: ids[kind][0])
            found = await answer(asked, rpc, request)
            if not found.ok:
                continue
            opened += 1
            await population.school.settle()
            actions = [action for action, _ in await entries_of(database, request_id)]
            assert actions == ([RECORDED[name]] if (name := api.short(rpc)) in RECORDED else []), name
        sys.stdout.write(f"{opened} of {len(READS)} reads\n")
        assert opened >= len(READS) - 8
