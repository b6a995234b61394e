"""Audit entries of what changes nothing, refusals and acts in other tenants: gathered, so that a flood is few rows."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from kit import audit, outbox
from kit.call import Call
from kit.ids import NIL, new_id
from storyloom.event.v1.changes_pb2 import ChangeRecorded

if TYPE_CHECKING:
    from kit.db import Database

log = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 0.5
REPEAT_AFTER_SECONDS = 60.0
MOST_KINDS = 10_000

Kind = tuple[UUID, UUID | None, str, str, str]


@dataclass(slots=True)
class _Gathered:
    entry: ChangeRecorded
    count: int = 1
    written_at: float = 0.0


class Notes:
    """Entries by tenant, user, RPC, action and reason. The first of a kind is written within half a second; those
    that follow within a minute become one more entry that says how many they were."""

    def __init__(self, db: "Database") -> None:
        self._db = db
        self._kinds: dict[Kind, _Gathered] = {}

    def add(self, action: str, call: Call, *, tenant_id: UUID) -> None:
        """Notes one call; never waits. With ten thousand kinds at once the rest goes unwritten, and the log says so."""
        who = call.principal
        kind = (tenant_id, who.user_id if who else None, call.rpc, action, call.reason)
        if known := self._kinds.get(kind):
            known.count += 1
        elif len(self._kinds) < MOST_KINDS:
            entry = audit.entry(action, "rpc", NIL, call=call, tenant_id=tenant_id)
            self._kinds[kind] = _Gathered(entry)
        else:
            log.error("too many kinds of refusals to write them all down")

    async def run(self) -> None:
        """Writes what is due, for ever; run it as a task."""
        while True:
            await asyncio.sleep(WRITE_EVERY_SECONDS)
            await self.write()

    async def write(self, *, everything: bool = False) -> None:
        """Writes what is due: what is new, and what gathered for a minute. A failure leaves it for the next time."""
        now = time.monotonic()
        for kind, gathered in list(self._kinds.items()):
            due = everything or not gathered.written_at or now - gathered.written_at >= REPEAT_AFTER_SECONDS
            if due and gathered.count:
                await self._write(kind[0], kind[4], gathered)
                gathered.written_at = now
            elif due:
                # Two who write at once may both find that it is over.
                self._kinds.pop(kind, None)

    async def _write(self, tenant_id: UUID, reason: str, gathered: _Gathered) -> None:
        count, gathered.count = gathered.count, 0
        try:
            async with self._db.open_write(tenant_id) as session:
                entry = gathered.entry
                entry.new_values = audit.as_json({"reason": reason, "count": count} if reason else {"count": count})
                outbox.publish(session, "rpc", new_id(), entry)
                await self._db.commit(session)
        except Exception:
            gathered.count += count
            log.exception("a refusal is not written down yet")
