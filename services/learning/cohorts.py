"""Classes of learners."""

from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.learning import rules
from services.learning.enrolling import Registry, enroll
from services.learning.models import Cohort, Enrollment
from services.learning.queries import cohorts as queries
from storyloom.learning.v1 import cohorts_pb2
from storyloom.learning.v1.cohorts_pb2 import Cohort as CohortMessage

WRITABLE = ("name", "description")


class CohortService:
    SERVICE = cohorts_pb2.DESCRIPTOR.services_by_name["CohortService"]

    def __init__(self, db: Database, registry: Registry) -> None:
        self.db, self._registry = db, registry

    async def CreateCohort(self, request: cohorts_pb2.CreateCohortRequest, context: Any) -> CohortMessage:
        wanted = request.cohort
        cohort = Cohort(name=wanted.name.strip(), description=wanted.description, author_id=current().subject)
        require("create", cohort)
        async with self.db.write() as session:
            session.add(cohort)
            return await _record(session, Action.CREATE, cohort)

    async def GetCohort(self, request: cohorts_pb2.GetCohortRequest, context: Any) -> CohortMessage:
        async with self.db.read() as session:
            row = await queries.get_cohort(session, UUID(request.id))
        require("read", row, resource="cohort")
        return cohort_to_proto(row, row.member_count)

    async def ListCohorts(
        self, request: cohorts_pb2.ListCohortsRequest, context: Any
    ) -> cohorts_pb2.ListCohortsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await queries.list_cohorts(session, page, user_id=request.user_id)
        rows, token = page.split(rows, key=lambda row: (row.id,))
        cohorts = [cohort_to_proto(row, row.member_count) for row in rows]
        return cohorts_pb2.ListCohortsResponse(cohorts=cohorts, next_page_token=token)

    async def UpdateCohort(self, request: cohorts_pb2.UpdateCohortRequest, context: Any) -> CohortMessage:
        async with self.db.write() as session:
            cohort = await _get(session, "update", request.cohort)
            fieldmask.apply(cohort, request.cohort, request.update_mask, WRITABLE, {"name": str.strip})
            return await _record(session, Action.UPDATE, cohort)

    async def DeleteCohort(self, request: cohorts_pb2.DeleteCohortRequest, context: Any) -> CohortMessage:
        async with self.db.write() as session:
            cohort = await _get(session, "delete", request)
            cohort.deleted_at = now()
            return await _record(session, Action.DELETE, cohort)

    async def UndeleteCohort(self, request: cohorts_pb2.UndeleteCohortRequest, context: Any) -> CohortMessage:
        async with self.db.write() as session:
            cohort = await _get(session, "undelete", request, deleted=True)
            rules.check_deleted(cohort.deleted_at)
            cohort.deleted_at = None
            return await _record(session, Action.UNDELETE, cohort)

    async def AddCohortMembers(self, request: cohorts_pb2.AddCohortMembersRequest, context: Any) -> CohortMessage:
        user_ids = list(map(UUID, request.user_ids))
        async with self.db.read() as session:
            row = await queries.get_cohort(session, UUID(request.id))
        require("update", row, resource="cohort")
        await self._registry.check_users(user_ids)
        async with self.db.write() as session:
            cohort = await _get(session, "update", request)
            joined = await queries.insert_members(session, cohort.id, user_ids)
            count = await queries.count_members(session, cohort.id)
            rules.check_size(count)
            return await _changed(session, cohort, count, joined=joined)

    async def RemoveCohortMembers(
        self, request: cohorts_pb2.RemoveCohortMembersRequest, context: Any
    ) -> CohortMessage:
        async with self.db.write() as session:
            cohort = await _get(session, "update", request)
            left = await queries.end_members(session, cohort.id, list(map(UUID, request.user_ids)))
            return await _changed(session, cohort, await queries.count_members(session, cohort.id), left=left)

    async def ListCohortMembers(
        self, request: cohorts_pb2.ListCohortMembersRequest, context: Any
    ) -> cohorts_pb2.ListCohortMembersResponse:
        page, cohort_id = Page.of(request), UUID(request.cohort_id)
        async with self.db.read() as session:
            require("read", await queries.get_cohort(session, cohort_id), resource="cohort")
            rows = await queries.list_members(session, page, cohort_id, left=request.show_left)
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return cohorts_pb2.ListCohortMembersResponse(members=map(_member_to_proto, rows), next_page_token=token)

    async def EnrollCohort(
        self, request: cohorts_pb2.EnrollCohortRequest, context: Any
    ) -> cohorts_pb2.EnrollCohortResponse:
        course_id = UUID(request.course_id)
        async with self.db.read() as session:
            cohort = await queries.get_cohort(session, UUID(request.id))
            require("read", cohort, resource="cohort")
            user_ids = await queries.list_member_ids(session, cohort.id)
        for user_id in user_ids:
            require("create", Enrollment(course_id=course_id, user_id=user_id))
        await self._registry.check_course(course_id, "course_id")
        there = await self._registry.existing(user_ids)
        async with self.db.write() as session:
            locked = await _get(session, "read", request)
            members = there.intersection(await queries.list_member_ids(session, locked.id))
            enrolled = await enroll(session, course_id, members)
        return cohorts_pb2.EnrollCohortResponse(enrolled_count=enrolled, present_count=len(members) - enrolled)


async def _get(session: WriteSession, action: str, request: Any, *, deleted: bool = False) -> Cohort:
    """The cohort of the request's id and etag, for the caller to change."""
    cohort = await queries.get_cohort_to_change(session, UUID(request.id), deleted=deleted)
    require(action, cohort)
    check_etag(cohort, request.etag)
    return cohort


async def _record(session: WriteSession, action: Action, cohort: Cohort) -> CohortMessage:
    """Audits and writes the change; returns the cohort as it is now."""
    audit.record(session, action, cohort)
    await session.flush()
    return cohort_to_proto(cohort, await queries.count_members(session, cohort.id))


async def _changed(session: WriteSession, cohort: Cohort, count: int, **users: list[UUID]) -> CohortMessage:
    """The same of a change of members; none is no change."""
    for verb, user_ids in users.items():
        if user_ids:
            cohort.updated_at = now()
            action = {"joined": "add_members", "left": "remove_members"}[verb]
            audit.write(session, action, "cohort", cohort.id, new={verb: sorted(map(str, user_ids))})
    await session.flush()
    return cohort_to_proto(cohort, count)


def cohort_to_proto(row: Any, member_count: int) -> CohortMessage:
    """Of the entity, or of a row of its columns."""
    message = CohortMessage(
        id=str(row.id),
        name=row.name,
        description=row.description,
        author_id=str(row.author_id),
        member_count=member_count,
        etag=str(row.revision),
    )
    set_times(message, row)
    return message


def _member_to_proto(row: Any) -> cohorts_pb2.CohortMember:
    message = cohorts_pb2.CohortMember(user_id=str(row.user_id))
    message.join_time.FromDatetime(row.created_at)
    if row.leave_time:
        message.leave_time.FromDatetime(row.leave_time)
    return message
