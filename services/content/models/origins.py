"""Where copies, and what was imported, come from."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow, now
from services.content.models.base import Base
from services.content.models.hierarchy import Course
from services.content.models.stories import Story


class CourseOrigin(TenantRow, Base):
    """What a course was made of. `digest` is that of a package of it; `user_id` made it.

    The source is another tenant's if `source_tenant_id` is there: nothing of this tenant can refer to it.
    """

    __tablename__ = "course_origins"
    course_id: Mapped[UUID]
    kind: Mapped[str]
    digest: Mapped[str]
    user_id: Mapped[UUID]
    source_tenant_id: Mapped[UUID | None]
    source_course_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=now, server_default=sql("now()"))
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "course_id"], [Course.tenant_id, Course.id], ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "course_id"),
        CheckConstraint("kind IN ('copy', 'foreign_copy', 'package')", name="kind"),
        CheckConstraint("(kind = 'foreign_copy') = (source_tenant_id IS NOT NULL)", name="source_tenant"),
        CheckConstraint("(kind = 'package') = (source_course_id IS NULL)", name="source"),
    )


class StoryOrigin(TenantRow, Base):
    """The same of a story, which may be in another course by now. `digest` is that of its file in a package."""

    __tablename__ = "story_origins"
    story_id: Mapped[UUID]
    digest: Mapped[str]
    user_id: Mapped[UUID]
    source_tenant_id: Mapped[UUID | None]
    source_story_id: Mapped[UUID | None]
    source_version_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=now, server_default=sql("now()"))
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "story_id"], [Story.tenant_id, Story.id], ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "story_id"),
    )
