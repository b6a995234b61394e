"""Statements on tags and on what bears them."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.content.models import CourseTag, LessonTag, StoryTag, Tag
from services.content.rules import term_key
from storyloom.content.v1.tags_pb2 import ListTagsRequest

COLUMNS: tuple[Any, ...] = (
    Tag.id,
    Tag.name,
    Tag.name_key,
    Tag.revision,
    Tag.created_at,
    Tag.updated_at,
    Tag.deleted_at,
)
# The join table of each kind of bearer, and the column that names the bearer.
JOINS: Mapping[str, tuple[Any, Any]] = {
    "course": (CourseTag, CourseTag.course_id),
    "lesson": (LessonTag, LessonTag.lesson_id),
    "story": (StoryTag, StoryTag.story_id),
}


async def find_tag(session: ReadSession, tag_id: UUID) -> Any:
    """The tag's columns, or None. In a transaction that writes, the tag stays until its end."""
    statement = select(*COLUMNS).where(Tag.tenant_id == session.tenant_id, Tag.id == tag_id, Tag.deleted_at.is_(None))
    if isinstance(session, WriteSession):
        statement = statement.with_for_update(read=True)
    return (await session.execute(statement)).first()


async def get_tag(session: ReadSession, tag_id: UUID) -> Any:
    """The tag's columns."""
    return existing(await find_tag(session, tag_id), "tag")


async def lock_tag(session: WriteSession, tag_id: UUID, *, deleted: bool = False) -> Tag:
    statement = select(Tag).where(Tag.tenant_id == session.tenant_id, Tag.id == tag_id).with_for_update()
    tag: Tag | None = await session.scalar(statement)
    return existing(tag, "tag", also_deleted=deleted)


async def list_tags(
    session: ReadSession, request: ListTagsRequest, bearer: tuple[str, UUID] | None, page: Page
) -> Sequence[Any]:
    """One row more than the page holds, of the tags that the caller may see; of all, or of one bearer."""
    statement = select(*COLUMNS).where(
        Tag.tenant_id == session.tenant_id, Tag.deleted_at.is_(None), visible("list", Tag)
    )
    if request.query:
        statement = statement.where(func.starts_with(Tag.name_key, term_key(request.query)))
    if bearer:
        join, column = JOINS[bearer[0]]
        borne = select(join.tag_id).where(join.tenant_id == session.tenant_id, column == bearer[1])
        statement = statement.where(Tag.id.in_(borne))
    field, _, direction = request.order_by.partition(" ")
    keys = (Tag.id,) if field == "create_time" else (Tag.name_key, Tag.id)
    return (await session.execute(page.apply(statement, *keys, descending=direction == "desc"))).all()


def next_key(order_by: str) -> Any:
    """What `Page.split` needs to go on in that order."""
    return (lambda row: (row.id,)) if order_by.startswith("create_time") else (lambda row: (row.name_key, row.id))


def bears(kind: str, bearer_id: Any, tag_id: Any, tenant_id: Any) -> ColumnElement[bool]:
    """SQL that is true of bearers of a tag that is not deleted."""
    join, column = JOINS[kind]
    return bearer_id.in_(  # type: ignore[no-any-return]
        select(column)
        .join(Tag, (Tag.tenant_id == join.tenant_id) & (Tag.id == join.tag_id))
        .where(
            join.tenant_id == tenant_id,
            Tag.tenant_id == tenant_id,
            join.tag_id == tag_id,
            Tag.deleted_at.is_(None),
        )
    )


async def insert_bearer(session: WriteSession, kind: str, bearer_id: UUID, tag_id: UUID) -> bool:
    """Whether the bearer did not have the tag before."""
    join, column = JOINS[kind]
    keys = {"tenant_id": session.tenant_id, column.key: bearer_id, "tag_id": tag_id}
    statement = insert(join).values(keys).on_conflict_do_nothing(index_elements=list(keys)).returning(join.id)
    return await session.scalar(statement) is not None


async def delete_bearer(session: WriteSession, kind: str, bearer_id: UUID, tag_id: UUID) -> bool:
    """Whether the bearer had the tag."""
    join, column = JOINS[kind]
    statement = (
        delete(join)
        .where(join.tenant_id == session.tenant_id, column == bearer_id, join.tag_id == tag_id)
        .returning(join.id)
        .execution_options(synchronize_session=False)
    )
    return await session.scalar(statement) is not None
