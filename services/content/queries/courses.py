"""Statements on courses, and on what is projected of their learners and of the tenant."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, and_, func, literal_column, select

from kit.access import visible
from kit.auth import current
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.content.models import Course, CourseAccess, TenantSettings
from services.content.queries.tags import bears
from storyloom.content.v1.courses_pb2 import ListCoursesRequest

COLUMNS: tuple[Any, ...] = (
    Course.id,
    Course.title,
    Course.description,
    Course.story_language,
    Course.learning_language,
    Course.status,
    Course.author_id,
    Course.revision,
    Course.created_at,
    Course.updated_at,
    Course.deleted_at,
    Course.title_key,
)
# After every text that goes on with anything else.
LAST: Any = literal_column("repeat(chr(1114111), 4)", Text)
# What applies to a tenant that identity has said nothing of yet: identity's own defaults.
NO_SETTINGS = TenantSettings(story_language="vi", learning_language="en", approval_required=True)


async def get_course(session: ReadSession, course_id: UUID) -> Any:
    """The course's columns."""
    statement = select(*COLUMNS).where(
        Course.tenant_id == session.tenant_id, Course.id == course_id, Course.deleted_at.is_(None)
    )
    return existing((await session.execute(statement)).first(), "course")


async def list_courses(session: ReadSession, request: ListCoursesRequest, status: str, page: Page) -> Sequence[Any]:
    """One row more than the page holds, of the courses that the caller may see."""
    statement = select(*COLUMNS).where(
        Course.tenant_id == session.tenant_id, Course.deleted_at.is_(None), visible("list", Course)
    )
    if status:
        statement = statement.where(Course.status == status)
    if request.tag_id:
        statement = statement.where(bears("course", Course.id, UUID(request.tag_id), session.tenant_id))
    statement = titled(statement, Course, request.query)
    return (await session.execute(ordered(statement, Course, request.order_by, page))).all()


def titled(statement: Select[Any], model: Any, query: str) -> Select[Any]:
    """Only rows whose title begins with the query, in whatever case."""
    if not query:
        return statement
    return statement.where(begins(model.title_key, func.lower(query, type_=Text)))


def begins(key: ColumnElement[str] | Any, beginning: ColumnElement[str]) -> ColumnElement[bool]:
    """SQL that is true of keys that begin so, as a range of an index: what a plan that serves many beginnings cannot
    make of `starts_with` itself."""
    return and_(key >= beginning, key <= beginning + LAST, func.starts_with(key, beginning))


def ordered(statement: Select[Any], model: Any, order_by: str, page: Page) -> Select[Any]:
    """By title or time of creation, as `order_by` says."""
    field, _, direction = order_by.partition(" ")
    keys = (model.title_key, model.id) if field == "title" else (model.id,)
    return page.apply(statement, *keys, descending=direction == "desc" or not field)


def next_key(order_by: str) -> Any:
    """What `Page.split` needs to go on in that order."""
    return (lambda row: (row.title_key, row.id)) if order_by.startswith("title") else (lambda row: (row.id,))


async def lock_course(session: WriteSession, course_id: UUID, *, deleted: bool = False) -> Course:
    """The course, locked: whoever changes what a course contains, or its order, waits for whoever does."""
    course = await find_course(session, Course.id == course_id)
    return existing(course, "course", also_deleted=deleted)


async def find_course(session: WriteSession, which: ColumnElement[bool]) -> Course | None:
    """The course, deleted or not, locked against other changes but not against new references to it."""
    statement = select(Course).where(Course.tenant_id == session.tenant_id, which).with_for_update(key_share=True)
    found: Course | None = await session.scalar(statement)
    return found


async def find_course_of(session: WriteSession, part: Any, part_id: UUID) -> Course | None:
    """The course of a unit or lesson, locked; `part` is the model."""
    course_id = select(part.course_id).where(part.tenant_id == session.tenant_id, part.id == part_id)
    return await find_course(session, Course.id == course_id.scalar_subquery())


async def list_taken_courses(session: ReadSession, user_id: UUID | None = None) -> frozenset[UUID]:
    """The ids of the courses that the user, or else the caller, takes, as far as learning's events have told."""
    statement = select(CourseAccess.course_id).where(
        CourseAccess.tenant_id == session.tenant_id,
        CourseAccess.user_id == (user_id or current().subject),
        CourseAccess.active,
    )
    return frozenset((await session.execute(statement)).scalars())


async def taken_courses(session: ReadSession, user_id: UUID) -> Mapping[str, Any]:
    """What the rules know of a user."""
    return {"user.course_ids": await list_taken_courses(session, user_id)}


async def course_status(session: ReadSession, user_id: UUID, unit: Any) -> Mapping[str, Any]:
    """What the rules know of a unit."""
    statement = select(Course.status).where(Course.tenant_id == session.tenant_id, Course.id == unit.course_id)
    return {"course.status": await session.scalar(statement)}


async def get_settings(session: ReadSession) -> Any:
    """The tenant's settings that matter here."""
    statement = select(
        TenantSettings.story_language, TenantSettings.learning_language, TenantSettings.approval_required
    ).where(TenantSettings.tenant_id == session.tenant_id)
    return (await session.execute(statement)).first() or NO_SETTINGS
