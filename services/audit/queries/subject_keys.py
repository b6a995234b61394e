"""Statements on the keys of subjects."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from kit.db import ReadSession, WriteSession

KEYS_OF_SUBJECTS = """
SELECT id, subject_id, wrapped_key FROM audit.subject_keys WHERE tenant_id = $1 AND subject_id = ANY($2)
"""
KEYS = "SELECT id, subject_id, wrapped_key FROM audit.subject_keys WHERE tenant_id = $1 AND id = ANY($2)"
# A subject has one key, ever: of two processes that make the first one, the second waits and does nothing.
INSERT_KEYS = """
INSERT INTO audit.subject_keys (tenant_id, id, subject_id, wrapped_key)
SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::bytea[]) ON CONFLICT (tenant_id, subject_id) DO NOTHING
"""


async def list_keys_of_subjects(session: ReadSession, subject_ids: Sequence[UUID]) -> list[Any]:
    return await session.fetch(KEYS_OF_SUBJECTS, subject_ids)


async def list_keys(session: ReadSession, ids: Sequence[UUID]) -> list[Any]:
    return await session.fetch(KEYS, ids)


async def insert_keys(session: WriteSession, keys: Sequence[tuple[UUID, UUID, bytes]]) -> None:
    """Adds keys (id, subject, wrapped key) for subjects that have none yet."""
    await session.fetch(INSERT_KEYS, *zip(*keys, strict=True))
