"""ParkedEventService: what services could not tell each other, seen and mended by those who run the platform."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.identity.v1.parked_events_pb2 import (
    GetOutboxStandingsRequest,
    ListParkedEventsRequest,
    ReplayParkedEventsRequest,
)
from storyloom.identity.v1.parked_events_pb2_grpc import ParkedEventServiceStub
from tests.stack import Person, School, refused

PARK = """
INSERT INTO {service}.outbox (event_id, tenant_id, consumer, aggregate_type, aggregate_id, payload_type, payload,
  attempts, parked_at)
SELECT uuidv7(), $1, 'audit', 'course', $2, 'storyloom.event.v1.ChangeRecorded', $3, 8, now() RETURNING event_id
"""


def events(person: Person) -> ParkedEventServiceStub:
    return person.stub(ParkedEventServiceStub, "identity")


@pytest.fixture
async def tables(school: School) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    yield connection
    await connection.execute("DELETE FROM content.outbox; DELETE FROM identity.outbox")
    await connection.close()


async def park(tables: Any, school: School, service: str = "content") -> tuple[UUID, UUID]:
    """A parked event that tells of a change of a course; ids of both."""
    course = uuid4()
    change = ChangeRecorded(action="update", entity_type="course", entity_id=str(course), new_values='{"title": "x"}')
    values = (UUID(school.teacher.tenant_id), course, change.SerializeToString())
    return await tables.fetchval(PARK.replace("{service}", service), *values), course


async def listed(school: School, service: str = "content", **more: Any) -> Any:
    return await events(school.root).ListParkedEvents(ListParkedEventsRequest(service=service, **more))


class TestListParkedEvents:
    @pytest.mark.parametrize("service", ["content", "identity"])
    async def test_shows_what_is_parked_without_what_it_says(
        self, school: School, tables: Any, service: str
    ) -> None:
        event_id, course = await park(tables, school, service)
        shown = await listed(school, service)
        (event,) = shown.parked_events
        assert (event.id, event.aggregate_id, event.consumer) == (str(event_id), str(course), "audit")
        assert (event.tenant_id, event.attempts) == (school.teacher.tenant_id, 8)
        assert b"title" not in shown.SerializeToString()

    async def test_pages(self, school: School, tables: Any) -> None:
        made = [str((await park(tables, school))[0]) for _ in range(3)]
        first = await listed(school, page_size=2)
        second = await listed(school, page_size=2, page_token=first.next_page_token)
        assert [one.id for one in (*first.parked_events, *second.parked_events)] == made
        assert not second.next_page_token

    async def test_narrows_to_a_consumer(self, school: School, tables: Any) -> None:
        await park(tables, school)
        assert not (await listed(school, consumer="learning")).parked_events

    async def test_is_for_super_administrators_of_the_platform_only(self, school: School) -> None:
        for person in (school.admin, school.teacher, school.auditor, school.student):
            async with refused("PERMISSION_REQUIRED"):
                await events(person).ListParkedEvents(ListParkedEventsRequest(service="content"))

    async def test_refuses_a_service_that_there_is_not(self, school: School) -> None:
        async with refused("INVALID_FIELD", field="service"):
            await listed(school, "postgres")


class TestGetOutboxStandings:
    @pytest.mark.parametrize("service", ["content", "identity"])
    async def test_counts_what_waits_for_each_consumer(self, school: School, tables: Any, service: str) -> None:
        await school.settle()
        await park(tables, school, service)
        shown = await events(school.root).GetOutboxStandings(GetOutboxStandingsRequest(service=service))
        (standing,) = shown.standings
        assert (standing.consumer, standing.waiting, standing.parked) == ("audit", 1, 1)
        assert not standing.HasField("oldest_time")

    async def test_is_for_super_administrators_of_the_platform_only(self, school: School) -> None:
        for person in (school.admin, school.teacher, school.auditor, school.student):
            async with refused("PERMISSION_REQUIRED"):
                await events(person).GetOutboxStandings(GetOutboxStandingsRequest(service="content"))


class TestReplayParkedEvents:
    async def entries(self, person: Person, **wanted: str) -> list[Any]:
        await person.stack.settle()
        stub = person.stub(AuditLogServiceStub, "audit")
        return list((await stub.ListAuditLogs(ListAuditLogsRequest(**wanted))).audit_logs)

    @pytest.mark.parametrize("service", ["content", "identity"])
    async def test_has_one_tried_again(self, school: School, tables: Any, service: str) -> None:
        (event_id, course), (other, _) = await park(tables, school, service), await park(tables, school, service)
        request = ReplayParkedEventsRequest(service=service, event_id=str(event_id))
        assert (await events(school.root).ReplayParkedEvents(request)).replayed == 1
        (entry,) = await self.entries(school.auditor, entity_id=str(course))
        assert (entry.id, entry.action) == (str(event_id), "update")
        assert [one.id for one in (await listed(school, service)).parked_events] == [str(other)]

    async def test_has_all_tried_again(self, school: School, tables: Any) -> None:
        made = [await park(tables, school) for _ in range(3)]
        request = ReplayParkedEventsRequest(service="content")
        assert (await events(school.root).ReplayParkedEvents(request)).replayed == 3
        for event_id, course in made:
            assert [one.id for one in await self.entries(school.auditor, entity_id=str(course))] == [str(event_id)]

    async def test_leaves_alone_what_is_not_parked(self, school: School) -> None:
        request = ReplayParkedEventsRequest(service="content", event_id=str(uuid4()))
        assert (await events(school.root).ReplayParkedEvents(request)).replayed == 0

    async def test_is_in_the_log_of_the_platform(self, school: School, tables: Any) -> None:
        event_id, _ = await park(tables, school)
        request = ReplayParkedEventsRequest(service="content", event_id=str(event_id))
        await events(school.root).ReplayParkedEvents(request)
        (entry,) = await self.entries(school.root, entity_type="parked_event", entity_id=str(event_id))
        assert (entry.action, entry.user_id) == ("replay", school.root.user_id)
        assert entry.new_values["service"] == "content"

    async def test_is_for_super_administrators_of_the_platform_only(self, school: School, tables: Any) -> None:
        await park(tables, school)
        for person in (school.admin, school.teacher, school.auditor, school.student):
            async with refused("PERMISSION_REQUIRED"):
                await events(person).ReplayParkedEvents(ReplayParkedEventsRequest(service="content"))
        assert len((await listed(school)).parked_events) == 1
