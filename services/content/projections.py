"""What other services' events leave here: who takes which course, the tenant's settings, approvals of versions."""

from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert

from kit import audit
from kit.db import WriteSession
from kit.errors import NotFound
from kit.models import now
from services.content.announcements import LESSON, STORY_VERSION, announce_edited
from services.content.models import CourseAccess, TenantSettings
from services.content.queries import lessons, story_versions
from services.content.versioning import lesson_hash
from storyloom.audit.v1.approvals_pb2 import ApprovalState
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.event.v1.events_pb2 import Event
from storyloom.identity.v1.events_pb2 import TenantChanged
from storyloom.learning.v1.events_pb2 import EnrollmentChanged


async def on_enrollment_changed(session: WriteSession, event: Event, payload: EnrollmentChanged) -> None:
    """Keeps whether the enrolment opens its course to its user."""
    await _keep(
        session,
        CourseAccess,
        UUID(payload.enrollment_id),
        user_id=UUID(payload.user_id),
        course_id=UUID(payload.course_id),
        active=payload.active,
    )


async def on_tenant_changed(session: WriteSession, event: Event, payload: TenantChanged) -> None:
    """Keeps the tenant's settings."""
    settings = payload.settings
    await _keep(
        session,
        TenantSettings,
        session.tenant_id,
        story_language=settings.story_language,
        learning_language=settings.learning_language,
        approval_required=settings.approval_required,
    )


async def on_approval_decided(session: WriteSession, event: Event, payload: ApprovalDecided) -> None:
    """Binds an approval that was granted to what it is of, if that still says what was approved. If not, the edit and
    the decision met on their ways, and audit is told once more that the approval is void."""
    bind = {STORY_VERSION: _bind_to_version, LESSON: _bind_to_lesson}.get(payload.entity_type)
    if bind is not None and payload.state == ApprovalState.APPROVAL_STATE_APPROVED:
        await bind(session, UUID(payload.entity_id), UUID(payload.approval_id), payload.content_hash)


async def _bind_to_version(session: WriteSession, version_id: UUID, approval_id: UUID, content_hash: str) -> None:
    version = await story_versions.lock_to_approve(session, version_id)
    if version is None or version.content_hash != content_hash:
        return
    if version.deleted_at is not None or version.current_version_id != version_id:
        used = version.published_version_id == version_id
        announce_edited(session, STORY_VERSION, version_id, content_hash, used=used)
        return
    await story_versions.bind_approval(session, version_id, approval_id, content_hash)
    approved = {"approval_id": approval_id, "approved_hash": content_hash}
    audit.write(session, "approve", STORY_VERSION, version_id, new=approved)


async def _bind_to_lesson(session: WriteSession, lesson_id: UUID, approval_id: UUID, content_hash: str) -> None:
    try:
        lesson, _ = await lessons.lock_lesson(session, lesson_id, deleted=True)
    except NotFound:
        return
    if lesson.deleted_at is not None or lesson_hash(lesson) != content_hash:
        announce_edited(session, LESSON, lesson_id, content_hash, used=False)
        return
    lesson.approval_id, lesson.approved_hash = approval_id, content_hash
    audit.record(session, "approve", lesson)


async def _keep(session: WriteSession, model: Any, row_id: UUID, **values: Any) -> None:
    """The row with these values, whatever was there before."""
    statement = insert(model).values(tenant_id=session.tenant_id, id=row_id, **values)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_=values | {"updated_at": now()})
    )
