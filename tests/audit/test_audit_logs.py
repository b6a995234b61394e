"""The audit log as its readers see it, fed by the events of real services."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from google.protobuf.json_format import MessageToDict

from kit.ids import NIL, new_id
from storyloom.audit.v1.audit_logs_pb2 import AuditLog, GetAuditLogRequest, ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1.stories_pb2 import CreateStoryRequest, Story
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.event.v1.events_pb2 import DeliverEventsRequest, DeliveryStatus, Event
from storyloom.event.v1.events_pb2_grpc import EventInboxServiceStub
from tests.stack import Person, School, refused


def event(tenant_id: str, *, event_id: UUID | None = None, at: datetime | None = None, **change: Any) -> Event:
    """One change, as a service's relay sends it."""
    values: dict[str, Any] = {"action": "update", "entity_type": "story", "entity_id": str(uuid4())} | change
    made = Event(
        id=str(event_id or new_id()),
        tenant_id=tenant_id,
        aggregate_type=values["entity_type"],
        aggregate_id=values["entity_id"],
    )
    made.occur_time.FromDatetime(at or datetime.now(UTC))
    made.payload.Pack(ChangeRecorded(**values))
    return made


async def deliver(school: School, *events: Event) -> list[DeliveryStatus]:
    inbox = school.stack.services["content"].clients.stub(EventInboxServiceStub, "audit")
    response = await inbox.DeliverEvents(DeliverEventsRequest(events=events))
    return [result.status for result in response.results]


async def listed(person: Person, **filters: Any) -> list[AuditLog]:
    stub = person.stub(AuditLogServiceStub, "audit")
    return list((await stub.ListAuditLogs(ListAuditLogsRequest(**filters))).audit_logs)


async def got(person: Person, entry_id: str) -> AuditLog:
    return await person.stub(AuditLogServiceStub, "audit").GetAuditLog(GetAuditLogRequest(id=entry_id))


@asynccontextmanager
async def database(school: School) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    try:
        yield connection
    finally:
        await connection.close()


async def leaf_of(school: School, entry_id: str) -> bytes:
    async with database(school) as superuser:
        leaf: bytes = await superuser.fetchval("SELECT leaf FROM audit.audit_logs WHERE id = $1", UUID(entry_id))
    return leaf


def id_of(at: datetime) -> UUID:
    """A UUIDv7 of that time."""
    return UUID(int=int(at.timestamp() * 1000) << 80 | new_id().int & (1 << 80) - 1)


class TestRecording:
    async def test_a_change_is_recorded_with_who_did_what_by_which_call(self, school: School) -> None:
        stories = school.teacher.stub(StoryServiceStub, "content")
        story = Story(title="Buổi sáng ở chợ", language="vi", learning_language="en", text="Mẹ đi chợ từ sớm.")
        request_id = f"request-{uuid4()}"
        story = await stories.CreateStory(
            CreateStoryRequest(story=story), metadata=(("x-request-id", request_id),)
        )
        await school.settle()
        (entry,) = await listed(school.auditor, entity_type="story", entity_id=story.id)
        assert (entry.action, entry.user_id, entry.request_id) == ("create", school.teacher.user_id, request_id)
        assert entry.rpc == "/storyloom.content.v1.StoryService/CreateStory"
        assert entry.new_values["title"] == "Buổi sáng ở chợ"
        assert not entry.HasField("old_values")
        assert (entry.acting_tenant_id, entry.service) == ("", "")
        assert timedelta() <= entry.record_time.ToDatetime() - entry.occur_time.ToDatetime() < timedelta(minutes=1)

    async def test_an_event_delivered_twice_is_one_entry(self, school: School) -> None:
        one = event(school.auditor.tenant_id)
        assert await deliver(school, one, one) == [DeliveryStatus.DELIVERY_STATUS_HANDLED] * 2
        assert await deliver(school, one) == [DeliveryStatus.DELIVERY_STATUS_HANDLED]
        assert [entry.id for entry in await listed(school.auditor, entity_id=one.aggregate_id)] == [one.id]

    async def test_an_entry_stays_as_it_was_first_recorded_even_when_the_inbox_forgot_it(self, school: School) -> None:
        first = event(school.auditor.tenant_id, action="publish")
        await deliver(school, first)
        async with database(school) as superuser:
            await superuser.execute("DELETE FROM audit.inbox WHERE event_id = $1", UUID(first.id))
        forged = event(school.auditor.tenant_id, event_id=UUID(first.id), action="archive")
        await deliver(school, forged)
        assert (await got(school.auditor, first.id)).action == "publish"

    async def test_what_is_kept_are_the_bytes_that_proofs_are_made_of(self, school: School) -> None:
        one = event(
            school.auditor.tenant_id,
            at=datetime(2026, 11, 20, 8, tzinfo=UTC),
            old_values='{"b":  1,\n"a": "chợ"}',
            new_values='{"a": "\\u0000", "b": 1.10}',
        )
        await deliver(school, one)
        assert (await leaf_of(school, one.id)).decode() == (
            f'{{"acting_tenant_id":null,"action":"update","client_address":null,"entity_id":"{one.aggregate_id}",'
            f'"entity_type":"story","id":"{one.id}","new_values":{{"a":"\\u0000","b":1.1}},'
            '"occur_time":"2026-11-20T08:00:00.000000Z","old_values":{"a":"chợ","b":1},"request_id":null,"rpc":null,'
            f'"service":null,"tenant_id":"{one.tenant_id}","trace_id":null,"user_id":null,"v":1}}'
        )

    async def test_an_entry_delivered_again_keeps_its_bytes_and_is_queued_for_the_tree_once(
        self, school: School
    ) -> None:
        values = {"new_values": '{"email":"lan@x.example"}', "sensitive_fields": ["email"]}
        one = event(school.auditor.tenant_id, user_id=school.teacher.user_id, **values)
        await deliver(school, one)
        first = await leaf_of(school, one.id)
        async with database(school) as superuser:
            await superuser.execute("DELETE FROM audit.inbox WHERE event_id = $1", UUID(one.id))
            queued = await superuser.fetchval("SELECT max(seq) FROM audit.tree_queue") or 0
            await deliver(school, one)
            rows = "SELECT count(*) FROM audit.tree_queue WHERE id = $1 AND seq > $2"
            assert await superuser.fetchval(rows, UUID(one.id), queued) == 0
        assert await leaf_of(school, one.id) == first

    async def test_one_bad_event_holds_back_no_other(self, school: School) -> None:
        bad = event(school.auditor.tenant_id)
        bad.payload.Pack(ChangeRecorded(action="update", entity_type="story", entity_id="not an id"))
        good = event(school.auditor.tenant_id)
        failed, handled = await deliver(school, bad, good)
        assert failed == DeliveryStatus.DELIVERY_STATUS_FAILED
        assert handled == DeliveryStatus.DELIVERY_STATUS_HANDLED
        assert len(await listed(school.auditor, entity_id=good.aggregate_id)) == 1

    async def test_denials_are_entries(self, school: School) -> None:
        request_id = f"request-{uuid4()}"
        stub = school.student.stub(AuditLogServiceStub, "audit")
        async with refused("PERMISSION_REQUIRED"):
            await stub.ListAuditLogs(ListAuditLogsRequest(), metadata=(("x-request-id", request_id),))
        await school.settle()
        (entry,) = await listed(school.auditor, request_id=request_id)
        assert (entry.action, entry.user_id) == ("deny", school.student.user_id)
        assert entry.rpc == "/storyloom.audit.v1.AuditLogService/ListAuditLogs"
        assert entry.new_values["reason"] == "PERMISSION_REQUIRED"


class TestGetAuditLog:
    async def test_gives_all_that_was_recorded(self, school: School) -> None:
        at = datetime(2026, 11, 20, 8, 30, 0, 123456, tzinfo=UTC)
        change = {
            "action": "publish",
            "entity_type": "course",
            "entity_id": str(uuid4()),
            "user_id": school.teacher.user_id,
            "acting_tenant_id": str(uuid4()),
            "service": "content",
            "request_id": "r-1",
            "trace_id": "0123456789abcdef" * 2,
            "rpc": "/storyloom.content.v1.CourseService/PublishCourse",
            "client_address": "192.0.2.7",
        }
        old, new = '{"title": null, "levels": [1, {"a": true}]}', "{}"
        one = event(school.auditor.tenant_id, at=at, old_values=old, new_values=new, **change)
        await deliver(school, one)
        entry = await got(school.auditor, one.id)
        assert {name: getattr(entry, name) for name in change} == change
        assert entry.id == one.id
        assert entry.occur_time.ToDatetime(tzinfo=UTC) == at
        assert MessageToDict(entry.old_values) == {"title": None, "levels": [1.0, {"a": True}]}
        assert entry.HasField("new_values")
        assert not entry.new_values.fields

    @pytest.mark.parametrize(
        ("stored", "shown"),
        [("NaN", "NaN"), ("-Infinity", "-Infinity"), ("1e3", 1000.0), (str(2**70), float(2**70)), ("-0", 0.0)],
    )
    async def test_shows_numbers_that_json_cannot_carry_as_text(self, school: School, stored: str, shown: Any) -> None:
        one = event(school.auditor.tenant_id, new_values=f'{{"number": {stored}}}')
        await deliver(school, one)
        assert (await got(school.auditor, one.id)).new_values["number"] == shown

    async def test_is_itself_recorded(self, school: School) -> None:
        one = event(school.auditor.tenant_id)
        await deliver(school, one)
        await got(school.auditor, one.id)
        await school.settle()
        (entry,) = await listed(school.auditor, entity_type="audit_log", entity_id=one.id)
        assert (entry.action, entry.user_id) == ("read_audit_log", school.auditor.user_id)

    async def test_does_not_know_the_entries_of_another_tenant(self, school: School) -> None:
        one = event(school.auditor.tenant_id)
        await deliver(school, one)
        async with refused("RESOURCE_NOT_FOUND") as foreign:
            await got(school.outsider_admin, one.id)
        async with refused("RESOURCE_NOT_FOUND") as absent:
            await got(school.outsider_admin, str(uuid4()))
        assert foreign.status == absent.status

    async def test_refuses_who_is_no_auditor(self, school: School) -> None:
        one = event(school.auditor.tenant_id)
        await deliver(school, one)
        for person in (school.student, school.teacher):
            async with refused("PERMISSION_REQUIRED"):
                await got(person, one.id)
        assert (await got(school.admin, one.id)).id == one.id


class TestListAuditLogs:
    @pytest.mark.parametrize(
        ("name", "wanted", "other"),
        [
            ("entity_id", str(uuid4()), str(uuid4())),
            ("user_id", str(uuid4()), str(uuid4())),
            ("action", f"act_{uuid4().hex}", "act"),
            ("entity_type", f"kind_{uuid4().hex}", "kind"),
            ("request_id", f"r-{uuid4()}", "r"),
            ("trace_id", uuid4().hex, uuid4().hex),
        ],
        ids=["entity_id", "user_id", "action", "entity_type", "request_id", "trace_id"],
    )
    async def test_filters_by_each_field(self, school: School, name: str, wanted: str, other: str) -> None:
        tenant_id = school.auditor.tenant_id
        events = [event(tenant_id, **{name: value}) for value in (wanted, other, wanted)]
        await deliver(school, *events)
        found = await listed(school.auditor, **{name: wanted})
        assert [entry.id for entry in found] == [events[2].id, events[0].id]

    async def test_combines_filters(self, school: School) -> None:
        entity_id, tenant_id = str(uuid4()), school.auditor.tenant_id
        wanted = event(tenant_id, entity_id=entity_id, action="publish", user_id=school.teacher.user_id)
        other = event(tenant_id, entity_id=entity_id, action="publish", user_id=school.student.user_id)
        await deliver(school, wanted, other, event(tenant_id, entity_id=entity_id))
        found = await listed(
            school.auditor, entity_id=entity_id, action="publish", user_id=school.teacher.user_id
        )
        assert [entry.id for entry in found] == [wanted.id]

    async def test_takes_the_start_but_not_the_end_of_a_time_range(self, school: School) -> None:
        entity_id = str(uuid4())
        noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
        times = [noon + timedelta(days=days) for days in (-40, -1, 0, 1, 400, 2000)]
        events = [event(school.auditor.tenant_id, entity_id=entity_id, event_id=id_of(at), at=at) for at in times]
        await deliver(school, *events)

        async def found(**bounds: datetime) -> list[int]:
            entries = await listed(school.auditor, entity_id=entity_id, **bounds)
            return sorted(times.index(entry.occur_time.ToDatetime(tzinfo=UTC)) for entry in entries)

        assert await found() == [0, 1, 2, 3, 4, 5]
        assert await found(start_time=noon) == [2, 3, 4, 5]
        assert await found(end_time=noon) == [0, 1]
        assert await found(start_time=times[1], end_time=times[4]) == [1, 2, 3]
        assert await found(start_time=datetime(1970, 1, 1, tzinfo=UTC), end_time=times[0]) == []

    @pytest.mark.parametrize("seconds", [-30, 30])
    async def test_finds_an_entry_whose_id_was_made_by_another_clock(self, school: School, seconds: int) -> None:
        at = datetime(2026, 11, 20, 9, tzinfo=UTC)
        one = event(school.auditor.tenant_id, event_id=id_of(at + timedelta(seconds=seconds)), at=at)
        await deliver(school, one)
        instant = timedelta(microseconds=1)
        found = await listed(school.auditor, entity_id=one.aggregate_id, start_time=at, end_time=at + instant)
        assert [entry.id for entry in found] == [one.id]
        assert await listed(school.auditor, entity_id=one.aggregate_id, start_time=at + instant) == []
        assert await listed(school.auditor, entity_id=one.aggregate_id, end_time=at) == []

    async def test_pages_from_the_newest_to_the_oldest(self, school: School) -> None:
        entity_id = str(uuid4())
        events = [event(school.auditor.tenant_id, entity_id=entity_id) for _ in range(25)]
        await deliver(school, *events)
        stub = school.auditor.stub(AuditLogServiceStub, "audit")
        pages: list[list[str]] = []
        token = ""
        while token or not pages:
            request = ListAuditLogsRequest(entity_id=entity_id, page_size=10, page_token=token)
            response = await stub.ListAuditLogs(request)
            pages.append([entry.id for entry in response.audit_logs])
            token = response.next_page_token
        assert [len(page) for page in pages] == [10, 10, 5]
        assert sum(pages, []) == [one.id for one in reversed(events)]

    @pytest.mark.parametrize("order_by", ["", "occur_time desc", "occur_time"])
    async def test_pages_in_either_order(self, school: School, order_by: str) -> None:
        entity_id = str(uuid4())
        events = [event(school.auditor.tenant_id, entity_id=entity_id) for _ in range(7)]
        await deliver(school, *events)
        stub = school.auditor.stub(AuditLogServiceStub, "audit")
        found: list[str] = []
        token = ""
        while token or not found:
            request = ListAuditLogsRequest(entity_id=entity_id, page_size=3, page_token=token, order_by=order_by)
            response = await stub.ListAuditLogs(request)
            found += [entry.id for entry in response.audit_logs]
            token = response.next_page_token
        ids = [one.id for one in events]
        assert found == (ids if order_by == "occur_time" else ids[::-1])

    async def test_refuses_other_orders(self, school: School) -> None:
        async with refused("INVALID_FIELD", field="order_by"):
            await listed(school.auditor, order_by="action")

    async def test_is_itself_recorded_once_with_its_filters(self, school: School) -> None:
        entity_id, request_id = str(uuid4()), f"request-{uuid4()}"
        stub = school.auditor.stub(AuditLogServiceStub, "audit")
        request = ListAuditLogsRequest(entity_id=entity_id, action="publish", page_size=7)
        await stub.ListAuditLogs(request, metadata=(("x-request-id", request_id),))
        await school.settle()
        (entry,) = await listed(school.auditor, request_id=request_id)
        assert (entry.action, entry.entity_type, entry.entity_id) == ("read_audit_log", "audit_log", str(NIL))
        assert entry.user_id == school.auditor.user_id
        assert MessageToDict(entry.new_values) == {"entity_id": entity_id, "action": "publish"}

    async def test_shows_nothing_of_another_tenant(self, school: School) -> None:
        one = event(school.auditor.tenant_id)
        await deliver(school, one)
        assert await listed(school.outsider_admin, entity_id=one.aggregate_id) == []
        await school.settle()
        own = await listed(school.outsider_admin, page_size=100)
        assert one.id not in [entry.id for entry in own]
        assert {"read_audit_log"} <= {entry.action for entry in own}

    async def test_refuses_who_is_no_auditor(self, school: School) -> None:
        for person in (school.student, school.teacher):
            async with refused("PERMISSION_REQUIRED"):
                await listed(person)

    @pytest.mark.parametrize(
        "wrong",
        [{"entity_id": "1"}, {"user_id": "x"}, {"action": "A b"}, {"trace_id": "f"}, {"page_size": -1}],
        ids=lambda wrong: next(iter(wrong)),
    )
    async def test_refuses_values_that_no_entry_can_have(self, school: School, wrong: dict[str, Any]) -> None:
        async with refused("INVALID_FIELD", field=next(iter(wrong))):
            await listed(school.auditor, **wrong)

    async def test_refuses_a_range_that_ends_before_it_starts(self, school: School) -> None:
        at = datetime(2026, 11, 20, tzinfo=UTC)
        async with refused("INVALID_FIELD"):
            await listed(school.auditor, start_time=at, end_time=at)
