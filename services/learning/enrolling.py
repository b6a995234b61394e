"""How users come into courses, one by one or many at once."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from kit import audit, outbox
from kit.audit import Action
from kit.auth import current
from kit.db import WriteSession
from kit.enums import stored_name
from kit.errors import NotFound, PermissionDenied, reference_not_found, wrong_state
from services.learning.queries import enrollments as queries
from storyloom.content.v1.courses_pb2 import CourseStatus, GetCourseRequest
from storyloom.identity.v1.access_pb2 import GetUserSummariesRequest
from storyloom.learning.v1.events_pb2 import EnrollmentChanged

# As many as identity tells of at once.
USERS_AT_ONCE = 100


class Registry:
    """Knows, from the services that own them, which courses and users there are. Ask it before a transaction begins."""

    def __init__(self, *, courses: Any, access: Any) -> None:
        self._courses, self._access = courses, access

    async def check_course(self, course_id: UUID, field: str) -> None:
        """Refuses unless the caller may see the course and it takes enrolments; `field` names it in the request."""
        try:
            course = await self._courses.GetCourse(GetCourseRequest(id=str(course_id)))
        except (NotFound, PermissionDenied) as error:
            raise reference_not_found("There is no such course.", field=field) from error
        if course.status != CourseStatus.COURSE_STATUS_PUBLISHED:
            state = stored_name(CourseStatus, course.status)
            raise wrong_state("The course takes no enrolments.", state)

    async def check_user(self, user_id: UUID, field: str) -> None:
        if not await self.existing([user_id]):
            raise reference_not_found("There is no such user.", field=field)

    async def check_users(self, user_ids: Sequence[UUID]) -> None:
        """Refuses, naming them, unless there are all of these users in the caller's tenant."""
        there = await self.existing(user_ids)
        if absent := [str(one) for one in user_ids if one not in there]:
            raise reference_not_found("There is no such user.", field="user_ids", ids=",".join(absent))

    async def existing(self, user_ids: Sequence[UUID]) -> set[UUID]:
        found: set[UUID] = set()
        for start in range(0, len(user_ids), USERS_AT_ONCE):
            ids = map(str, user_ids[start : start + USERS_AT_ONCE])
            request = GetUserSummariesRequest(tenant_id=str(current().tenant_id), ids=ids)
            answer = await self._access.GetUserSummaries(request)
            found |= {UUID(one.id) for one in answer.users if one.exists}
        return found


async def enroll(session: WriteSession, course_id: UUID, user_ids: Collection[UUID]) -> int:
    """Enrols those who are not yet; returns how many they were. Each is a change of its own."""
    rows = await queries.insert_enrollments(session, course_id, user_ids)
    for row in rows:
        new = {"course_id": course_id, "user_id": row.user_id, "state": row.state}
        audit.write(session, Action.CREATE, "enrollment", row.id, new=new)
        announce(session, row)
    return len(rows)


def announce(session: WriteSession, enrollment: Any) -> None:
    """Tells what has become of the enrolment."""
    changed = EnrollmentChanged(
        enrollment_id=str(enrollment.id),
        course_id=str(enrollment.course_id),
        user_id=str(enrollment.user_id),
        active=enrollment.state == "active",
    )
    outbox.publish(session, "enrollment", enrollment.id, changed)
