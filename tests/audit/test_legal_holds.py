"""Legal holds: put and released by administrators, once each, and in the log."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest

from services.audit import queries
from storyloom.audit.v1.legal_holds_pb2 import (
    CreateLegalHoldRequest,
    GetLegalHoldRequest,
    LegalHold,
    ListLegalHoldsRequest,
    ReleaseLegalHoldRequest,
)
from storyloom.audit.v1.legal_holds_pb2_grpc import LegalHoldServiceStub
from tests.audit.test_audit_logs import listed as log
from tests.contract.population import ask
from tests.stack import Person, School, refused

START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


def holds(person: Person) -> LegalHoldServiceStub:
    return person.stub(LegalHoldServiceStub, "audit")


async def put(person: Person, **values: Any) -> LegalHold:
    hold = LegalHold(**({"reason": f"Az {uuid4()}"} | values))
    return await holds(person).CreateLegalHold(CreateLegalHoldRequest(legal_hold=hold))


async def release(person: Person, hold: LegalHold, etag: str = "") -> LegalHold:
    return await holds(person).ReleaseLegalHold(ReleaseLegalHoldRequest(id=hold.id, etag=etag))


async def found(person: Person, **filters: Any) -> list[LegalHold]:
    return list((await holds(person).ListLegalHolds(ListLegalHoldsRequest(**filters))).legal_holds)


class TestCreateLegalHold:
    async def test_is_active_at_once(self, school: School) -> None:
        hold = await put(school.admin, reason="Az 12/26", start_time=START, end_time=END)
        assert (hold.reason, hold.creator_id) == ("Az 12/26", school.admin.user_id)
        assert (hold.start_time.ToDatetime(tzinfo=UTC), hold.end_time.ToDatetime(tzinfo=UTC)) == (START, END)
        assert (hold.releaser_id, hold.HasField("release_time")) == ("", False)
        assert await holds(school.admin).GetLegalHold(GetLegalHoldRequest(id=hold.id)) == hold

    async def test_is_in_the_log(self, school: School) -> None:
        hold = await put(school.admin, start_time=START)
        await school.settle()
        (entry,) = await log(school.auditor, entity_type="legal_hold", entity_id=hold.id)
        assert (entry.action, entry.user_id) == ("create", school.admin.user_id)
        assert entry.new_values["start_time"] == START.isoformat()

    @pytest.mark.parametrize("wrong", [{"reason": ""}, {"start_time": END, "end_time": START}, {"reason": "x" * 2001}])
    async def test_refuses_what_makes_no_sense(self, school: School, wrong: dict[str, Any]) -> None:
        async with refused("INVALID_FIELD"):
            await put(school.admin, **wrong)

    async def test_refuses_who_is_no_administrator(self, school: School) -> None:
        for person in (school.auditor, school.teacher, school.student):
            async with refused("PERMISSION_REQUIRED"):
                await put(person)


class TestListLegalHolds:
    async def test_lists_the_newest_first_and_active_ones_alone_when_asked(self, school: School) -> None:
        first, second, third = [await put(school.admin) for _ in range(3)]
        await release(school.admin, second)
        everything = [one.id for one in await found(school.admin)]
        assert everything[:3] == [third.id, second.id, first.id]
        active = [one.id for one in await found(school.admin, active_only=True)]
        assert active[:2] == [third.id, first.id]
        assert second.id not in active

    async def test_shows_nothing_of_another_tenant(self, school: School) -> None:
        hold = await put(school.admin)
        assert hold.id not in [one.id for one in await found(school.outsider_admin, page_size=100)]
        async with refused("RESOURCE_NOT_FOUND"):
            await holds(school.outsider_admin).GetLegalHold(GetLegalHoldRequest(id=hold.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await release(school.outsider_admin, hold)


class TestReleaseLegalHold:
    async def test_ends_it_once_and_says_who_did(self, school: School) -> None:
        hold = await put(school.admin)
        released = await release(school.admin, hold, hold.etag)
        assert released.releaser_id == school.admin.user_id
        assert released.release_time.ToDatetime() >= released.create_time.ToDatetime()
        async with refused("WRONG_STATE"):
            await release(school.admin, hold)
        await school.settle()
        actions = [one.action for one in await log(school.auditor, entity_type="legal_hold", entity_id=hold.id)]
        assert actions == ["release", "create"]

    async def test_refuses_a_stale_etag(self, school: School) -> None:
        async with refused("STALE_ETAG", code=grpc.StatusCode.ABORTED):
            await release(school.admin, await put(school.admin), "987654321")


class TestFindLegalHold:
    async def test_finds_an_active_one_of_the_tenant(self, school: School) -> None:
        tenant_id = UUID(school.outsider_admin.tenant_id)
        db = school.stack.services["audit"].db
        async with db.read(tenant_id) as session:
            assert await queries.find_legal_hold(session) is None
        hold = await put(school.outsider_admin)
        async with db.read(tenant_id) as session:
            row = await queries.find_legal_hold(session)
        assert row is not None
        assert str(row.id) == hold.id
        await release(school.outsider_admin, hold)
        async with db.read(tenant_id) as session:
            assert await queries.find_legal_hold(session) is None


class TestDatabase:
    async def test_a_release_has_a_time_and_a_person_or_neither(self, school: School) -> None:
        hold = await put(school.admin)
        connection = await asyncpg.connect(school.stack.cluster.superuser_url)
        try:
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(
                    "UPDATE audit.legal_holds SET release_time = now() WHERE id = $1", UUID(hold.id)
                )
        finally:
            await connection.close()


class TestErasure:
    async def test_leaves_the_keys_of_the_log_until_the_last_hold_is_released(self, school: School) -> None:
        admin = school.outsider_admin
        user = await ask(admin, "CreateUser", user={"email": f"u{uuid4().hex}@x.example", "display_name": "Mai"})
        await admin.stack.settle()
        first, second = await put(admin), await put(admin)
        await ask(admin, "DeleteUser", id=user.id)
        erasure = await erased(admin, user.id)
        assert ("subject_keys", "suspended", 1) in counts_of(erasure)
        assert "destroyed" not in {action for _, action, _ in counts_of(erasure)}
        assert await name_in_log(admin, user.id) == "Mai"
        await release(admin, first)
        assert await name_in_log(admin, user.id) == "Mai"
        await release(admin, second)
        assert await name_in_log(admin, user.id) == "[erased]"

    async def test_destroys_them_at_once_without_a_hold(self, school: School) -> None:
        admin = school.outsider_admin
        user = await ask(admin, "CreateUser", user={"email": f"u{uuid4().hex}@x.example", "display_name": "Mai"})
        await admin.stack.settle()
        await release(admin, await put(admin))
        await ask(admin, "DeleteUser", id=user.id)
        assert ("subject_keys", "destroyed", 1) in counts_of(await erased(admin, user.id))
        assert await name_in_log(admin, user.id) == "[erased]"


async def erased(admin: Person, user_id: str) -> Any:
    asked = await ask(admin, "PurgeUser", user_id=user_id)
    async with asyncio.timeout(30):
        while True:
            erasure = await ask(admin, "GetErasure", id=asked.id)
            if erasure.HasField("complete_time"):
                return erasure
            await asyncio.sleep(0.2)


def counts_of(erasure: Any) -> list[tuple[str, str, int]]:
    (receipt,) = [one for one in erasure.receipts if one.service == "audit"]
    return [(one.table, one.action, one.rows) for one in receipt.counts]


async def name_in_log(admin: Person, user_id: str) -> Any:
    entries = await log(admin, entity_type="user", entity_id=user_id, action="create")
    return entries[0].new_values["display_name"]
