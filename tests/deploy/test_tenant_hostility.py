"""Archives that were tampered with, or made to harm: refused, and nothing of them stays."""

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local.errors import RunError
from deploy.tenants import archive
from deploy.tenants.exporting import export
from deploy.tenants.importing import bring_in
from deploy.tenants.installation import Installation
from deploy.tenants.tables import all_tables, connect
from kit.ids import SYSTEM_TENANT, new_id
from kit.settings import Settings
from services.audit.sealing import Wrapper
from services.audit.signing import Signer
from services.content.storage import Storage
from tests.deploy.leaving import forged, found, members, of
from tests.postgres import Cluster
from tests.profile import PROOF
from tests.stack import School

Parts = dict[str, bytes]
NOTES = {"content.stored_files"}
LATER = "SELECT count(*) FROM content.stored_files WHERE tenant_id = $1 AND due_at > now() + interval '15 minutes'"
STRANGER = str(uuid4())


@dataclass
class Attacked:
    """An installation without this school, and what is in the archive of it. `counted` is the query of how many rows of
    it there are."""

    here: Installation
    tenant_id: str
    parts: Parts
    folder: Path
    counted: str

    def forged(self, parts: Parts) -> Path:
        """Signed as if it were this installation's own: whoever makes one may be trusted, and hostile all the same."""
        return forged(self.folder / "forged.tar.gz", parts, self.here.signer.keys)

    async def refuses(self, path: Path, why: str, **how: Any) -> None:
        """That the archive is refused, and leaves no row behind."""
        with pytest.raises(RunError, match=why):
            await bring_in(how.pop("here", self.here), path, **how)
        database = await asyncpg.connect(self.here.owner_url)
        try:
            assert await database.fetchval(self.counted) == 0
            # A file that no row came for goes with the next sweep.
            assert await database.fetchval(LATER, UUID(self.tenant_id)) == 0
        finally:
            await database.close()


async def forgotten(cluster: Cluster, tenant_id: UUID) -> str:
    """Has the tenant never been there; the query of how many rows it has."""
    database = await connect(cluster.superuser_url)
    names = [table.name for table in await all_tables(database)]
    # What audit is about to sign would be there again.
    while await database.fetchval("SELECT EXISTS (SELECT FROM audit.tree_queue WHERE tenant_id = $1)", tenant_id):
        await asyncio.sleep(0.05)
    await database.execute("SET session_replication_role = replica")
    for name in names:
        await database.execute(f"DELETE FROM {name} WHERE tenant_id = '{tenant_id}'")
    await database.close()
    counts = (f"(SELECT count(*) FROM {name} WHERE tenant_id = '{tenant_id}')" for name in names if name not in NOTES)
    return f"SELECT {' + '.join(counts)}"


@pytest.fixture(scope="module")
async def attacked(school: School) -> AsyncIterator[Attacked]:
    one, ours = await found(school.root, "poplar"), of(school.stack)
    with tempfile.TemporaryDirectory(prefix="sl-") as name:
        folder = Path(name)
        await export(ours, one.tenant_id, folder / "poplar.tar.gz")
        environment = school.stack.environments["content"] | {"STORAGE_DIRECTORY": str(folder / "storage")}
        store = Storage(Settings.from_environment("content", environment))
        here = replace(ours, storage=store)
        await school.settle()
        counted = await forgotten(school.stack.cluster, one.tenant_id)
        yield Attacked(here, str(one.tenant_id), members(folder / "poplar.tar.gz"), folder, counted)


def edited(member: str, old: str, new: str, times: int = 1) -> Callable[[Parts], None]:
    """What replaces text of a member, patterns of it by patterns."""

    def edit(parts: Parts) -> None:
        text, done = re.subn(old, new, parts[member].decode(), count=times)
        assert done, (member, old)
        parts[member] = text.encode()

    return edit


def forging(member: str) -> Callable[[Parts], None]:
    """What begins the first bytes of a member with others."""
    return edited(member, r"\\x[0-9a-f]{8}", r"\\x00000000")


def without(member: str) -> Callable[[Parts], None]:
    def drop(parts: Parts) -> None:
        del parts[member]

    return drop


def said(**values: Any) -> Callable[[Parts], None]:
    """What has the manifest say something else."""

    def say(parts: Parts) -> None:
        parts["manifest.json"] = json.dumps(json.loads(parts["manifest.json"]) | values).encode()

    return say


def of_the_platform(parts: Parts) -> None:
    """Everything as if it were the platform's own: keys that sign tokens, staff, their rights."""
    tenant = json.loads(parts["manifest.json"])["tenant_id"].encode()
    for name in parts:
        parts[name] = parts[name].replace(tenant, str(SYSTEM_TENANT).encode())


def beyond_the_user(parts: Parts) -> None:
    """Roles of somebody who is not among the users."""
    name = "identity/user_roles.csv"
    parts[name] = re.sub(rb"[0-9a-f-]{36}(?=\n)", STRANGER.encode(), parts[name], count=1)


def rewriting(parts: Parts) -> None:
    """An entry that says something else, in its proven bytes and beside them."""
    name = "audit/audit_logs.csv"
    ours, theirs = b'"action":"create"'.hex().encode(), b'"action":"delete"'.hex().encode()
    line = next(line for line in parts[name].splitlines() if ours in line)
    parts[name] = parts[name].replace(line, line.replace(ours, theirs).replace(b"create", b"delete"))


def row_more(member: str, **values: str) -> Callable[[Parts], None]:
    """A row that has these values, and nothing in other columns."""

    def add(parts: Parts) -> None:
        manifest = json.loads(parts["manifest.json"])
        columns = parts[member].decode().splitlines()[0].split(",")
        row = {"tenant_id": manifest["tenant_id"], "id": str(uuid4()), "revision": "1"} | values
        parts[member] += f"{','.join(row.get(name, '') for name in columns)}\n".encode()
        manifest["rows"][member.removesuffix(".csv").replace("/", ".")] += 1
        parts["manifest.json"] = json.dumps(manifest).encode()

    return add


LOG, UNTIMELY = "audit/audit_logs.csv", "entries of before 2020, of over a day after"
FAR = "2099-01-01 00:00:00+00"
ERASURE = {"subject_id": STRANGER, "requester_id": STRANGER, "receipts": "{}"}
ERASURE |= dict.fromkeys(("created_at", "updated_at"), "2026-11-22 12:00:00+00")


def another_sound(parts: Parts) -> None:
    (name,) = [one for one in parts if one.startswith("files/")]
    parts[name] = parts[name][::-1]


ATTACKS: dict[str, tuple[Callable[[Parts], None], str]] = {
    "a row of another tenant": (
        edited("content/courses.csv", r"(?<=\n)(.*?)([0-9a-f-]{36}),Mèo", rf"\g<1>{STRANGER},Mèo"),
        "content/courses.csv is refused by the database: .*tenant",
    ),
    "rows of the platform": (of_the_platform, "platform's own tenant"),
    "the platform in the manifest": (said(tenant_id=str(SYSTEM_TENANT)), "platform's own tenant"),
    "a column that there is not": (edited("content/courses.csv", "author_id", "author_ip"), "has other columns"),
    "a table less": (without("content/tags.csv"), "content/tags.csv should come"),
    "a table more": (
        lambda parts: parts.update({"identity/signing_keys.csv": b"id\n"}),
        "there is more in it than its rows name",
    ),
    "a table that no archive has": (said(rows={"identity.signing_keys": 0}), "other tables than its migrations make"),
    "other migrations": (said(revisions={}), "other migrations: identity is at None"),
    "another format": (said(format=2), "format 2"),
    "no manifest": (edited("manifest.json", "tenant_id", "nobody"), "says nothing that could be understood"),
    "numbers that are none": (said(files="1"), "says nothing that could be understood"),
    "rows more than it says": (edited("manifest.json", r"(courses.: )1", r"\g<1>2"), "another number"),
    "a value of another type": (edited("content/courses.csv", ",1,|,2,", ",two,"), "courses.csv is refused"),
    "a value that is not allowed": (edited("content/courses.csv", "published", "hidden"), "ck_courses_status"),
    "a reference to nobody": (beyond_the_user, "fk_user_roles"),
    "a row twice": (
        lambda parts: parts.update({"identity/roles.csv": parts["identity/roles.csv"] * 2}),
        "identity/roles.csv is refused|another number",
    ),
    "a tenant that is not the one": (edited("identity/tenants.csv", "poplar", "Pop lar"), "slug that no tenant"),
    "the end of another school": (
        row_more("identity/erasures.csv", subject_type="tenant", state="pending", **ERASURE),
        "erasures of tenants",
    ),
    "the end of another school, at the next restore": (
        row_more("identity/erasures.csv", subject_type="tenant", state="done", complete_time=FAR, **ERASURE),
        "erasures of tenants",
    ),
    "settings that nobody can read": (
        edited("identity/tenants.csv", '""story_language""', '""story_length""'),
        "slug that no tenant .*settings",
    ),
    "a name that no tenant can have": (
        edited("identity/tenants.csv", "“B”", "“B”" * 100),
        "slug that no tenant .*settings",
    ),
    "a row less": (edited("learning/statements.csv", r"(?<=\n).*\n", ""), "another number"),
    "an entry of the log that was edited": (
        edited("audit/audit_logs.csv", r"(?<=\n),create", ",delete"),
        "looked for by something else",
    ),
    "an entry of the log that was rewritten": (rewriting, "entries are not what the tree has"),
    "a tree of other entries": (forging("audit/tree_nodes.csv"), "not that of its entries"),
    "a checkpoint of another root": (forging("audit/checkpoints.csv"), "another root"),
    "an entry of long ago": (row_more(LOG, id="00000000-0000-7000-8000-000000000000"), UNTIMELY),
    "an entry of decades ahead": (row_more(LOG, id="036fffff-ffff-7000-8000-000000000000"), UNTIMELY),
    "an entry that is far ahead of its id": (row_more(LOG, id=str(new_id()), occurred_at=FAR), UNTIMELY),
    "an entry whose id has no time": (row_more(LOG), UNTIMELY),
    "a date that is to come": (said(snapshot_time="2099-01-01T00:00:00+00:00"), "which is still to come"),
    "a checkpoint that nobody signed": (
        edited("audit/checkpoints.csv", r"(— \S+ \S{6})\S{8}", r"\1AAAAAAAA"),
        "does not know",
    ),
    "a key that was made up": (forging("audit/subject_keys.csv"), "does not open the subjects' keys"),
    "a key that is no key": (edited("audit/subject_keys.csv", r"\\x[0-9a-f]{8}", "xyz"), "not as an export writes"),
    "a recording with other bytes": (another_sound, "recording .* is refused"),
    "a recording outside": (
        edited("content/audios.csv", r"/audio/([0-9a-f-]{36})", r"/../../audio/\1"),
        "a name that this storage does not have|should come",
    ),
    "a recording of another tenant": (
        edited("content/audios.csv", r"[0-9a-f-]{36}/audio/", f"{STRANGER}/audio/"),
        "ck_audios_storage_key",
    ),
}


# Those that would harm others, or be believed, when they came through.
DANGEROUS = (
    *("a row of another tenant", "rows of the platform", "a table that no archive has", "a reference to nobody"),
    *("the end of another school", "settings that nobody can read"),
    *("an entry of the log that was edited", "an entry of long ago", "a recording outside"),
)


class TestContents:
    @pytest.mark.parametrize("attack", ATTACKS if PROOF else DANGEROUS)
    async def test_that_are_not_what_an_export_writes_are_refused(self, attacked: Attacked, attack: str) -> None:
        edit, why = ATTACKS[attack]
        parts = dict(attacked.parts)
        edit(parts)
        await attacked.refuses(attacked.forged(parts), why)

    async def test_that_are_exchanged_between_two_readings_leave_no_recording(
        self, attacked: Attacked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows are rolled back, files are not: none may be written before the rows are those that were signed."""
        other = {**attacked.parts}
        time = datetime.fromisoformat(json.loads(other["manifest.json"])["snapshot_time"])
        said(snapshot_time=f"{time - timedelta(seconds=1)}")(other)
        other_file = attacked.forged(other).rename(attacked.folder / "other.tar.gz")
        path, verified = attacked.forged({**attacked.parts}), archive.check_origin

        def exchanging(*signed: Any) -> str:
            key = verified(*signed)
            other_file.replace(path)
            return key

        def written() -> set[Path]:
            return {one for one in (attacked.folder / "storage").rglob("*") if one.is_file()}

        before = written()
        monkeypatch.setattr(archive, "check_origin", exchanging)
        await attacked.refuses(path, "its rows are others")
        assert written() == before

    async def test_that_are_whole_are_taken_when_all_is_undone(self, attacked: Attacked) -> None:
        """That what the attacks are made of is no reason to refuse it."""
        path = attacked.forged(attacked.parts)
        unknown = replace(attacked.here, signer=Signer(os.urandom(32)))
        await attacked.refuses(path, "AUDIT_EARLIER_KEYS", here=unknown)
        other = replace(attacked.here, wrapper=Wrapper(os.urandom(32)))
        await attacked.refuses(path, "does not open the subjects' keys", here=other)
        await attacked.refuses(path, "Only a tenant that is here", replaces=True)
        await attacked.refuses(path, "slug that no tenant", slug="Po lar")
