"""What a service knows of a user is told whole, goes for good, and the receipt says exactly what went."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from kit import subjects
from kit.holdings import ERASED, GOES, NOBODY, Held, Holdings, destroyed, kept, loses_name
from kit.ids import SYSTEM_TENANT
from kit.subjects import SubjectService
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.subject.v1.subjects_pb2 import EraseUserRequest, ExportUserRequest, PurgeTenantRequest, Receipt
from tests.kit.toy import Toy

FEW, MANY = 3, 2 * subjects.BATCH + 7


@pytest.fixture
def gone(toy: Toy) -> Holdings:
    """Notes are their author's."""
    return Holdings(metadata=toy.note.metadata, held=(Held(toy.note, "author_id", GOES, omit=("secret",)),))


@pytest.fixture
def nameless(toy: Toy) -> Holdings:
    """Notes are the school's."""
    fate = loses_name("the school's", author_id=NOBODY, text="''")
    return Holdings(metadata=toy.note.metadata, held=(Held(toy.note, "author_id", fate),))


@pytest.fixture
def hollow(toy: Toy) -> Holdings:
    """Notes stay for ever, without their secret."""
    fate = destroyed("notes are numbered", pending="secret <> ''", secret="''")
    return Holdings(metadata=toy.note.metadata, held=(Held(toy.note, "author_id", fate),))


@pytest.fixture
async def tenant(toy: Toy) -> UUID:
    return uuid4()


async def write_notes(toy: Toy, tenant: UUID, user: UUID, number: int, text: str = "a note") -> None:
    await toy.rows(
        "INSERT INTO toy.notes (tenant_id, text, secret, author_id)"
        " SELECT $1, $2, 'hush', $3 FROM generate_series(1, $4)",
        tenant, text, user, number,
    )  # fmt: skip


async def count(toy: Toy, tenant: UUID, author: UUID) -> int:
    rows = await toy.rows("SELECT 1 FROM toy.notes WHERE tenant_id = $1 AND author_id = $2", tenant, author)
    return len(rows)


async def post(toy: Toy, tenant: UUID, payload: Any, *, parked: bool = False) -> None:
    await toy.rows(
        "INSERT INTO toy.outbox (event_id, tenant_id, consumer, aggregate_type, aggregate_id, payload_type, payload,"
        " parked_at) VALUES ($1, $2, 'nobody', 'note', $1, $3, $4, CASE WHEN $5 THEN now() END)",
        uuid4(), tenant, payload.DESCRIPTOR.full_name, payload.SerializeToString(), parked,
    )  # fmt: skip


async def erase(toy: Toy, holdings: Holdings, tenant: UUID, user: UUID, erasure: UUID | None = None) -> Receipt:
    request = EraseUserRequest(tenant_id=str(tenant), user_id=str(user), erasure_id=str(erasure or uuid4()))
    return await SubjectService(toy.db, holdings).EraseUser(request, None)


async def purge(toy: Toy, holdings: Holdings, tenant: UUID, erasure: UUID | None = None) -> Receipt:
    request = PurgeTenantRequest(tenant_id=str(tenant), erasure_id=str(erasure or uuid4()))
    return await SubjectService(toy.db, holdings).PurgeTenant(request, None)


def counts(receipt: Receipt) -> set[tuple[str, str, int]]:
    return {(one.table, one.action, one.rows) for one in receipt.counts}


class TestExportUser:
    async def export(self, toy: Toy, holdings: Holdings, tenant: UUID, user: UUID) -> list[Any]:
        request = ExportUserRequest(tenant_id=str(tenant), user_id=str(user))
        return [one async for one in SubjectService(toy.db, holdings).ExportUser(request, None)]

    async def test_tells_every_row_once_and_nobody_elses(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        user, number = uuid4(), 2 * subjects.EXPORTED_AT_ONCE + 1
        await write_notes(toy, tenant, user, number)
        await write_notes(toy, tenant, uuid4(), FEW)
        await write_notes(toy, uuid4(), user, FEW)
        records = await self.export(toy, gone, tenant, user)
        assert len({one.values["id"] for one in records}) == len(records) == number
        assert {(one.kind, one.values["author_id"]) for one in records} == {("notes", str(user))}

    async def test_leaves_secrets_out(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        user = uuid4()
        await write_notes(toy, tenant, user, 1)
        (record,) = await self.export(toy, gone, tenant, user)
        assert set(record.values) == {"tenant_id", "id", "text", "author_id", "created_at", "updated_at", "revision"}

    async def test_tells_a_row_once_that_names_the_user_twice(self, toy: Toy, tenant: UUID) -> None:
        user = uuid4()
        twice = tuple(Held(toy.note, column, GOES) for column in ("author_id", "id"))
        await toy.rows(
            "INSERT INTO toy.notes (tenant_id, id, text, secret, author_id) VALUES ($1, $2, '', '', $2)", tenant, user
        )
        assert len(await self.export(toy, Holdings(metadata=toy.note.metadata, held=twice), tenant, user)) == 1

    def test_says_large_numbers_exactly(self) -> None:
        values = subjects._values('{"large": 9007199254740993, "small": 7, "share": 0.5, "none": null}')
        assert values == {"large": "9007199254740993", "small": 7, "share": 0.5, "none": None}


    async def test_tells_rows_of_some_tables_otherwise_than_they_are(
        self, toy: Toy, gone: Holdings, tenant: UUID
    ) -> None:
        user = uuid4()
        await write_notes(toy, tenant, user, FEW, text="NOTE")

        async def shown(session: Any, user_id: UUID, rows: Any) -> Any:
            assert (session.tenant_id, user_id) == (tenant, user)
            return [{"text": row["text"].lower()} for row in rows]

        request = ExportUserRequest(tenant_id=str(tenant), user_id=str(user))
        service = SubjectService(toy.db, gone, {"notes": shown})
        assert [dict(one.values) async for one in service.ExportUser(request, None)] == [{"text": "note"}] * FEW


class TestEraseUser:
    async def test_removes_what_is_the_users_alone(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        user, other, elsewhere = uuid4(), uuid4(), uuid4()
        for where, whose, number in ((tenant, user, MANY), (tenant, other, FEW), (elsewhere, user, FEW)):
            await write_notes(toy, where, whose, number)
        receipt = await erase(toy, gone, tenant, user)
        assert (receipt.service, receipt.complete) == ("toy", True)
        assert counts(receipt) == {("notes", "deleted", MANY)}
        assert await count(toy, tenant, user) == 0
        assert (await count(toy, tenant, other), await count(toy, elsewhere, user)) == (FEW, FEW)

    async def test_takes_the_name_out_of_what_stays(self, toy: Toy, nameless: Holdings, tenant: UUID) -> None:
        user, other = uuid4(), uuid4()
        await write_notes(toy, tenant, user, MANY)
        await write_notes(toy, tenant, other, FEW)
        assert counts(await erase(toy, nameless, tenant, user)) == {("notes", "anonymized", MANY)}
        rows = await toy.rows("SELECT * FROM toy.notes WHERE tenant_id = $1 AND author_id <> $2", tenant, other)
        assert {(row["author_id"], row["text"], row["revision"]) for row in rows} == {(ERASED, "", 2)}
        assert await count(toy, tenant, other) == FEW

    async def test_destroys_what_rows_hold_and_counts_them_once(
        self, toy: Toy, hollow: Holdings, tenant: UUID
    ) -> None:
        user, other, erasure = uuid4(), uuid4(), uuid4()
        await write_notes(toy, tenant, user, MANY)
        await write_notes(toy, tenant, other, FEW)
        for _ in range(2):
            assert counts(await erase(toy, hollow, tenant, user, erasure)) == {("notes", "destroyed", MANY)}
        rows = await toy.rows("SELECT author_id, secret FROM toy.notes WHERE tenant_id = $1", tenant)
        assert {(row["author_id"], row["secret"]) for row in rows} == {(user, ""), (other, "hush")}

    async def test_counts_what_it_must_keep(self, toy: Toy, tenant: UUID) -> None:
        user, erasure = uuid4(), uuid4()
        await write_notes(toy, tenant, user, FEW)
        holdings = Holdings(metadata=toy.note.metadata, held=(Held(toy.note, "author_id", kept("proof")),))
        for _ in range(2):
            assert counts(await erase(toy, holdings, tenant, user, erasure)) == {("notes", "kept", FEW)}

    async def test_called_again_gives_the_same_receipt(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        user, erasure = uuid4(), uuid4()
        await write_notes(toy, tenant, user, FEW)
        first = await erase(toy, gone, tenant, user, erasure)
        assert await erase(toy, gone, tenant, user, erasure) == first

    async def test_called_again_takes_what_turned_up_since(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        user, erasure = uuid4(), uuid4()
        for number in (FEW, 1):
            await write_notes(toy, tenant, user, number)
            receipt = await erase(toy, gone, tenant, user, erasure)
        assert counts(receipt) == {("notes", "deleted", FEW + 1)}

    async def test_goes_on_where_it_was_cut_short(
        self, toy: Toy, gone: Holdings, tenant: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user, erasure = uuid4(), uuid4()
        await write_notes(toy, tenant, user, MANY)
        with monkeypatch.context() as impatient:
            impatient.setattr(subjects, "WORKING_SECONDS", -1.0)
            assert not (await erase(toy, gone, tenant, user, erasure)).complete
        cut = toy.db.write
        batches = 0

        def fails_later(tenant_id: UUID) -> Any:
            nonlocal batches
            batches += 1
            if batches > 2:
                raise ConnectionError("the database is away")
            return cut(tenant_id)

        with monkeypatch.context() as faulty:
            faulty.setattr(toy.db, "write", fails_later)
            with pytest.raises(ConnectionError):
                await erase(toy, gone, tenant, user, erasure)
        assert await count(toy, tenant, user) == MANY - 2 * subjects.BATCH
        receipt = await erase(toy, gone, tenant, user, erasure)
        assert receipt.complete
        assert counts(receipt) == {("notes", "deleted", MANY)}

    async def test_calls_at_once_count_each_row_once(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        user, erasure = uuid4(), uuid4()
        await write_notes(toy, tenant, user, MANY)
        receipts = await asyncio.gather(*(erase(toy, gone, tenant, user, erasure) for _ in range(2)))
        assert ("notes", "deleted", MANY) in set.union(*(counts(one) for one in receipts))
        assert counts(await erase(toy, gone, tenant, user, erasure)) == {("notes", "deleted", MANY)}

    async def test_is_not_complete_before_events_that_name_the_user_are_delivered(
        self, toy: Toy, gone: Holdings, tenant: UUID
    ) -> None:
        user, erasure = uuid4(), uuid4()
        await post(toy, tenant, toy.pb.Note(author_id=str(user)))
        await post(toy, tenant, toy.pb.Note(author_id=str(uuid4())))
        receipt = await erase(toy, gone, tenant, user, erasure)
        assert (receipt.complete, receipt.waiting_events) == (False, 1)
        assert not receipt.HasField("complete_time")
        await toy.rows("DELETE FROM toy.outbox WHERE tenant_id = $1", tenant)
        receipt = await erase(toy, gone, tenant, user, erasure)
        assert (receipt.complete, receipt.waiting_events) == (True, 0)

    async def test_drops_parked_events_but_no_audit_entry(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        user = uuid4()
        await post(toy, tenant, toy.pb.Note(author_id=str(user)), parked=True)
        await post(toy, tenant, ChangeRecorded(user_id=str(user)), parked=True)
        receipt = await erase(toy, gone, tenant, user)
        assert (receipt.complete, receipt.waiting_events) == (False, 1)
        assert counts(receipt) == {("outbox", "deleted", 1)}
        await toy.rows("DELETE FROM toy.outbox WHERE tenant_id = $1", tenant)

    async def test_forgets_the_answers_of_keyed_calls_and_not_that_they_were_made(
        self, toy: Toy, gone: Holdings, tenant: UUID
    ) -> None:
        user, author = uuid4(), uuid4()
        token = toy.grant(author, ("note", "create"), tenant=tenant)
        keyed = toy.stub(token, idempotency_key=uuid4().hex)
        note = toy.pb.Note(text="once")
        assert (await keyed.CreateNote(note)).text == "once"
        receipt = await erase(toy, gone, tenant, user)
        assert counts(receipt) == {("idempotency_keys", "anonymized", 1)}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await keyed.CreateNote(note)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert await count(toy, tenant, author) == 1
        await toy.rows("DELETE FROM toy.outbox WHERE tenant_id = $1", tenant)


class TestPurgeTenant:
    async def test_destroys_what_rows_hold_that_outlive_the_tenant(
        self, toy: Toy, hollow: Holdings, tenant: UUID
    ) -> None:
        user, elsewhere = uuid4(), uuid4()
        await write_notes(toy, tenant, user, MANY)
        await write_notes(toy, elsewhere, user, FEW)
        assert counts(await purge(toy, hollow, tenant)) == {("notes", "destroyed", MANY)}
        rows = await toy.rows("SELECT tenant_id, secret FROM toy.notes WHERE author_id = $1", user)
        assert {(row["tenant_id"], row["secret"]) for row in rows} == {(tenant, ""), (elsewhere, "hush")}

    async def test_leaves_nothing_of_the_tenant_and_everything_of_others(
        self, toy: Toy, gone: Holdings, tenant: UUID
    ) -> None:
        other, user, erasure = uuid4(), uuid4(), uuid4()
        for where, number in ((tenant, MANY), (other, FEW)):
            await write_notes(toy, where, user, number)
            await erase(toy, gone, where, uuid4())
        receipt = await purge(toy, gone, tenant, erasure)
        assert receipt.complete
        assert counts(receipt) == {("notes", "deleted", MANY), ("erasure_receipts", "deleted", 1)}
        for table, left in (("notes", FEW), ("erasure_receipts", 1)):
            for where, number in ((tenant, 0), (other, left)):
                assert len(await toy.rows(f"SELECT 1 FROM toy.{table} WHERE tenant_id = $1", where)) == number
        rows = await toy.rows("SELECT tenant_id FROM toy.erasure_receipts WHERE id = $1", erasure)
        assert [row["tenant_id"] for row in rows] == [SYSTEM_TENANT]
        assert await purge(toy, gone, tenant, erasure) == receipt

    async def test_keeps_what_outlives_the_tenant(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        await write_notes(toy, tenant, uuid4(), FEW)
        receipt = await purge(toy, replace(gone, immortal={"notes": "proof"}), tenant)
        assert counts(receipt) == {("notes", "kept", FEW)}

    async def test_waits_for_the_tenants_events(self, toy: Toy, gone: Holdings, tenant: UUID) -> None:
        await post(toy, tenant, toy.pb.Note(text="news"))
        await post(toy, uuid4(), toy.pb.Note(text="of others"))
        receipt = await purge(toy, gone, tenant)
        assert (receipt.complete, receipt.waiting_events) == (False, 1)
        await toy.rows("DELETE FROM toy.outbox WHERE consumer = 'nobody'")
