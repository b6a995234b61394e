"""Statements on stories. Reading one, with all its chunks, is one statement; so is a page of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, Uuid, and_, bindparam, func, literal_column, select

from kit.access import filtered
from kit.access.attributes import COLUMNS, attributes_of
from kit.db import ReadSession, Shapes, WriteSession, prepared
from kit.errors import existing
from kit.pagination import Page
from services.content.models import Base, Story
from services.content.queries import courses
from services.content.queries.courses import begins, ordered
from services.content.queries.tags import bears
from storyloom.content.v1.stories_pb2 import ListStoriesRequest

# Tables, not entities: columns of entities cost each execution of a new statement a comparison with those of the
# statement that was compiled, which took a fifth of the time of a list.
StoryRow = Base.metadata.tables["content.stories"]
Current = Base.metadata.tables["content.story_versions"].alias("current")
Published = Base.metadata.tables["content.story_versions"].alias("published")
# What tells that a row has changed, however it was changed. No table is told of this column, which all of them have.
XMINS = tuple(
    literal_column(f"{table}.xmin", Integer).label(f"{name}_xmin")
    for name, table in (("story", "content.stories"), ("current", "current"), ("published", "published"))
)
# Who sees which version is decided by the rules, once per row; for most stories there is only one to choose from.
BASIC: Any = (
    select(
        StoryRow,
        Current.c.summary,
        Current.c.approval_id,
        Published.c.summary.label("published_summary"),
        Published.c.approval_id.label("published_approval_id"),
        *XMINS,
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
BODIES: Any = (Current.c.body, Published.c.body.label("published_body"))
ONE_FULL = prepared(ONE_STORY.add_columns(*BODIES), "tenant", "story")
SOME_STORIES = BASIC.where(
    StoryRow.c.id == func.any(bindparam("stories", type_=ARRAY(Uuid))), StoryRow.c.deleted_at.is_(None)
)
SOME = prepared(SOME_STORIES, "tenant", "stories")
SOME_FULL = prepared(SOME_STORIES.add_columns(*BODIES), "tenant", "stories")

# Whatever a list may be narrowed by.
WANTED = {
    "lesson": Story.lesson_id == bindparam("lesson"),
    "status": Story.status == bindparam("status"),
    "language": Story.language == bindparam("language"),
    "query": begins(Story.title_key, func.lower(bindparam("query", type_=Text), type_=Text)),
    "tag": bears("story", Story.id, bindparam("tag", type_=Uuid), bindparam("tenant")),
}
LISTS = Shapes()
# What rules and policies look at, so that pages need no second statement to decide which version is shown. To decide it
# in the statement costs more: with fifty policies it evaluates all of them for each row.
MESSAGE: Any = Story.__message__
DECIDING = [StoryRow.c[COLUMNS.get(name, name)] for name in attributes_of(MESSAGE)]


async def get_story(session: ReadSession, story_id: UUID, *, full: bool = False, deleted: bool = False) -> Any:
    """The story's columns and those of its current and published versions; `full` adds what FULL view shows."""
    return existing(await session.fetchrow(ONE_FULL if full else ONE, story_id), "story", also_deleted=deleted)


async def list_by_ids(session: ReadSession, story_ids: Sequence[UUID], *, full: bool = False) -> Sequence[Any]:
    """The same of those of the stories that are there."""
    return await session.fetch(SOME_FULL if full else SOME, story_ids)


async def list_stories(session: ReadSession, request: ListStoriesRequest, status: str, page: Page) -> Sequence[Any]:
    """What decides how it looks, and what the list is ordered by, of one story more than the page holds, of those that
    the caller may see."""
    lesson_id, tag_id = (UUID(one) if one else None for one in (request.lesson_id, request.tag_id))
    wanted = {"lesson": lesson_id, "status": status, "language": request.language, "query": request.query}
    wanted["tag"] = tag_id
    given = {name: value for name, value in wanted.items() if value}
    seen = filtered("list", Story)

    def build() -> Any:
        columns = (*DECIDING, Story.current_version_id, Story.published_version_id, *XMINS)
        statement = BASIC.with_only_columns(*columns, maintain_column_froms=True)
        statement = statement.where(Story.deleted_at.is_(None), seen.expression, *(WANTED[name] for name in given))
        if request.order_by.startswith("title"):
            statement = statement.add_columns(Story.title_key)
        if request.order_by == "position":
            return page.apply(statement.add_columns(Story.position), Story.position, Story.id, descending=False)
        return ordered(statement, Story, request.order_by, page)

    return await LISTS.fetch(session, (request.order_by, seen.shape), build, {**given, **seen.values, **page.values})


def next_key(order_by: str) -> Any:
    """What `Page.split` needs to go on in that order."""
    return (lambda row: (row.position, row.id)) if order_by == "position" else courses.next_key(order_by)


async def find_lesson_id(session: WriteSession, story_id: UUID) -> UUID | None:
    """The lesson that the story, deleted or not, is in; None also when there is no such story."""
    statement = select(Story.lesson_id).where(Story.tenant_id == session.tenant_id, Story.id == story_id)
    found: UUID | None = await session.scalar(statement)
    return found


async def lock_story(session: WriteSession, story_id: UUID, *, deleted: bool = False) -> Story:
    statement = (
        select(Story).where(Story.tenant_id == session.tenant_id, Story.id == story_id).with_for_update(key_share=True)
    )
    story: Story | None = await session.scalar(statement)
    return existing(story, "story", also_deleted=deleted)
