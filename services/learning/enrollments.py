"""Who takes which course."""

from typing import Any
from uuid import UUID

from kit import audit, outbox
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.errors import FailedPrecondition, NotFound, PermissionDenied
from kit.models import check_etag, now
from kit.pagination import Page
from services.learning import queries, rules
from services.learning.models import Enrollment
from storyloom.content.v1.courses_pb2 import CourseStatus, GetCourseRequest
from storyloom.identity.v1.access_pb2 import GetUserSummariesRequest
from storyloom.learning.v1 import enrollments_pb2
from storyloom.learning.v1.enrollments_pb2 import Enrollment as EnrollmentMessage
from storyloom.learning.v1.enrollments_pb2 import EnrollmentState
from storyloom.learning.v1.events_pb2 import EnrollmentChanged
from storyloom.type.v1.errors_pb2 import ErrorReason


class EnrollmentService:
    SERVICE = enrollments_pb2.DESCRIPTOR.services_by_name["EnrollmentService"]

    def __init__(self, db: Database, *, courses: Any, access: Any) -> None:
        self.db, self._courses, self._access = db, courses, access

    async def CreateEnrollment(
        self, request: enrollments_pb2.CreateEnrollmentRequest, context: Any
    ) -> EnrollmentMessage:
        wanted = request.enrollment
        enrollment = Enrollment(course_id=UUID(wanted.course_id), user_id=UUID(wanted.user_id))
        require("create", enrollment)
        await self._check_course(enrollment.course_id)
        await self._check_user(enrollment.user_id)
        async with self.db.write() as session:
            session.add(enrollment)
            audit.record(session, Action.CREATE, enrollment)
            _publish(session, enrollment)
        return enrollment_to_proto(enrollment)

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
                state=_stored_state(request.state),
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
            _publish(session, enrollment)
        return enrollment_to_proto(enrollment)

    async def CheckEnrollment(
        self, request: enrollments_pb2.CheckEnrollmentRequest, context: Any
    ) -> enrollments_pb2.CheckEnrollmentResponse:
        async with self.db.read(UUID(request.tenant_id)) as session:
            active = await queries.is_enrolled(session, UUID(request.user_id), UUID(request.course_id))
        return enrollments_pb2.CheckEnrollmentResponse(active=active)

    async def _check_course(self, course_id: UUID) -> None:
        try:
            course = await self._courses.GetCourse(GetCourseRequest(id=str(course_id)))
        except (NotFound, PermissionDenied) as error:
            raise _missing("course") from error
        if course.status != CourseStatus.COURSE_STATUS_PUBLISHED:
            state = CourseStatus.Name(course.status).removeprefix("COURSE_STATUS_").lower()
            raise FailedPrecondition("The course takes no enrolments.", metadata={"state": state})

    async def _check_user(self, user_id: UUID) -> None:
        request = GetUserSummariesRequest(tenant_id=str(current().tenant_id), ids=[str(user_id)])
        answer = await self._access.GetUserSummaries(request)
        if not answer.users[0].exists:
            raise _missing("user")


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


def _publish(session: WriteSession, enrollment: Enrollment) -> None:
    changed = EnrollmentChanged(
        enrollment_id=str(enrollment.id),
        course_id=str(enrollment.course_id),
        user_id=str(enrollment.user_id),
        active=enrollment.state == "active",
    )
    outbox.publish(session, "enrollment", enrollment.id, changed)


def _missing(resource: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"There is no such {resource}.",
        reason=ErrorReason.REFERENCE_NOT_FOUND,
        metadata={"field": f"enrollment.{resource}_id"},
    )


def _stored_state(state: EnrollmentState) -> str:
    return EnrollmentState.Name(state).removeprefix("ENROLLMENT_STATE_").lower() if state else ""
