"""What is personal in the log: nowhere in clear, readable while its key is there, and never again afterwards."""

import asyncio
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from kit.ids import NIL, new_id
from services.audit import sealing
from services.audit.sealing import ERASED, Key, Wrapper
from storyloom.subject.v1.subjects_pb2 import EraseUserRequest, ExportUserRequest, PurgeTenantRequest, Receipt
from storyloom.subject.v1.subjects_pb2_grpc import SubjectServiceStub
from tests.audit.test_audit_logs import database, deliver, event, got, leaf_of
from tests.stack import School, Stack, found_school

TENANT, ENTRY = uuid4(), uuid4()
WRAPPER = Wrapper(os.urandom(32))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
VALUES = st.none() | st.dictionaries(st.sampled_from(["email", "title", "sealed", "note"]), JSON, max_size=4)


def new_key(subject_id: UUID | None = None) -> Key:
    key_id, subject_id = new_id(), subject_id or uuid4()
    return WRAPPER.open(TENANT, key_id, subject_id, WRAPPER.new_key(TENANT, key_id, subject_id))


def entry(**values: Any) -> dict[str, Any]:
    missing = dict.fromkeys(("old_values", "new_values", "client_address"))
    return {"id": str(ENTRY), "tenant_id": str(TENANT), "action": "update", **missing, **values}


def sealed(key: Key, *names: str, **values: Any) -> bytes:
    return sealing.leaf(entry(**values), sensitive=names, of_values=key, of_address=key)


def opened(leaf: bytes, *keys: Key) -> dict[str, Any]:
    return sealing.opened(sealing.parsed(leaf), {key.id: key for key in keys})


class TestCanonicalForm:
    def test_has_sorted_keys_no_spaces_and_utf_8(self) -> None:
        assert sealing.canonical({"b": [1, None], "a": {"ở": True}}) == '{"a":{"ở":true},"b":[1,null]}'.encode()

    @given(JSON)
    def test_is_the_same_however_often_it_is_read_and_written(self, value: Any) -> None:
        try:
            written = sealing.canonical(value)
        except UnicodeEncodeError:
            return  # A lone surrogate: no source can send one.
        assert sealing.canonical(sealing.parsed(written)) == written

    def test_refuses_numbers_that_json_does_not_have(self) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            sealing.canonical({"n": float("nan")})

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_keeps_such_numbers_as_text(self, number: str) -> None:
        assert sealing.parsed(f"[{number}]") == [number]


class TestLeaf:
    def test_shows_what_is_not_sensitive_and_nothing_else(self) -> None:
        key = new_key()
        new = {"email": "lan@x.example", "level": "B1"}
        leaf = sealed(key, "email", new_values=new, client_address="192.0.2.7")
        assert b"lan@" not in leaf
        assert b"192.0.2.7" not in leaf
        found = json.loads(leaf)
        assert found["v"] == 1
        assert found["new_values"]["level"] == "B1"
        seal = found["new_values"]["email"]["sealed"]
        assert (seal["subject"], seal["key"]) == (str(key.subject_id), str(key.id))
        assert opened(leaf, key) == found | {"new_values": new, "client_address": "192.0.2.7"}

    @given(VALUES, VALUES, st.sets(st.sampled_from(["email", "note"])))
    def test_opens_to_what_was_sealed(self, old: Any, new: Any, names: set[str]) -> None:
        key = new_key()
        try:
            sealing.canonical([old, new])
        except UnicodeEncodeError:
            return
        found = opened(sealed(key, *names, old_values=old, new_values=new), key)
        assert (found["old_values"], found["new_values"]) == (old, new)

    def test_is_never_sealed_twice_in_the_same_way(self) -> None:
        key = new_key()
        assert sealed(key, client_address="192.0.2.7") != sealed(key, client_address="192.0.2.7")

    def test_what_only_looks_sealed_is_sealed(self) -> None:
        key, other = new_key(), new_key()
        theirs = json.loads(sealed(other, "email", new_values={"email": "lan@x.example"}))["new_values"]["email"]
        leaf = sealed(key, new_values={"attributes": theirs})
        assert opened(leaf, key, other)["new_values"] == {"attributes": theirs}

    @pytest.mark.parametrize("place", ["another field", "old values", "another entry", "another tenant"])
    def test_a_seal_that_was_moved_does_not_open(self, place: str) -> None:
        key = new_key()
        parsed = json.loads(sealed(key, "email", new_values={"email": "lan@x.example"}))
        values = parsed.pop("new_values")
        moved = {
            "another field": {**parsed, "new_values": {"title": values["email"]}},
            "old values": {**parsed, "new_values": None, "old_values": values},
            "another entry": {**parsed, "new_values": values, "id": str(uuid4())},
            "another tenant": {**parsed, "new_values": values, "tenant_id": str(uuid4())},
        }[place]
        found = sealing.opened(moved, {key.id: key})
        assert [*(found["new_values"] or found["old_values"]).values()] == [ERASED]

    def test_without_its_key_it_shows_nothing(self) -> None:
        key, gone = new_key(), Key(uuid4(), uuid4(), None)
        leaf = sealed(key, "email", new_values={"email": "lan@x.example", "level": "B1"})
        destroyed = Key(key.id, key.subject_id, None)
        for keys in ((), (destroyed,), (gone, new_key())):
            assert opened(leaf, *keys)["new_values"] == {"email": ERASED, "level": "B1"}
        # The key was destroyed while another process sealed: that one's bytes open with nothing that is left.
        late = sealed(destroyed, "email", new_values={"email": "lan@x.example"})
        assert opened(late, key)["new_values"] == {"email": ERASED}


class TestWrapper:
    def test_opens_a_key_for_its_row_alone(self) -> None:
        row = TENANT, new_id(), uuid4()
        wrapped = WRAPPER.new_key(*row)
        assert WRAPPER.open(*row, wrapped).cipher is not None
        for index in range(3):
            tenant, key, subject = (uuid4() if at == index else one for at, one in enumerate(row))
            with pytest.raises(RuntimeError, match="AUDIT_KEY_ENCRYPTION_KEY"):
                WRAPPER.open(tenant, key, subject, wrapped)

    def test_says_so_when_it_has_another_encryption_key(self) -> None:
        row = TENANT, new_id(), uuid4()
        with pytest.raises(RuntimeError, match="AUDIT_KEY_ENCRYPTION_KEY"):
            Wrapper(os.urandom(32)).open(*row, WRAPPER.new_key(*row))

    def test_a_destroyed_key_is_one_without_cipher(self) -> None:
        assert WRAPPER.open(TENANT, new_id(), uuid4(), None).cipher is None


@pytest.fixture(scope="module")
async def school(stack: Stack) -> School:
    """One of its own, whose log nobody has put on hold."""
    slug = f"seal{secrets.token_hex(4)}"
    return await found_school(stack, slug, f"{slug}-beside")


def about(school: School, whom: UUID, **change: Any) -> Any:
    """A change of a user's e-mail address, by themselves."""
    values = {
        "entity_type": "user",
        "entity_id": str(whom),
        "user_id": str(whom),
        "new_values": '{"email":"lan@x.example","level":"B1"}',
        "sensitive_fields": ["email"],
        "subject_id": str(whom),
        "client_address": "192.0.2.7",
    }
    return event(school.auditor.tenant_id, **values | change)


def subjects(school: School) -> SubjectServiceStub:
    return school.stack.services["identity"].clients.stub(SubjectServiceStub, "audit")


async def erased(school: School, user_id: UUID, erasure_id: UUID | None = None) -> Receipt:
    request = EraseUserRequest(
        tenant_id=school.auditor.tenant_id, user_id=str(user_id), erasure_id=str(erasure_id or uuid4())
    )
    receipt: Receipt = await subjects(school).EraseUser(request)
    return receipt


def counted(receipt: Receipt) -> dict[tuple[str, str], int]:
    return {(one.table, one.action): one.rows for one in receipt.counts}


async def keys_of(school: School, subject_id: UUID) -> list[asyncpg.Record]:
    async with database(school) as superuser:
        found: list[asyncpg.Record] = await superuser.fetch(
            "SELECT * FROM audit.subject_keys WHERE subject_id = $1", subject_id
        )
    return found


@contextmanager
def statements(school: School, service: str) -> Iterator[list[str]]:
    """What the service sends to the database through its sessions meanwhile."""
    telemetry = school.stack.services[service].db.telemetry
    sent: list[str] = []
    before = telemetry.statement_span

    def listen(statement: str) -> Any:
        sent.append(" ".join(statement.split()[:4]))
        return before(statement)

    telemetry.statement_span = listen  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        del telemetry.statement_span


class TestRecording:
    async def test_personal_values_are_nowhere_in_clear_and_an_auditor_reads_them(self, school: School) -> None:
        user = uuid4()
        one = about(school, user)
        await deliver(school, one)
        async with database(school) as superuser:
            rows = await superuser.fetch("SELECT l::text AS row FROM audit.audit_logs l WHERE id = $1", UUID(one.id))
        (row,) = (bytes(row["row"], "utf-8") for row in rows)
        for canary in (b"lan@x.example", b"192.0.2.7"):
            assert canary not in row
            assert canary.hex().encode() not in row
        entry = await got(school.auditor, one.id)
        assert MessageToDict(entry.new_values) == {"email": "lan@x.example", "level": "B1"}
        assert entry.client_address == "192.0.2.7"

    async def test_the_address_is_of_who_acted_and_the_values_of_whom_they_are_about(self, school: School) -> None:
        user, actor = uuid4(), uuid4()
        one = about(school, user, user_id=str(actor))
        await deliver(school, one)
        leaf = json.loads(await leaf_of(school, one.id))
        assert leaf["new_values"]["email"]["sealed"]["subject"] == str(user)
        assert leaf["client_address"]["sealed"]["subject"] == str(actor)

    @pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
    async def test_the_address_of_who_signs_in_is_theirs_and_a_strangers_the_tenants(
        self, school: School, known: bool
    ) -> None:
        user = uuid4() if known else NIL
        one = about(school, user, action="sign_in", user_id="", subject_id="", sensitive_fields=[], new_values="")
        await deliver(school, one)
        leaf = json.loads(await leaf_of(school, one.id))
        whose = str(user) if known else school.auditor.tenant_id
        assert leaf["client_address"]["sealed"]["subject"] == whose

    async def test_a_subject_has_one_key_however_many_processes_make_the_first(self, school: School) -> None:
        user = uuid4()
        events = [about(school, user) for _ in range(6)]
        await asyncio.gather(*(deliver(school, one) for one in events))
        assert len(await keys_of(school, user)) == 1
        for one in events:
            assert (await got(school.auditor, one.id)).client_address == "192.0.2.7"

    async def test_many_changes_take_as_many_statements_as_one(self, school: School) -> None:
        user = uuid4()
        await deliver(school, about(school, user))
        await school.settle()
        with statements(school, "audit") as sent:
            await deliver(school, *(about(school, user) for _ in range(50)))
        # Besides, the service looks after its trees.
        wanted = ["SELECT id, subject_id, wrapped_key", "WITH added AS ("]
        assert [one for one in sent if one in wanted] == wanted

    async def test_what_is_not_personal_needs_no_key(self, school: School) -> None:
        user = uuid4()
        await deliver(school, about(school, user, client_address="", sensitive_fields=[], subject_id=""))
        assert await keys_of(school, user) == []


class TestErasure:
    async def test_destroys_the_key_and_leaves_every_byte_of_the_log(self, school: School) -> None:
        user, other = uuid4(), uuid4()
        mine, theirs = about(school, user), about(school, other)
        # What the erased user did to somebody else stays readable, but for where they did it from.
        did = about(school, other, user_id=str(user))
        await deliver(school, mine, theirs, did)
        before = [await leaf_of(school, one.id) for one in (mine, theirs, did)]
        (key,) = await keys_of(school, user)
        receipt = await erased(school, user)
        assert receipt.complete
        assert counted(receipt) == {("subject_keys", "destroyed"): 1, ("audit_logs", "kept"): 2}
        assert [await leaf_of(school, one.id) for one in (mine, theirs, did)] == before
        (gone,) = await keys_of(school, user)
        assert (gone["id"], gone["wrapped_key"]) == (key["id"], None)
        assert gone["destroyed_at"] is not None
        entry = await got(school.auditor, mine.id)
        assert MessageToDict(entry.new_values) == {"email": ERASED, "level": "B1"}
        assert (entry.client_address, entry.user_id) == (ERASED, str(user))
        assert (await got(school.auditor, theirs.id)).new_values["email"] == "lan@x.example"
        entry = await got(school.auditor, did.id)
        assert (entry.new_values["email"], entry.client_address) == ("lan@x.example", ERASED)

    async def test_what_comes_later_is_sealed_for_ever_and_makes_no_second_key(self, school: School) -> None:
        user = uuid4()
        await deliver(school, about(school, user))
        await erased(school, user)
        late = about(school, user)
        await deliver(school, late)
        assert len(await keys_of(school, user)) == 1
        assert b"lan@" not in await leaf_of(school, late.id)
        entry = await got(school.auditor, late.id)
        assert (entry.new_values["email"], entry.client_address) == (ERASED, ERASED)

    async def test_counts_a_key_once_however_often_it_is_asked_for(self, school: School) -> None:
        user, erasure = uuid4(), uuid4()
        await deliver(school, about(school, user))
        first, second = [await erased(school, user, erasure) for _ in range(2)]
        assert counted(first) == counted(second) == {("subject_keys", "destroyed"): 1, ("audit_logs", "kept"): 1}

    async def test_of_a_tenant_destroys_all_its_keys_and_no_other_tenants(self, school: School) -> None:
        tenant, users = str(uuid4()), [uuid4(), uuid4()]
        foreign = about(school, users[0])
        events = [about(school, user) for user in users]
        for one in events:
            one.tenant_id = tenant
        await deliver(school, foreign, *events)
        request = PurgeTenantRequest(tenant_id=tenant, erasure_id=str(uuid4()))
        receipt = await subjects(school).PurgeTenant(request)
        assert counted(receipt)["subject_keys", "destroyed"] == 2
        assert counted(receipt)["audit_logs", "kept"] == 2
        kept = {str(row["tenant_id"]): row["wrapped_key"] for row in await keys_of(school, users[0])}
        assert kept.pop(tenant) is None
        assert [*kept.values()] != [None]
        assert (await got(school.auditor, foreign.id)).new_values["email"] == "lan@x.example"


class TestExport:
    async def test_of_a_user_opens_what_is_theirs_and_nothing_of_others(self, school: School) -> None:
        user, other = uuid4(), uuid4()
        mine, did = about(school, user), about(school, other, user_id=str(user))
        await deliver(school, mine, did)
        request = ExportUserRequest(tenant_id=school.auditor.tenant_id, user_id=str(user))
        records = [one async for one in subjects(school).ExportUser(request)]
        entries = {one.values["id"]: MessageToDict(one.values) for one in records if one.kind == "audit_logs"}
        assert entries.keys() == {mine.id, did.id}
        assert entries[mine.id]["new_values"] == {"email": "lan@x.example", "level": "B1"}
        assert entries[did.id]["new_values"] == {"email": "[sealed]", "level": "B1"}
        assert {one["client_address"] for one in entries.values()} == {"192.0.2.7"}
        (key,) = (MessageToDict(one.values) for one in records if one.kind == "subject_keys")
        assert "wrapped_key" not in key


class TestRights:
    @pytest.mark.parametrize(
        "change",
        [
            "DELETE FROM audit.subject_keys",
            "TRUNCATE audit.subject_keys",
            "UPDATE audit.subject_keys SET subject_id = uuidv7()",
            "UPDATE audit.subject_keys SET tenant_id = uuidv7()",
        ],
    )
    async def test_let_the_service_end_keys_and_nothing_more(self, school: School, change: str) -> None:
        connection = await asyncpg.connect(school.stack.cluster.service_url("audit"))
        try:
            await connection.execute(f"SET app.tenant_id = '{uuid4()}'")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(change)
        finally:
            await connection.close()
