"""How far learners have come in their lessons."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import denied, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, ReadSession, WriteSession
from kit.enums import stored_name
from kit.errors import Aborted, NotFound
from kit.models import now
from kit.pagination import Page
from services.learning import rules
from services.learning.models import Progress
from services.learning.projections import LessonIndex
from services.learning.queries import progress as queries
from services.learning.queries.enrollments import is_enrolled
from services.learning.queries.learners import lock_learner
from storyloom.learning.v1 import progress_pb2
from storyloom.learning.v1.progress_pb2 import Progress as ProgressMessage
from storyloom.learning.v1.progress_pb2 import ProgressStatus
from storyloom.type.v1.errors_pb2 import ErrorReason

WRITABLE = ("status", "position_percent")
# What an audit entry names; that a lesson was viewed once more is no change.
CHANGES = ("status", "position_percent", "start_time", "complete_time")


class ProgressService:
    SERVICE = progress_pb2.DESCRIPTOR.services_by_name["ProgressService"]

    def __init__(self, db: Database, index: LessonIndex) -> None:
        self.db, self._index = db, index

    async def UpdateProgress(self, request: progress_pb2.UpdateProgressRequest, context: Any) -> ProgressMessage:
        told = fieldmask.changes(request.progress, request.update_mask, WRITABLE)
        lesson_id = UUID(request.progress.lesson_id)
        await self._index.ensure(lesson_id)
        async with self.db.write() as session:
            standing = await queries.get_standing(session, current().subject, lesson_id)
            require("update", standing, resource="progress", known=taken_lessons(standing))
            rules.check_open(published=standing.published, enrolled=standing.enrolled)
            rules.check_prerequisites(standing.missing, standing.status)
            _check_etag(standing, request.progress.etag)
            recorded = await _advance(session, standing, told, request.progress.etag)
        return progress_to_proto(recorded)

    async def OverrideProgress(self, request: progress_pb2.OverrideProgressRequest, context: Any) -> ProgressMessage:
        lesson_id = UUID(request.lesson_id)
        await self._index.ensure(lesson_id)
        async with self.db.write() as session:
            change = await lock_learner(session, UUID(request.user_id))
            standing = await queries.get_standing(session, UUID(request.user_id), lesson_id)
            require("override", standing, resource="progress")
            rules.check_member(enrolled=standing.enrolled, recorded=standing.id is not None)
            rules.check_open(published=standing.published, enrolled=True)
            _check_etag(standing, request.etag)
            recorded = standing.status, standing.position_percent
            status, percent = rules.override(recorded, stored_name(ProgressStatus, request.status))
            row = await queries.override_progress(session, standing, status, percent, at=now(), change=change)
            _record_override(session, row, request.reason.strip())
        return progress_to_proto(row)

    async def GetProgress(self, request: progress_pb2.GetProgressRequest, context: Any) -> ProgressMessage:
        lesson_id = UUID(request.lesson_id)
        await self._index.ensure(lesson_id)
        async with self.db.read() as session:
            standing = await queries.get_standing(session, current().subject, lesson_id)
        require("read", standing, resource="progress")
        if standing.id is None and not standing.enrolled:
            raise denied("progress", "read")
        return progress_to_proto(standing)

    async def ListProgress(
        self, request: progress_pb2.ListProgressRequest, context: Any
    ) -> progress_pb2.ListProgressResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await queries.list_progress(
                session,
                page,
                course_id=request.course_id,
                user_id=request.user_id,
                status=stored_name(ProgressStatus, request.status),
            )
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return progress_pb2.ListProgressResponse(progress=map(progress_to_proto, rows), next_page_token=token)

    async def GetCourseProgress(
        self, request: progress_pb2.GetCourseProgressRequest, context: Any
    ) -> progress_pb2.CourseProgress:
        course_id = UUID(request.course_id)
        user_id = UUID(request.user_id) if request.user_id else current().subject
        require("read", Progress(user_id=user_id, course_id=course_id))
        async with self.db.read() as session:
            if not await is_enrolled(session, user_id, course_id, ever=True):
                raise NotFound("enrollment")
            units = await queries.list_unit_progress(session, user_id, course_id)
        return _course_progress(user_id, course_id, units)


async def _advance(session: WriteSession, standing: Any, told: dict[str, Any], etag: str) -> Any:
    """Writes down what the report brings; what is recorded already stays as it is."""
    at = now()
    recorded = standing.status, standing.position_percent
    report = (
        stored_name(ProgressStatus, told.get("status", ProgressStatus.PROGRESS_STATUS_UNSPECIFIED)),
        told.get("position_percent", 0),
    )
    if recorded == rules.advance(recorded, report) and not rules.is_view_due(standing.last_view_time, at):
        return standing
    # Not what was recorded when it was read: a teacher may have set it back since.
    status, percent = rules.advance(rules.NOTHING, report)
    row = await queries.upsert_progress(session, standing, status, percent, at=at, etag=etag)
    _record(session, row)
    return row


def _record(session: WriteSession, row: Any) -> None:
    if row.old_status is None:
        new = {name: getattr(row, name) for name in ("user_id", "lesson_id", "course_id", *CHANGES)}
        audit.write(session, Action.CREATE, "progress", row.id, new=new)
        return
    old = {name: getattr(row, f"old_{name}") for name in CHANGES}
    old = {name: value for name, value in old.items() if value != getattr(row, name)}
    if old:
        audit.write(session, Action.UPDATE, "progress", row.id, old=old, new={name: getattr(row, name) for name in old})


def _record_override(session: WriteSession, row: Any, reason: str) -> None:
    """Tells what the progress was and is, and why, whether or not that changes anything."""
    old = {name: getattr(row, f"old_{name}") for name in CHANGES} if row.old_status else {}
    new = {name: getattr(row, name) for name in ("user_id", "lesson_id", "course_id", *CHANGES)}
    audit.write(
        session,
        "override",
        "progress",
        row.id,
        old=old or None,
        new=new | {"reason": reason},
        sensitive=("reason",),
        subject_id=row.user_id,
    )


def taken_lessons(standing: Any) -> dict[str, Any]:
    """The caller attribute of this name in `policies`, as far as the one lesson goes."""
    return {"user.lesson_ids": (standing.lesson_id,) if standing.enrolled else ()}


async def lessons_taken(session: ReadSession, user_id: UUID, row: Any) -> dict[str, Any]:
    """The same of any user and a recorded progress or session."""
    try:
        return taken_lessons(await queries.get_standing(session, user_id, row.lesson_id))
    except NotFound:
        return {}


def progress_to_proto(row: Any) -> ProgressMessage:
    """`row` may be a standing without a record: revision 0 and no times."""
    message = ProgressMessage(
        lesson_id=str(row.lesson_id),
        course_id=str(row.course_id),
        user_id=str(row.user_id),
        status=f"PROGRESS_STATUS_{row.status.upper()}",
        position_percent=row.position_percent,
        etag=str(row.revision or ""),
    )
    for field, value in (
        (message.start_time, row.start_time),
        (message.last_view_time, row.last_view_time),
        (message.complete_time, row.complete_time),
        (message.create_time, row.created_at),
        (message.update_time, row.updated_at),
    ):
        if value is not None:
            field.FromDatetime(value)
    return message


def _course_progress(user_id: UUID, course_id: UUID, units: Sequence[Any]) -> progress_pb2.CourseProgress:
    lessons = sum(unit.lesson_count for unit in units)
    completed = sum(unit.completed_count for unit in units)
    message = progress_pb2.CourseProgress(
        course_id=str(course_id),
        user_id=str(user_id),
        lesson_count=lessons,
        in_progress_count=sum(unit.in_progress_count for unit in units),
        completed_count=completed,
        completed_percent=rules.percent_of(completed, lessons),
    )
    views = [unit.last_view_time for unit in units if unit.last_view_time]
    if views:
        message.last_view_time.FromDatetime(max(views))
    for unit in units:
        message.units.add(
            unit_id=str(unit.unit_id),
            lesson_count=unit.lesson_count,
            in_progress_count=unit.in_progress_count,
            completed_count=unit.completed_count,
        )
    return message


def _check_etag(standing: Any, etag: str) -> None:
    if etag and etag != str(standing.revision):
        raise Aborted("The progress was changed meanwhile; read it again.", reason=ErrorReason.STALE_ETAG)
