"""A school taken out of one installation, brought into another, and put back into its own."""

import asyncio
import base64
import json
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import pyrage
import pytest

from deploy.admin.__main__ import main
from deploy.backups.checks import catalog, isolation, proofs
from deploy.local.errors import RunError
from deploy.tenants.archive import SIGNATURE, SUMS
from deploy.tenants.exporting import export
from deploy.tenants.importing import bring_in
from deploy.tenants.origin import as_text, public_of
from deploy.tenants.tables import KEPT, LEFT_OUT, all_tables, connect
from kit.ids import SYSTEM_TENANT
from kit.migrations import ROLES, metadata_of
from kit.settings import SERVICES
from services.audit.signing import Head, Signer
from storyloom.identity.v1.erasures_pb2 import ERASURE_STATE_DONE
from tests.contract.population import ask
from tests.deploy.leaving import Leaving, elsewhere, forged, found, keys_of, members, of, populated, rows_of
from tests.postgres import Cluster
from tests.profile import PROOF
from tests.stack import PASSWORD, PLATFORM_EMAIL, Person, School, Stack, refused

PARK = """
INSERT INTO content.outbox
  (event_id, tenant_id, consumer, aggregate_type, aggregate_id, payload_type, payload, parked_at)
VALUES (uuidv7(), $1, 'learning', 'course', uuidv7(), 'storyloom.content.v1.CourseChanged', '', now())
"""
# In the long run a school with something of everything is made first.
pytestmark = pytest.mark.timeout(600 if PROOF else 120)
# Of what the population of tests has nothing yet.
MOST_EMPTY = 6
KEYS, TENANTS = "audit/subject_keys.csv", "identity/tenants.csv"
# What sums over all learners are is worked out a moment after it changed.
TOTALS = ("pending_sums", "tenant_activity", "story_difficulties", "word_difficulties", "story_words")
LATER = {"identity/tenants.csv", *(f"learning/{name}.csv" for name in TOTALS)}
if PROOF:
    # With something of everything somebody is being erased, which goes on elsewhere.
    LATER |= {f"identity/{name}.csv" for name in ("users", "erasures", "erasure_receipts")}


@pytest.fixture(scope="module")
async def leaving(school: School) -> Leaving:
    return await (populated(school.stack) if PROOF else found(school.root, "willow"))


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, Path]:
    """An age recipient, and the file of its identity."""
    made = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{made}\n")
    return str(made.to_public()), tmp_path / "identity"


async def trusting(there: Stack, archive: Path, identity: Path) -> None:
    """Has the installation know the key that signed the log, as it is told when it does not."""
    with pytest.raises(RunError, match="key that this installation does not know") as told:
        await bring_in(of(there), archive, identity=identity)
    public = str(told.value)[str(told.value).index("[") :].partition("]")[0] + "]"
    for name in ("audit", "content"):
        there.environments[name]["AUDIT_EARLIER_KEYS"] = public


async def is_sound(there: Cluster) -> None:
    urls = {role: there.url(role) for role in ROLES}
    for what in (catalog(there.superuser_url), isolation(there.superuser_url, urls), proofs(there.superuser_url)):
        assert (await what)[1] == []


def files_in(folder: Path) -> dict[str, bytes]:
    """Recordings, by their place in an archive."""
    return {f"files/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestLeaving:
    async def test_a_school_goes_on_elsewhere_as_it_was(
        self,
        leaving: Leaving,
        stack: Stack,
        key: tuple[str, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (recipient, identity), one, archive = key, leaving.tenant_id, tmp_path / "willow.age"
        await export(of(stack), one, archive, recipient=recipient)
        assert archive.stat().st_mode & 0o777 == 0o600
        there = Stack(await elsewhere(stack.cluster))
        await trusting(there, archive, identity)
        assert not any(data.count(b"\n") > 1 for data in (await rows_of(there.cluster.owner_url, one)).values())
        await bring_in(of(there), archive, identity=identity)
        wanted, got = members(archive, identity), await rows_of(there.cluster.owner_url, one)
        # Besides the keys its status alone is another: somebody is to look first.
        assert {name for name in got if wanted[name] != got[name]} == {KEYS, TENANTS}
        assert (b",active," in wanted[TENANTS], b",suspended," in got[TENANTS]) == (True, True)
        assert keys_of(wanted[KEYS]) == keys_of(got[KEYS], partial(of(there).wrapper.unwrap, one))
        storage = Path(there.environments["content"]["STORAGE_DIRECTORY"], str(one))
        assert files_in(storage) == {name: data for name, data in wanted.items() if name.startswith("files/")}
        await is_sound(there.cluster)
        await there.start(monkeypatch)
        try:
            await self._goes_on(there, leaving)
            await self._leaves_again(there, leaving, key, wanted)
        finally:
            await there.stop()

    async def _goes_on(self, there: Stack, leaving: Leaving) -> None:
        """People sign in with their passwords, read and write; what the log says of them can be read, and it grows."""
        root = await there.sign_in("platform", PLATFORM_EMAIL)
        await ask(root, "ResumeTenant", id=str(leaving.tenant_id))
        teacher = await there.sign_in(leaving.slug, leaving.teacher.email)
        assert (await ask(teacher, "GetCourse", id=leaving.course)).title == leaving.title
        await ask(teacher, "CreateTag", tag={"name": "elsewhere"})
        await there.settle()
        admin = await there.sign_in(leaving.slug, leaving.admin.email)
        logs = (await ask(admin, "ListAuditLogs", page_size=100, entity_type="user")).audit_logs
        assert leaving.student.email in {dict(log.new_values).get("email") for log in logs}
        logs = (await ask(admin, "ListAuditLogs", page_size=100)).audit_logs
        done = {f"{log.action} {log.entity_type}" for log in logs}
        assert {"export tenant", "import tenant", "create tag"} <= done
        await is_sound(there.cluster)

    async def _leaves_again(
        self, there: Stack, leaving: Leaving, key: tuple[str, Path], wanted: dict[str, bytes]
    ) -> None:
        """Out of the second installation as out of the first, but for what was done there."""
        recipient, identity = key
        again = identity.with_name("again.age")
        await export(of(there), leaving.tenant_id, again, recipient=recipient)
        got = members(again, identity)
        new = {"content/tags.csv", "content/tenant_settings.csv", TENANTS, "manifest.json", SUMS, SIGNATURE, *LATER}
        assert {name for name in wanted if got[name] != wanted[name] and not name.startswith("audit/")} <= new
        log = "audit/tree_leaves.csv"
        assert set(wanted[log].splitlines()) < set(got[log].splitlines())


class TestRefusals:
    async def test_while_an_event_is_on_its_way_nobody_leaves(
        self, leaving: Leaving, stack: Stack, tmp_path: Path
    ) -> None:
        database = await connect(stack.cluster.owner_url)
        await database.execute(PARK, leaving.tenant_id)
        try:
            with pytest.raises(RunError, match="1 of them parked"):
                await export(of(stack), leaving.tenant_id, tmp_path / "willow.tar.gz")
        finally:
            await database.execute("DELETE FROM content.outbox WHERE tenant_id = $1", leaving.tenant_id)
            await database.close()
        assert not os.listdir(tmp_path)

    async def test_neither_the_platform_nor_another_file_is_taken(
        self, leaving: Leaving, stack: Stack, tmp_path: Path
    ) -> None:
        out = tmp_path / "willow.tar.gz"
        out.touch()
        with pytest.raises(RunError, match="there already"):
            await export(of(stack), leaving.tenant_id, out)
        with pytest.raises(RunError, match="platform's own tenant"):
            await export(of(stack), SYSTEM_TENANT, tmp_path / "platform.tar.gz")
        with pytest.raises(RunError, match="not an age recipient"):
            await export(of(stack), leaving.tenant_id, tmp_path / "willow.age", recipient="age1x")
        assert os.listdir(tmp_path) == [out.name]

    def test_a_key_that_is_not_known_is_told_as_the_setting_takes_it(self) -> None:
        """Whatever signs are in it."""
        mine = os.urandom(32)
        for _ in range(50):
            theirs = Signer(os.urandom(32))
            told = json.dumps(public_of(theirs.verifier_keys(SYSTEM_TENANT)))
            head = Head(SYSTEM_TENANT, 1, mine)
            known = Signer.of(base64.urlsafe_b64encode(mine).decode(), told)
            assert known.opened(theirs.sign(head)) == head


class TestPuttingBack:
    @pytest.fixture
    def environment(self, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What the command line needs; the file of the operator's password."""
        for name, value in (stack.environments["content"] | {"OWNER_DATABASE_URL": stack.cluster.owner_url}).items():
            monkeypatch.setenv(name, value)
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        return tmp_path / "password"

    async def run(self, password: Path, *arguments: str) -> int:
        who = ("--user", PLATFORM_EMAIL, "--password-file", str(password), "--json")
        return await asyncio.to_thread(main, [*arguments, *who])

    async def test_gives_a_school_back_what_it_had_and_leaves_its_log_and_other_schools_alone(
        self, school: School, leaving: Leaving, environment: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        archive, one, slug = tmp_path / "willow.tar.gz", leaving.tenant_id, leaving.slug
        gone = await ask(leaving.admin, "CreateUser", user={"email": f"gone@{slug}.example", "display_name": "Gone"})
        assert await self.run(environment, "tenants", "export", slug, "--out", str(archive)) == 0
        told = json.loads(capfd.readouterr().out)
        assert (told["slug"], told["files"], len(told["sha256"])) == (slug, 1, 64)
        wanted = members(archive)
        # Who was erased since goes again, whatever an archive says of its time.
        said = json.loads(wanted["manifest.json"]) | {"snapshot_time": f"{datetime.now(UTC) + timedelta(hours=12)}"}
        forged(archive, wanted | {"manifest.json": json.dumps(said).encode()}, of(school.stack).signer.keys)
        await self._goes_wrong(school, leaving, gone.id)
        assert await self.run(environment, "tenants", "import", str(archive), "--replace") == 2
        assert "suspended" in capfd.readouterr().err
        await self.run(environment, "tenants", "suspend", slug)
        await school.settle()
        log = set((await rows_of(school.stack.cluster.owner_url, one))["audit/audit_logs.csv"].splitlines())
        others = [await rows_of(school.stack.cluster.owner_url, who) for who in self._others(school)]
        assert await self.run(environment, "tenants", "import", str(archive), "--replace") == 0
        assert json.loads(capfd.readouterr().out.splitlines()[-1])["status"] == "suspended"
        assert others == [await rows_of(school.stack.cluster.owner_url, who) for who in self._others(school)]
        got = await rows_of(school.stack.cluster.owner_url, one)
        kept = {f"{name.replace('.', '/')}.csv" for name in KEPT}
        erased = {"identity/users.csv"}
        assert {name for name in got if got[name] != wanted[name]} <= kept | LATER | erased
        assert log <= set(got["audit/audit_logs.csv"].splitlines())
        await self.run(environment, "tenants", "resume", slug)
        await self._is_well(school, leaving, gone.id)

    async def test_waits_for_an_audit_service_that_knows_the_keys(
        self, school: School, environment: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        key = base64.urlsafe_b64encode(os.urandom(32)).decode()
        monkeypatch.setenv("AUDIT_EARLIER_KEYS", json.dumps([key]))
        assert await self.run(environment, "tenants", "import", "willow.tar.gz") == 2
        assert f"The audit service runs without {key}:" in capfd.readouterr().err

    def _others(self, school: School) -> list[UUID]:
        return [UUID(school.admin.tenant_id), UUID(school.outsider_admin.tenant_id)]

    async def _goes_wrong(self, school: School, leaving: Leaving, gone: str) -> None:
        """A fault of the school's own, and what must not come back with what it took."""
        await ask(leaving.teacher, "CreateTag", tag={"name": "wrong"})
        await ask(leaving.teacher, "UpdateCourse", course={"id": leaving.course, "title": "Wrong"})
        owner = await connect(school.stack.cluster.owner_url)
        await owner.execute("DELETE FROM learning.user_progress WHERE tenant_id = $1", leaving.tenant_id)
        await owner.close()
        await ask(leaving.admin, "DeleteUser", id=gone)
        erasure = await ask(leaving.admin, "PurgeUser", user_id=gone)
        await self._erased(leaving.admin, erasure.id)

    async def _erased(self, admin: Person, erasure_id: str) -> None:
        async with asyncio.timeout(20):
            while (await ask(admin, "GetErasure", id=erasure_id)).state != ERASURE_STATE_DONE:
                await asyncio.sleep(0.1)

    async def _is_well(self, school: School, leaving: Leaving, gone: str) -> None:
        """People sign in anew, whoever was erased is gone again, and the one log tells all of it."""
        admin = await school.stack.sign_in(leaving.slug, leaving.admin.email)
        assert (await ask(admin, "GetCourse", id=leaving.course)).title == leaving.title
        (erasure,) = [one for one in (await ask(admin, "ListErasures")).erasures if one.subject_id == gone]
        await self._erased(admin, erasure.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await ask(admin, "UndeleteUser", id=gone)
        await school.settle()
        for about in ("export", "import"):
            logs = (await ask(admin, "ListAuditLogs", action=about, entity_type="tenant")).audit_logs
            assert logs[0].user_id == school.root.user_id
        told = dict(logs[0].new_values)
        assert 0 < told["signed_entries"] <= told["entries"]
        assert told["key"] == as_text(of(school.stack).signer.keys.public[0])
        assert (await proofs(school.stack.cluster.superuser_url))[1] == []


class TestTables:
    async def test_none_of_a_tenant_is_missed(self, cluster: Cluster) -> None:
        database = await connect(cluster.owner_url)
        found = {one.name: one for one in await all_tables(database)}
        await database.close()
        declared = {
            f"{service}.{table.name}"
            for service in SERVICES
            for table in metadata_of(service).tables.values()
            if "tenant_id" in table.columns
        }
        assert found.keys() == declared
        assert LEFT_OUT.keys() <= declared
        assert declared - LEFT_OUT.keys() >= KEPT

    @pytest.mark.skipif(not PROOF, reason="takes a school with something of everything")
    async def test_all_have_rows_in_the_long_run(self, leaving: Leaving, cluster: Cluster) -> None:
        rows = await rows_of(cluster.owner_url, leaving.tenant_id)
        empty = {name for name, data in rows.items() if data.count(b"\n") < 2}
        assert len(empty) <= MOST_EMPTY, empty
