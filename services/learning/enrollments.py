"""Who takes which course."""

from typing import Any
from uuid import UUID

from kit import audit
from kit.access import require
from kit.audit import Action
from kit.db import Database
from kit.enums import stored_name
from kit.models import check_etag, now
from kit.pagination import Page
from services.learning import rules
from services.learning.enrolling import Registry, announce, enroll
from services.learning.models import Enrollment
from services.learning.queries import enrollments as queries
from storyloom.learning.v1 import enrollments_pb2
from storyloom.learning.v1.enrollments_pb2 import Enrollment as EnrollmentMessage
from storyloom.learning.v1.enrollments_pb2 import EnrollmentState


class EnrollmentService:
    SERVICE = enrollments_pb2.DESCRIPTOR.services_by_name["EnrollmentService"]

    def __init__(self, db: Database, registry: Registry) -> None:
        self.db, self._registry = db, registry

    async def CreateEnrollment(
        self, request: enrollments_pb2.CreateEnrollmentRequest, context: Any
    ) -> EnrollmentMessage:
        wanted = request.enrollment
        enrollment = Enrollment(course_id=UUID(wanted.course_id), user_id=UUID(wanted.user_id))
        require("create", enrollment)
        await self._registry.check_course(enrollment.course_id, "enrollment.course_id")
        await self._registry.check_user(enrollment.user_id, "enrollment.user_id")
        async with self.db.write() as session:
            session.add(enrollment)
            audit.record(session, Action.CREATE, enrollment)
            announce(session, enrollment)
        return enrollment_to_proto(enrollment)

    async def BatchCreateEnrollments(
        self, request: enrollments_pb2.BatchCreateEnrollmentsRequest, context: Any
    ) -> enrollments_pb2.BatchCreateEnrollmentsResponse:
        course_id, user_ids = UUID(request.course_id), list(map(UUID, request.user_ids))
        for user_id in user_ids:
            require("create", Enrollment(course_id=course_id, user_id=user_id))
        await self._registry.check_course(course_id, "course_id")
        await self._registry.check_users(user_ids)
        async with self.db.write() as session:
            await enroll(session, course_id, user_ids)
            rows = {row.user_id: row for row in await queries.list_active(session, course_id, user_ids)}
        return enrollments_pb2.BatchCreateEnrollmentsResponse(
            enrollments=[enrollment_to_proto(rows[one]) for one in user_ids if one in rows]
        )

    async def GetEnrollment(self, request: enrollments_pb2.GetEnrollmentRequest, context: Any) -> EnrollmentMessage:
        async with self.db.read() as session:
            row = await queries.get_enrollment(session, UUID(request.id))
        require("read", row, resource="enrollment")
        return enrollment_to_proto(row)

    async def ListEnrollments(
        self, request: enrollments_pb2.ListEnrollmentsRequest, context: Any
    ) -> enrollments_pb2.ListEnrollmentsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await queries.list_enrollments(
                session,
                page,
                course_id=request.course_id,
                user_id=request.user_id,
                state=stored_name(EnrollmentState, request.state),
            )
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return enrollments_pb2.ListEnrollmentsResponse(
            enrollments=map(enrollment_to_proto, rows), next_page_token=token
        )

    async def WithdrawEnrollment(
        self, request: enrollments_pb2.WithdrawEnrollmentRequest, context: Any
    ) -> EnrollmentMessage:
        async with self.db.write() as session:
            enrollment = await queries.get_enrollment_to_change(session, UUID(request.id))
            require("withdraw", enrollment)
            check_etag(enrollment, request.etag)
            rules.check_active(enrollment.state)
            enrollment.state, enrollment.withdraw_time = "withdrawn", now()
            audit.record(session, "withdraw", enrollment)
            announce(session, enrollment)
        return enrollment_to_proto(enrollment)

    async def CheckEnrollment(
        self, request: enrollments_pb2.CheckEnrollmentRequest, context: Any
    ) -> enrollments_pb2.CheckEnrollmentResponse:
        async with self.db.read(UUID(request.tenant_id)) as session:
            active = await queries.is_enrolled(session, UUID(request.user_id), UUID(request.course_id))
        return enrollments_pb2.CheckEnrollmentResponse(active=active)


def enrollment_to_proto(row: Any) -> EnrollmentMessage:
    message = EnrollmentMessage(
        id=str(row.id),
        course_id=str(row.course_id),
        user_id=str(row.user_id),
        state=f"ENROLLMENT_STATE_{row.state.upper()}",
        etag=str(row.revision),
    )
    message.create_time.FromDatetime(row.created_at)
    message.update_time.FromDatetime(row.updated_at)
    if row.withdraw_time:
        message.withdraw_time.FromDatetime(row.withdraw_time)
    return message
