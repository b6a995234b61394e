"""What other services' events leave here: who takes which course, the tenant's settings, approvals of versions."""

from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert

from kit import audit
from kit.db import WriteSession
from kit.models import now
from services.content.announcements import STORY_VERSION
from services.content.models import CourseAccess, StoryVersion, TenantSettings
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
    """Binds an approval that was granted to the version, if its content is what was approved."""
    if payload.entity_type != STORY_VERSION or payload.state != ApprovalState.APPROVAL_STATE_APPROVED:
        return
    approved = {"approval_id": UUID(payload.approval_id), "approved_hash": payload.content_hash}
    statement = (
        update(StoryVersion)
        .where(
            StoryVersion.tenant_id == session.tenant_id,
            StoryVersion.id == UUID(payload.entity_id),
            StoryVersion.content_hash == payload.content_hash,
        )
        .values(approved)
        .returning(StoryVersion.id)
        .execution_options(synchronize_session=False)
    )
    for (version_id,) in await session.execute(statement):
        audit.write(session, "approve", STORY_VERSION, version_id, new=approved)


async def _keep(session: WriteSession, model: Any, row_id: UUID, **values: Any) -> None:
    """The row with these values, whatever was there before."""
    statement = insert(model).values(tenant_id=session.tenant_id, id=row_id, **values)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_=values | {"updated_at": now()})
    )
