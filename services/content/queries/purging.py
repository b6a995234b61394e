"""Removal for good of what was deleted, with all that belongs to it: the one place that knows in which order."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, select

from kit import audit
from kit.access import require
from kit.db import WriteSession
from kit.models import check_etag
from services.content import rules
from services.content.announcements import announce_lessons, announce_purged
from services.content.models import (
    Audio,
    AudioUpload,
    ChunkTimestamp,
    ClozeConfig,
    Course,
    Lesson,
    LessonAuthor,
    LessonPrerequisite,
    Story,
    StoryChunk,
    StoryVersion,
    Unit,
    Vocabulary,
)

# What belongs to others: the column that says to which row, and of which table. A table that has such a column has a
# line here, before those of the tables that its rows belong to.
PARTS: tuple[tuple[Any, Any], ...] = (
    (ChunkTimestamp.audio_id, Audio),
    (ChunkTimestamp.version_id, StoryVersion),
    (AudioUpload.audio_id, Audio),
    (StoryChunk.version_id, StoryVersion),
    (ClozeConfig.version_id, StoryVersion),
    (LessonAuthor.lesson_id, Lesson),
    (LessonPrerequisite.lesson_id, Lesson),
    (LessonPrerequisite.prerequisite_id, Lesson),
)
# What is removed after its parts, each row of it an entry of the log: before what it refers to.
RESOURCES: tuple[Any, ...] = (Audio, Vocabulary, Story, Lesson, Unit, Course)
Doomed = dict[Any, Select[tuple[UUID]]]


async def purge(session: WriteSession, root: Any, etag: str) -> None:
    """Removes a course, unit, lesson, story or word for those who may, if it is deleted, and so is what it contains.

    Each of these is an entry of the audit log; that of the root tells how many rows of what went with it.
    """
    require("purge", root)
    check_etag(root, etag)
    rules.check_deleted(root.__resource__, root.deleted_at)
    doomed = _doomed(session, root)
    waiting = await _list_waiting(session, root, doomed) if Lesson in doomed else ()
    counts: dict[str, int] = {}
    for column, owner in PARTS:
        if owner in doomed:
            removed = await _remove(session, column.class_, column.in_(doomed[owner]), *_course(root, column.class_))
            _add(counts, column.class_, removed)
    for model in RESOURCES:
        if model in doomed:
            rows = await _remove_resources(session, model, doomed)
            _add(counts, model, len(rows))
            _tell(session, root, model, rows, counts)
    await announce_lessons(session, waiting)


def _doomed(session: WriteSession, root: Any) -> Doomed:
    """The ids of the rows that go, by model: all that the root contains, whenever it was deleted."""

    def ids(model: Any, *which: ColumnElement[bool]) -> Select[tuple[UUID]]:
        return select(model.id).where(model.tenant_id == session.tenant_id, *which)

    doomed: Doomed = {type(root): ids(type(root), type(root).id == root.id)}
    if isinstance(root, Vocabulary):
        return doomed | {Audio: ids(Audio, Audio.vocabulary_id == root.id)}
    if isinstance(root, Course):
        doomed[Unit] = ids(Unit, Unit.course_id == root.id)
        doomed[Lesson] = ids(Lesson, Lesson.course_id == root.id)
    elif isinstance(root, Unit):
        doomed[Lesson] = ids(Lesson, Lesson.course_id == root.course_id, Lesson.unit_id == root.id)
    if not isinstance(root, Story):
        doomed[Story] = ids(Story, Story.lesson_id.in_(doomed[Lesson]))
    doomed[StoryVersion] = ids(StoryVersion, StoryVersion.story_id.in_(doomed[Story]))
    doomed[Audio] = ids(Audio, Audio.version_id.in_(doomed[StoryVersion]))
    return doomed


async def _list_waiting(session: WriteSession, root: Any, doomed: Doomed) -> Sequence[UUID]:
    """The lessons that stay and have one that goes as a prerequisite, so far."""
    statement = select(LessonPrerequisite.lesson_id).where(
        LessonPrerequisite.tenant_id == session.tenant_id,
        *_course(root, LessonPrerequisite),
        LessonPrerequisite.prerequisite_id.in_(doomed[Lesson]),
        LessonPrerequisite.lesson_id.not_in(doomed[Lesson]),
    )
    found: Sequence[UUID] = (await session.execute(statement.distinct())).scalars().all()
    return found


def _course(root: Any, model: Any) -> tuple[ColumnElement[bool], ...]:
    """The index of prerequisites begins with the course."""
    if model is not LessonPrerequisite:
        return ()
    return (model.course_id == (root.id if isinstance(root, Course) else root.course_id),)


async def _remove(session: WriteSession, model: Any, *which: ColumnElement[bool]) -> int:
    statement = delete(model).where(model.tenant_id == session.tenant_id, *which)
    result: Any = await session.execute(statement.execution_options(synchronize_session=False))
    return int(result.rowcount)


async def _remove_resources(session: WriteSession, model: Any, doomed: Doomed) -> Sequence[Any]:
    """Removes the rows; stories with their versions in one statement, since they refer to each other."""
    statement = delete(model).where(model.tenant_id == session.tenant_id, model.id.in_(doomed[model]))
    columns = [model.id, (model.term if model is Vocabulary else model.title).label("title")]
    if model is Story:
        mine = (StoryVersion.tenant_id == session.tenant_id, StoryVersion.id.in_(doomed[StoryVersion]))
        gone = delete(StoryVersion).where(*mine).returning(StoryVersion.story_id).cte("gone")
        columns.append(select(func.count()).where(gone.c.story_id == Story.id).scalar_subquery().label("versions"))
    told = statement.returning(*columns).execution_options(synchronize_session=False)
    return (await session.execute(told)).all()


def _add(counts: dict[str, int], model: Any, rows: int) -> None:
    if rows:
        counts[model.__tablename__] = counts.get(model.__tablename__, 0) + rows


def _tell(session: WriteSession, root: Any, model: Any, rows: Sequence[Any], counts: dict[str, int]) -> None:
    """Audits and announces what was removed; of the root that is last, and all of it."""
    if model is Story:
        _add(counts, StoryVersion, sum(row.versions for row in rows))
    for row in rows:
        old: dict[str, Any] = {"title": row.title}
        if isinstance(root, model):
            old["removed"] = counts
        audit.write(session, "purge", model.__resource__, row.id, old=old)
        announce_purged(session, model, row.id)
