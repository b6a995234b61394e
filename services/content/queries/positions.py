"""Places among siblings. Whoever changes them holds the lock of the course."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select, update

from kit import audit
from kit.audit import Action
from kit.db import WriteSession
from kit.models import now


async def settle(session: WriteSession, parent: Any, child: Any) -> Sequence[UUID]:
    """Makes room in the place that the child's `position` names; 0 becomes the place behind the last.

    `parent` is the column that refers to the parent. When another child is in the place, it and all behind it move one
    place on: their ids are returned.
    """
    if not child.position:
        child.position = await _end(session, parent, child)
    elif await _is_taken(session, parent, child):
        return await _move_on(session, parent, child)
    return ()


async def return_to(session: WriteSession, parent: Any, child: Any) -> None:
    """Lets a child that was deleted keep its place, unless that is taken by now: then it comes last."""
    if await _is_taken(session, parent, child):
        child.position = await _end(session, parent, child)


def _siblings(session: WriteSession, parent: Any, child: Any) -> tuple[ColumnElement[bool], ...]:
    model = parent.class_
    return (
        model.tenant_id == session.tenant_id,
        parent == getattr(child, parent.key),
        model.deleted_at.is_(None),
        model.id != child.id,
    )


async def _end(session: WriteSession, parent: Any, child: Any) -> int:
    last = func.coalesce(func.max(parent.class_.position), 0)
    return int(await session.scalar(select(last + 1).where(*_siblings(session, parent, child))))


async def _is_taken(session: WriteSession, parent: Any, child: Any) -> bool:
    here = parent.class_.position == child.position
    return bool(await session.scalar(select(exists().where(*_siblings(session, parent, child), here))))


async def _move_on(session: WriteSession, parent: Any, child: Any) -> Sequence[UUID]:
    model = parent.class_
    statement = (
        update(model)
        .where(*_siblings(session, parent, child), model.position >= child.position)
        .values(position=model.position + 1, revision=model.revision + 1, updated_at=now())
        .returning(model.id, model.position)
        .execution_options(synchronize_session=False)
    )
    moved = (await session.execute(statement)).all()
    for row in moved:
        old, new = {"position": row.position - 1}, {"position": row.position}
        audit.write(session, Action.UPDATE, model.__resource__, row.id, old=old, new=new)
    return [row.id for row in moved]
