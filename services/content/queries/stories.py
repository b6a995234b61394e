"""Statements on stories. Reading one, with all its chunks, is one statement; so is a page of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Text, and_, bindparam, func, select

from kit.access import filtered
from kit.db import ReadSession, Shapes, WriteSession, prepared
from kit.errors import NotFound
from kit.pagination import Page
from services.content.models import Base, Story
from services.content.queries.courses import ordered
from storyloom.content.v1.stories_pb2 import ListStoriesRequest

# Tables, not entities: columns of entities cost each execution of a new statement a comparison with those of the
# statement that was compiled, which took a fifth of the time of a list.
StoryRow = Base.metadata.tables["content.stories"]
Current = Base.metadata.tables["content.story_versions"].alias("current")
Published = Base.metadata.tables["content.story_versions"].alias("published")
# Who sees which version is decided by the rules, once per row; for most stories there is only one to choose from.
BASIC: Any = (
    select(
        StoryRow,
        Current.c.summary,
        Current.c.approval_id,
        Published.c.summary.label("published_summary"),
        Published.c.approval_id.label("published_approval_id"),
    )
    .join(Current, and_(Current.c.tenant_id == StoryRow.c.tenant_id, Current.c.id == StoryRow.c.current_version_id))
    .outerjoin(
        Published,
        and_(
            Published.c.tenant_id == StoryRow.c.tenant_id,
            Published.c.id == StoryRow.c.published_version_id,
            StoryRow.c.published_version_id != StoryRow.c.current_version_id,
        ),
    )
    .where(StoryRow.c.tenant_id == bindparam("tenant"), Current.c.tenant_id == bindparam("tenant"))
)
ONE_STORY = BASIC.where(StoryRow.c.id == bindparam("story"))
ONE = prepared(ONE_STORY, "tenant", "story")
ONE_FULL = prepared(ONE_STORY.add_columns(Current.c.body, Published.c.body.label("published_body")), "tenant", "story")


# Whatever a list may be narrowed by.
WANTED = {
    "lesson": Story.lesson_id == bindparam("lesson"),
    "status": Story.status == bindparam("status"),
    "language": Story.language == bindparam("language"),
    "query": func.starts_with(func.lower(Story.title), func.lower(bindparam("query", type_=Text))),
}
LISTS = Shapes()


async def get_story(session: ReadSession, story_id: UUID, *, full: bool = False, deleted: bool = False) -> Any:
    """The story's columns and those of its current and published versions; `full` adds what FULL view shows."""
    row = await session.fetchrow(ONE_FULL if full else ONE, story_id)
    if row is None or (row.deleted_at is not None and not deleted):
        raise NotFound("story")
    return row


async def list_stories(session: ReadSession, request: ListStoriesRequest, status: str, page: Page) -> Sequence[Any]:
    """One row more than the page holds, of the stories that the caller may see."""
    lesson_id = UUID(request.lesson_id) if request.lesson_id else None
    wanted = {"lesson": lesson_id, "status": status, "language": request.language, "query": request.query}
    given = {name: value for name, value in wanted.items() if value}
    seen = filtered("list", Story)

    def build() -> Any:
        statement = BASIC.where(Story.deleted_at.is_(None), seen.expression, *(WANTED[name] for name in given))
        if request.order_by.startswith("title"):
            statement = statement.add_columns(func.lower(Story.title).label("title_key"))
        return ordered(statement, Story, request.order_by, page)

    return await LISTS.fetch(session, (request.order_by, seen.shape), build, {**given, **seen.values, **page.values})


async def lock_story(session: WriteSession, story_id: UUID, *, deleted: bool = False) -> Story:
    """The story, locked."""
    statement = (
        select(Story).where(Story.tenant_id == session.tenant_id, Story.id == story_id).with_for_update(key_share=True)
    )
    story: Story | None = (await session.execute(statement)).scalar_one_or_none()
    if story is None or (story.deleted_at is not None and not deleted):
        raise NotFound("story")
    return story
