"""Statements on stories. Reading one, with all its chunks, is one statement; so is a page of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.orm import aliased

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import NotFound
from kit.pagination import Page
from services.content.models import Story, StoryVersion
from services.content.queries.courses import ordered, titled
from storyloom.content.v1.stories_pb2 import ListStoriesRequest

Current = aliased(StoryVersion, name="current")
Published = aliased(StoryVersion, name="published")
# Who sees which version is decided by the rules, once per row; for most stories there is only one to choose from.
BASIC: Any = (
    select(
        Story.id,
        Story.title,
        Story.language,
        Story.learning_language,
        Story.lesson_id,
        Story.vocabulary_ids,
        Story.author_id,
        Story.status,
        Story.current_version_id,
        Story.published_version_id,
        Story.revision,
        Story.created_at,
        Story.updated_at,
        Story.deleted_at,
        Current.summary,
        Current.approval_id,
        Current.approved_hash,
        Published.summary.label("published_summary"),
        Published.approval_id.label("published_approval_id"),
        Published.approved_hash.label("published_approved_hash"),
    )
    .join(Current, and_(Current.tenant_id == Story.tenant_id, Current.id == Story.current_version_id))
    .outerjoin(
        Published,
        and_(
            Published.tenant_id == Story.tenant_id,
            Published.id == Story.published_version_id,
            Story.published_version_id != Story.current_version_id,
        ),
    )
    .where(Story.tenant_id == bindparam("tenant"), Current.tenant_id == bindparam("tenant"))
)
ONE = BASIC.where(Story.id == bindparam("story"))
ONE_FULL = ONE.add_columns(Current.body, Published.body.label("published_body"))


async def get_story(session: ReadSession, story_id: UUID, *, full: bool = False, deleted: bool = False) -> Any:
    """The story's columns and those of its current and published versions; `full` adds what FULL view shows."""
    statement = ONE_FULL if full else ONE
    row = (await session.execute(statement, {"tenant": session.tenant_id, "story": story_id})).first()
    if row is None or (row.deleted_at is not None and not deleted):
        raise NotFound("story")
    return row


async def list_stories(session: ReadSession, request: ListStoriesRequest, status: str, page: Page) -> Sequence[Any]:
    """One row more than the page holds, of the stories that the caller may see."""
    statement = BASIC.where(Story.deleted_at.is_(None), visible("list", Story))
    if request.order_by.startswith("title"):
        statement = statement.add_columns(func.lower(Story.title).label("title_key"))
    if request.lesson_id:
        statement = statement.where(Story.lesson_id == UUID(request.lesson_id))
    if status:
        statement = statement.where(Story.status == status)
    if request.language:
        statement = statement.where(Story.language == request.language)
    statement = ordered(titled(statement, Story, request.query), Story, request.order_by, page)
    return (await session.execute(statement, {"tenant": session.tenant_id})).all()


async def lock_story(session: WriteSession, story_id: UUID, *, deleted: bool = False) -> Story:
    """The story, locked."""
    statement = (
        select(Story).where(Story.tenant_id == session.tenant_id, Story.id == story_id).with_for_update(key_share=True)
    )
    story: Story | None = (await session.execute(statement)).scalar_one_or_none()
    if story is None or (story.deleted_at is not None and not deleted):
        raise NotFound("story")
    return story
