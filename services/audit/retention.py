"""Months of the log: made before they begin, and dropped when they are as old as the platform keeps them."""

import asyncio
import logging
from datetime import UTC, date, datetime
from typing import Any

from asyncpg import LockNotAvailableError, RestrictViolationError

from kit import audit
from kit.db import Database
from kit.ids import NIL, SYSTEM_TENANT
from kit.settings import SettingsError

log = logging.getLogger(__name__)

MONTHS_AHEAD = 6
LEAST_KEPT = 3
DAY_SECONDS, RETRY_SECONDS = 86_400.0, 60.0
# Nobody waits for it, and a month of entries takes longer to look through than a call may.
UNHURRIED = "SET LOCAL statement_timeout = '10min'; SET LOCAL transaction_timeout = '10min'"
NAME = "audit_logs_%Y_%m"
MONTHS = "SELECT c.relname FROM pg_partition_tree('audit.audit_logs') p JOIN pg_class c ON c.oid = p.relid WHERE isleaf"


class Months:
    """Keeps the log's months. `keep` is how many whole ones are kept besides the current one; 0 keeps all for ever."""

    def __init__(self, db: Database, *, keep: int) -> None:
        if keep and keep < LEAST_KEPT:
            raise SettingsError(f"AUDIT_RETENTION_MONTHS is {keep}: it is 0, for ever, or at least {LEAST_KEPT}")
        self._db, self._keep = db, keep

    async def run(self) -> None:
        """Does what is due at once and then daily, for ever; what failed, a minute later."""
        while True:
            try:
                await self.make()
                if self._keep:
                    await self.drop(datetime.now(UTC).date())
                await asyncio.sleep(DAY_SECONDS)
            except Exception:
                # The default partition takes what has no month: nothing is lost meanwhile.
                log.exception("the months of the log are not kept")
                await asyncio.sleep(RETRY_SECONDS)

    async def make(self) -> None:
        """The months ahead, and those of entries that came when there was none."""
        async with self._db.write(SYSTEM_TENANT) as session:
            await session.driver.execute(UNHURRIED)
            rows = await session.driver.fetch("SELECT audit.make_months($1) AS name", MONTHS_AHEAD)
        for row in rows:
            log.info("a month of the log was made", extra={"partition": row["name"]})

    async def drop(self, today: date) -> list[date]:
        """Drops the months that are old enough, the oldest first, until one may not go; returns them. What holds that
        back is logged. So the log ends somewhere, and a month that is missing later was not dropped but removed."""
        dropped = []
        for month in await self._old(today):
            if not await self._drop(month):
                break
            dropped.append(month)
        return dropped

    async def _old(self, today: date) -> list[date]:
        async with self._db.read(SYSTEM_TENANT) as session:
            names = [row["relname"] for row in await session.driver.fetch(MONTHS)]
        months = [datetime.strptime(name, NAME).date() for name in names if not name.endswith("_default")]  # noqa: DTZ007
        return sorted(one for one in months if _number(one) + self._keep < _number(today))

    async def _drop(self, month: date) -> bool:
        try:
            async with self._db.write(SYSTEM_TENANT) as session:
                await session.driver.execute(UNHURRIED)
                rows = await session.driver.fetch("SELECT * FROM audit.drop_month($1, $2)", month, self._keep)
                for row in rows:
                    # In the outbox, and so in the log of the tenant itself, with the drop or not at all.
                    session.tenant_id = row["tenant_id"]
                    audit.write(session, "drop_month", "audit_log", NIL, new=_told(month, row))
        except (RestrictViolationError, LockNotAvailableError) as error:
            log.warning("a month of the log stays", extra={"month": f"{month:%Y-%m}", "reason": str(error)})
            return False
        log.info("a month of the log was dropped", extra={"month": f"{month:%Y-%m}", "tenants": len(rows)})
        return True


def _number(day: date) -> int:
    return day.year * 12 + day.month


def _told(month: date, row: Any) -> dict[str, Any]:
    """Which leaves of the tree have no entry from now on: that is how a month that was dropped and an entry that
    somebody deleted are told apart."""
    return {
        "month": f"{month:%Y-%m}",
        "entries": row["entries"],
        "first_index": row["first_index"],
        "last_index": row["last_index"],
    }
