"""The log as it grows: in the order of the tree, without a gap, and only for those who still may."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from kit.ids import NIL
from services.audit import tailing
from storyloom.audit.v1.audit_logs_pb2 import WatchAuditLogsRequest, WatchAuditLogsResponse
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1.sessions_pb2 import DeleteSessionRequest
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2 import ResumeTenantRequest, SuspendTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2 import SetUserRolesRequest
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.audit.test_audit_logs import deliver, event, listed
from tests.audit.test_exports import in_tree
from tests.stack import Person, School, add_person, refused


class Stream:
    """A stream, of which everything is read."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.ids: list[str] = []
        self.last_id = ""

    async def read(self, seconds: float = 8) -> WatchAuditLogsResponse:
        async with asyncio.timeout(seconds):
            one = await self.call.read()
        assert one is not grpc.aio.EOF, "it ended"
        if one.HasField("audit_log"):
            self.ids.append(one.audit_log.id)
        else:
            self.last_id = one.heartbeat.last_id
        return one

    async def until(self, number: int) -> list[str]:
        while len(self.ids) < number:
            await self.read()
        return self.ids


@asynccontextmanager
async def watching(person: Person, **request: Any) -> AsyncIterator[Stream]:
    """From the first heartbeat on."""
    stub = person.stub(AuditLogServiceStub, "audit")
    stream = Stream(stub.WatchAuditLogs(WatchAuditLogsRequest(**request), timeout=30))
    try:
        assert (await stream.read()).HasField("heartbeat")
        yield stream
    finally:
        stream.call.cancel()


@pytest.fixture(autouse=True)
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "HEARTBEAT_SECONDS", 1.0)


def told(school: School, number: int, entity_id: str, **values: Any) -> list[Any]:
    return [event(school.auditor.tenant_id, entity_id=entity_id, **values) for _ in range(number)]


class TestFollowing:
    async def test_tells_what_is_new_in_the_order_of_arrival(self, school: School) -> None:
        entity_id = str(uuid4())
        events = told(school, 6, entity_id)
        async with watching(school.auditor, entity_id=entity_id) as stream:
            await deliver(school, *events[3:])
            await stream.until(3)
            # Older by their ids, and here only now.
            await deliver(school, *events[:3])
            assert await stream.until(6) == [one.id for one in (*events[3:], *events[:3])]

    async def test_tells_nothing_of_before(self, school: School) -> None:
        entity_id = str(uuid4())
        before, after = told(school, 2, entity_id)
        await deliver(school, before)
        await asyncio.sleep(1.2)
        async with watching(school.auditor, entity_id=entity_id) as stream:
            await deliver(school, after)
            assert await stream.until(1) == [after.id]

    @pytest.mark.parametrize("name", ["entity_id", "user_id", "action", "entity_type"])
    async def test_tells_what_the_filters_let_through(self, school: School, name: str) -> None:
        value = {"action": f"a{uuid4().hex}", "entity_type": f"k{uuid4().hex}"}.get(name, str(uuid4()))
        wanted = event(school.auditor.tenant_id, **{name: value})
        async with watching(school.auditor, **{name: value}) as stream:
            await deliver(school, event(school.auditor.tenant_id), wanted)
            assert await stream.until(1) == [wanted.id]

    async def test_goes_on_after_an_entry_without_gap_or_repetition(self, school: School) -> None:
        entity_id = str(uuid4())
        events = told(school, 30, entity_id)
        await deliver(school, *events[:20])
        await asyncio.sleep(1.2)
        async with watching(school.auditor, entity_id=entity_id, after_id=events[4].id) as stream:
            await stream.until(15)
            await deliver(school, *events[20:])
            assert await stream.until(25) == [one.id for one in events[5:]]

    async def test_a_heartbeat_says_where_to_go_on(self, school: School) -> None:
        entity_id = str(uuid4())
        first, second = told(school, 2, entity_id)
        async with watching(school.auditor, entity_id=str(uuid4())) as stream:
            await deliver(school, first)
            await in_tree(school, school.auditor.tenant_id)
            for _ in range(2):
                assert (await stream.read()).HasField("heartbeat")
        async with watching(school.auditor, entity_id=entity_id, after_id=stream.last_id) as stream:
            await deliver(school, second)
            assert await stream.until(1) == [second.id]

    async def test_gives_signs_of_life(self, school: School) -> None:
        async with watching(school.auditor, entity_id=str(uuid4())) as stream:
            for _ in range(2):
                assert (await stream.read(5)).HasField("heartbeat")

    async def test_whoever_comes_late_reads_in_pieces(self, school: School, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tailing.streams, "ROWS_AT_ONCE", 3)
        entity_id = str(uuid4())
        events = told(school, 20, entity_id)
        await deliver(school, *events)
        await asyncio.sleep(1.2)
        async with watching(school.auditor, entity_id=entity_id, after_id=events[0].id) as stream:
            assert await stream.until(19) == [one.id for one in events[1:]]

    async def test_an_entry_unknown_or_of_others_is_not_found(self, school: School) -> None:
        one = event(school.outsider_admin.tenant_id)
        await deliver(school, one)
        for entry_id in (one.id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND"), watching(school.auditor, after_id=entry_id):
                pass

    async def test_tells_nothing_of_another_tenant(self, school: School) -> None:
        entity_id = str(uuid4())
        async with watching(school.outsider_admin, entity_id=entity_id) as theirs:
            async with watching(school.auditor, entity_id=entity_id) as ours:
                await deliver(school, *told(school, 1, entity_id))
                await ours.until(1)
            await theirs.read()
            await theirs.read()
            assert theirs.ids == []

    async def test_is_recorded_once_with_its_filters(self, school: School) -> None:
        entity_id = str(uuid4())
        async with watching(school.auditor, entity_id=entity_id):
            pass
        await school.settle()
        found = await listed(school.auditor, action="watch_audit_log", page_size=100)
        (entry,) = [one for one in found if dict(one.new_values).get("entity_id") == entity_id]
        assert (entry.entity_id, entry.user_id) == (str(NIL), school.auditor.user_id)


class TestRights:
    async def test_refuses_who_is_no_auditor(self, school: School) -> None:
        for person in (school.student, school.teacher):
            async with refused("PERMISSION_REQUIRED"), watching(person):
                pass

    @pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
    async def test_a_revoked_auditor_hears_nothing_within_two_seconds(self, school: School, busy: bool) -> None:
        person = await add_person(school.admin, school.slug, f"auditor{uuid4().hex[:8]}", "auditor")
        async with watching(person) as stream:
            users = school.admin.stub(UserServiceStub, "identity")
            await users.SetUserRoles(SetUserRolesRequest(id=person.user_id, role_ids=[]))
            began = time.monotonic()
            more = asyncio.create_task(self._keep_busy(school)) if busy else None
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while True:
                    await stream.read()
            if more:
                more.cancel()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert time.monotonic() - began < 2

    async def _keep_busy(self, school: School) -> None:
        while True:
            await deliver(school, *told(school, 3, str(uuid4())))
            await asyncio.sleep(0.05)

    async def test_ends_with_the_session(self, school: School) -> None:
        person = await add_person(school.admin, school.slug, f"auditor{uuid4().hex[:8]}", "auditor")
        async with watching(person) as stream:
            await person.stub(SessionServiceStub, "identity").DeleteSession(DeleteSessionRequest())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while True:
                    await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    async def test_ends_with_the_suspension_of_the_tenant(self, school: School) -> None:
        tenants = school.root.stub(TenantServiceStub, "identity")
        async with watching(school.outsider_admin) as stream:
            await tenants.SuspendTenant(SuspendTenantRequest(id=school.outsider_admin.tenant_id))
            try:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    while True:
                        await stream.read()
            finally:
                await tenants.ResumeTenant(ResumeTenantRequest(id=school.outsider_admin.tenant_id))
        assert caught.value.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


class TestBounds:
    async def test_a_tenant_has_so_many_streams_and_no_more(
        self, school: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tailing, "MOST_OF_A_TENANT", 2)
        await asyncio.sleep(0.3)
        async with watching(school.auditor), watching(school.auditor) as second:
            async with refused("OVERLOADED"), watching(school.auditor):
                pass
            async with watching(school.outsider_admin):
                pass
            second.call.cancel()
            await asyncio.sleep(0.3)
            async with watching(school.auditor):
                pass

    async def test_many_streams_read_a_new_entry_once(self, school: School, monkeypatch: pytest.MonkeyPatch) -> None:
        reads: list[tuple[int, int]] = []
        real = tailing.streams.list_places

        async def counted(session: Any, start: int, end: int) -> Any:
            reads.append((start, end))
            return await real(session, start, end)

        monkeypatch.setattr(tailing.streams, "list_places", counted)
        entity_id = str(uuid4())
        async with (
            watching(school.auditor, entity_id=entity_id) as first,
            watching(school.admin, entity_id=entity_id) as second,
            watching(school.auditor, entity_id=entity_id) as third,
        ):
            await school.settle()
            await asyncio.sleep(1.5)
            reads.clear()
            await deliver(school, *told(school, 1, entity_id))
            for stream in (first, second, third):
                await stream.until(1)
        assert len(reads) == 1

    async def test_the_memory_of_entries_is_short(self, school: School) -> None:
        service = next(one for one in school.stack.services["audit"]._servicers if hasattr(one, "tails"))
        async with watching(school.auditor) as stream:
            await deliver(school, *told(school, 3, str(uuid4())))
            await stream.until(3)
            await asyncio.sleep(1.6)
            watched = service.tails._logs[UUID(school.auditor.tenant_id)]
            assert not watched.recent


class TestShutdown:
    async def test_streams_end_without_an_error(self, school: School) -> None:
        async with watching(school.auditor) as stream:
            await school.stack.stop_service("audit")
            try:
                async with asyncio.timeout(5):
                    while (await stream.call.read()) is not grpc.aio.EOF:
                        pass
            finally:
                await school.stack.start_service("audit")
        assert await stream.call.code() is grpc.StatusCode.OK
