"""Places among siblings. Whoever changes them holds the lock of the course."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Integer, Uuid, bindparam, column, exists, func, select, update

from kit import audit
from kit.audit import Action
from kit.db import WriteSession
from kit.errors import Aborted
from kit.models import now

PLACES = (
    func.unnest(bindparam("ids", type_=ARRAY(Uuid)), bindparam("places", type_=ARRAY(Integer)))
    .table_valued(column("id", Uuid), column("position", Integer), name="wanted")
    .render_derived()
)


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


async def reorder(session: WriteSession, owner: Any, parent: Any, wanted: Sequence[UUID]) -> Sequence[UUID]:
    """Gives the children of the owner the places 1, 2, 3 and so on in this order; the ids of those that it moved.

    `parent` is the column that refers to the owner, which gets another etag. ABORTED unless `wanted` are its children,
    all of them: somebody added one or took one away meanwhile.
    """
    model = parent.class_
    children = (model.tenant_id == session.tenant_id, parent == owner.id, model.deleted_at.is_(None))
    # Locked, because stories are deleted without the lock of their course.
    statement = select(model.id, model.position).where(*children).order_by(model.id).with_for_update(key_share=True)
    old = {row.id: row.position for row in await session.execute(statement)}
    if old.keys() != set(wanted):
        kind, whole = model.__resource__, owner.__resource__
        raise Aborted(f"These are not all that is in the {whole} now; list it again.", metadata={"resource": kind})
    new = {one: place for place, one in enumerate(wanted, 1)}
    moved = [one for one in wanted if new[one] != old[one]]
    if moved:
        await _write(session, model, old, {one: new[one] for one in moved})
        before = sorted(old, key=lambda one: old[one])
        _audit_order(session, owner, model, before, wanted)
        await session.flush()
    return moved


async def _write(session: WriteSession, model: Any, old: dict[UUID, int], new: dict[UUID, int]) -> None:
    statement = (
        update(model)
        .where(model.tenant_id == session.tenant_id, model.id == PLACES.c.id)
        .values(position=PLACES.c.position, revision=model.revision + 1, updated_at=now())
        .execution_options(synchronize_session=False)
    )
    await session.execute(statement, {"ids": list(new), "places": list(new.values())})
    for one, place in new.items():
        _audit_place(session, model, one, old[one], place)


def _audit_order(session: WriteSession, owner: Any, model: Any, old: Sequence[UUID], new: Sequence[UUID]) -> None:
    name = f"{model.__resource__}_ids"
    values = {name: list(map(str, old))}, {name: list(map(str, new))}
    audit.write(session, Action.UPDATE, owner.__resource__, owner.id, old=values[0], new=values[1])
    owner.updated_at = now()


def _audit_place(session: WriteSession, model: Any, child_id: UUID, old: int, new: int) -> None:
    resource = model.__resource__
    audit.write(session, Action.UPDATE, resource, child_id, old={"position": old}, new={"position": new})


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
        _audit_place(session, model, row.id, row.position - 1, row.position)
    return [row.id for row in moved]
