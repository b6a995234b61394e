"""Months that are old enough leave the log, which says so and proves what is left."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
import pytest

from kit.settings import SettingsError
from services.audit.retention import Months
from services.audit.signing import Head
from tests.audit.test_audit_logs import deliver, event, listed
from tests.audit.test_exports import File, exported, hash_of, in_tree, root_of
from tests.audit.test_legal_holds import put
from tests.audit.test_legal_holds import release as release_hold
from tests.audit.test_partitions import OLD, id_at, in_old
from tests.postgres import empty_server, migrated
from tests.stack import School, Stack, found_school

pytestmark = pytest.mark.slow


@pytest.fixture(scope="class")
async def school() -> AsyncIterator[School]:
    """Of its own: months are dropped in order, and what other tests leave in an older one keeps all that follow."""
    async with empty_server() as admin_url:
        running = Stack(await migrated(admin_url))
        with pytest.MonkeyPatch.context() as monkeypatch:
            await running.start(monkeypatch)
            yield await found_school(running, "lotus", "bamboo")
            await running.stop()


class TestRetention:
    async def test_drops_old_months_and_says_so_in_the_log_of_each_tenant(self, school: School) -> None:
        tenant_id = school.auditor.tenant_id
        old = [event(tenant_id, event_id=id_at(in_old(day)), at=in_old(day)) for day in (3, 4)]
        await deliver(school, *old, event(school.outsider_admin.tenant_id, event_id=id_at(in_old()), at=in_old()))
        await deliver(school, new := event(tenant_id))
        for tenant in (tenant_id, school.outsider_admin.tenant_id):
            await in_tree(school, tenant)
        months = Months(school.stack.services["audit"].db, keep=12)
        await months.make()
        async with signed(school, tenant_id), signed(school, school.outsider_admin.tenant_id):
            assert OLD in await months.drop(datetime.now(UTC).date())
        await in_tree(school, tenant_id)
        entries = await listed(school.auditor, action="drop_month")
        told = [dict(one.new_values) for one in entries if one.new_values["month"] == "2025-03"]
        assert [one["entries"] for one in told] == [2]
        assert (await listed(school.outsider_admin, action="drop_month"))[0].new_values["entries"] == 1
        assert [one.id for one in await listed(school.auditor, entity_id=new.aggregate_id)] == [new.id]
        assert await listed(school.auditor, entity_id=old[0].aggregate_id) == []
        self.check_proofs(await exported(school.auditor), int(told[0]["first_index"]), int(told[0]["last_index"]))

    def check_proofs(self, file: File, first: int, last: int) -> None:
        header, *lines, _ = file.lines
        dropped = [line["index"] for line in lines if "leaf" not in line]
        assert sorted(dropped) == [first, last]
        head = Head.of(header["export"]["checkpoint"])
        hashes = {
            line["index"]: hash_of(base64.b64decode(line["leaf"])) if "leaf" in line else base64.b64decode(line["hash"])
            for line in lines
        }
        assert root_of([hashes[index] for index in range(head.size)]) == head.root

    async def test_keeps_all_for_ever_unless_told(self, school: School) -> None:
        with pytest.raises(SettingsError, match="at least 3"):
            Months(school.stack.services["audit"].db, keep=2)
        assert school.stack.services["audit"].settings.audit_retention_months == 0

    async def test_tells_why_a_month_stays(self, school: School, caplog: pytest.LogCaptureFixture) -> None:
        at = datetime(2024, 5, 5, tzinfo=UTC)
        await deliver(school, event(school.auditor.tenant_id, event_id=id_at(at), at=at))
        await in_tree(school, school.auditor.tenant_id)
        months = Months(school.stack.services["audit"].db, keep=12)
        await months.make()
        hold = await put(school.admin, end_time=datetime(2024, 6, 1, tzinfo=UTC))
        try:
            async with signed(school, school.auditor.tenant_id):
                assert date(2024, 5, 1) not in await months.drop(datetime.now(UTC).date())
        finally:
            await release_hold(school.admin, hold)
        assert any("legal holds: 1" in getattr(record, "reason", "") for record in caplog.records)


@asynccontextmanager
async def signed(school: School, tenant_id: str) -> AsyncIterator[None]:
    """Once a checkpoint covers all of the tenant's tree."""
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    query = "SELECT size - signed_size FROM audit.trees WHERE tenant_id = $1"
    try:
        async with asyncio.timeout(10):
            while await connection.fetchval(query, UUID(tenant_id)):
                await asyncio.sleep(0.05)
        yield
    finally:
        await connection.close()
