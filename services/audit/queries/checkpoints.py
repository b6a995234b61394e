"""Statements on checkpoints."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select

from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.ids import new_id
from kit.pagination import Page
from services.audit.models import Checkpoint

COLUMNS = ("tree_size", "root_hash", "signed_text", "created_at")
CHECKPOINT: Select[Any] = select(*(Checkpoint.__table__.columns[name] for name in COLUMNS))
INSERT = "INSERT INTO audit.checkpoints (tenant_id, id, tree_size, root_hash, signed_text) VALUES ($1, $2, $3, $4, $5)"
NEWER = "SELECT signed_text FROM audit.checkpoints WHERE tenant_id = $1 AND tree_size > $2 ORDER BY tree_size LIMIT $3"


async def get_checkpoint(session: ReadSession, tree_size: int) -> Row[Any]:
    """That of this size; the latest for 0."""
    return existing(await find_checkpoint(session, tree_size), "checkpoint")


async def find_checkpoint(session: ReadSession, tree_size: int = 0) -> Row[Any] | None:
    statement = CHECKPOINT.where(Checkpoint.tenant_id == session.tenant_id)
    if tree_size:
        statement = statement.where(Checkpoint.tree_size == tree_size)
    found = await session.execute(statement.order_by(Checkpoint.tree_size.desc()).limit(1))
    return found.one_or_none()


async def list_checkpoints(session: ReadSession, page: Page) -> tuple[Sequence[Row[Any]], str]:
    statement = CHECKPOINT.where(Checkpoint.tenant_id == session.tenant_id)
    rows = (await session.execute(page.apply(statement, Checkpoint.tree_size))).all()
    return page.split(rows, key=lambda row: (row.tree_size,))


async def list_newer_texts(session: ReadSession, than_size: int, limit: int) -> list[str]:
    """The checkpoints after this size, oldest first."""
    return [row.signed_text for row in await session.fetch(NEWER, than_size, limit)]


async def insert_checkpoint(session: WriteSession, *, tree_size: int, root_hash: bytes, signed_text: str) -> UUID:
    checkpoint_id = new_id()
    await session.fetchrow(INSERT, checkpoint_id, tree_size, root_hash, signed_text)
    return checkpoint_id
