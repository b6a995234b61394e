"""Trees grow by every entry once, whatever happens meanwhile, and nothing is signed that contradicts what was."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest

from kit.ids import new_id
from kit.settings import SettingsError
from services.audit import merkle, trees
from services.audit.publishing import Publisher
from services.audit.queries.trees import node_id
from services.audit.signing import Head, Signer
from services.audit.trees import Rewritten, Trees
from tests.audit.growing import database, deliver, event
from tests.stack import School, random_key

LEAVES = """
SELECT l.leaf, t.leaf_index, t.hash FROM audit.tree_leaves t JOIN audit.audit_logs l USING (tenant_id, id)
WHERE tenant_id = $1 ORDER BY leaf_index
"""
STATE = "SELECT size, signed_size, unsigned_since FROM audit.trees WHERE tenant_id = $1"
MINUTE = 60.0


class Forest:
    """Trees of a tenant of their own, which no other process grows; `gardeners` as many processes as are wanted."""

    def __init__(self, school: School, directory: Path) -> None:
        self.school, self.directory, self.tenant_id = school, directory, new_id()
        self.db = school.stack.services["audit"].db
        self.signer = Signer(b"k" * 32)

    def gardener(self, *, seconds: float = 0.0, directory: str | None = None) -> Trees:
        where = str(self.directory) if directory is None else directory
        return Trees(self.db, self.signer, Publisher(where), seconds=seconds)

    async def plant(self, count: int) -> None:
        """Entries whose turn it is. The running service's own trees look away meanwhile."""
        await deliver(self.school, *(event(str(self.tenant_id)) for _ in range(count)))

    async def nodes(self) -> dict[merkle.Node, bytes]:
        """Of the tree that the entries make, having looked whether the stored one is the same."""
        async with database(self.school) as superuser:
            rows = await superuser.fetch(LEAVES, self.tenant_id)
            stored = await superuser.fetch("SELECT id, hash FROM audit.tree_nodes WHERE tenant_id = $1", self.tenant_id)
        hashes = [merkle.leaf_hash(row["leaf"]) for row in rows]
        assert [row["leaf_index"] for row in rows] == list(range(len(rows)))
        assert [row["hash"] for row in rows] == hashes
        inner = dict(merkle.grow(0, [], hashes))
        assert {row["id"]: row["hash"] for row in stored} == {node_id(node): one for node, one in inner.items()}
        return {(0, index): one for index, one in enumerate(hashes)} | inner

    async def state(self) -> Any:
        async with database(self.school) as superuser:
            return await superuser.fetchrow(STATE, self.tenant_id)

    async def heads(self) -> list[Head]:
        async with database(self.school) as superuser:
            rows = await superuser.fetch(
                "SELECT signed_text FROM audit.checkpoints WHERE tenant_id = $1 ORDER BY tree_size", self.tenant_id
            )
        return [self.signer.opened(row[0]) for row in rows]

    def published(self) -> str:
        file = self.directory / f"{self.tenant_id}.txt"
        return file.read_text() if file.exists() else ""

    async def tamper(self, statement: str, *values: Any) -> None:
        async with database(self.school) as superuser, superuser.transaction():
            await superuser.execute("SET LOCAL session_replication_role = replica")
            await superuser.execute(statement, self.tenant_id, *values)


@pytest.fixture(scope="module")
async def quiet(school: School) -> AsyncIterator[School]:
    """A school whose audit service does not grow trees itself."""

    async def nothing(self: Trees) -> None:
        await asyncio.sleep(0)

    with patch.object(Trees, "step", nothing):
        await asyncio.sleep(2 * trees.PERIOD_SECONDS)
        yield school


@pytest.fixture
async def forest(quiet: School, tmp_path: Path) -> AsyncIterator[Forest]:
    made = Forest(quiet, tmp_path)
    yield made
    # What was done to it must not keep the running service busy for ever.
    await made.tamper("DELETE FROM audit.tree_queue WHERE tenant_id = $1")
    await made.tamper("DELETE FROM audit.trees WHERE tenant_id = $1")


async def exhaust(gardener: Trees, tenant_id: UUID) -> None:
    while await gardener.grow(tenant_id):
        pass


class TestGrowing:
    @pytest.mark.parametrize("batches", [[1], [1, 1, 1, 2], [16, 15, 1], [200, 57]])
    async def test_makes_the_tree_of_all_entries_in_the_order_of_their_arrival(
        self, forest: Forest, batches: list[int]
    ) -> None:
        gardener = forest.gardener()
        for number in batches:
            await forest.plant(number)
            await exhaust(gardener, forest.tenant_id)
        nodes = await forest.nodes()
        heads = await forest.heads()
        assert [head.size for head in heads] == [sum(batches[: end + 1]) for end in range(len(batches))]
        assert all(head.root == merkle.root(head.size, nodes) for head in heads)

    async def test_by_several_processes_at_once_is_the_same(self, forest: Forest) -> None:
        gardeners = [forest.gardener(seconds=MINUTE) for _ in range(3)]
        with patch.object(trees, "BATCH", 7):
            for _ in range(5):
                await forest.plant(60)
                await asyncio.gather(*(exhaust(one, forest.tenant_id) for one in gardeners))
            await exhaust(gardeners[0], forest.tenant_id)
        assert len(await forest.heads()) == 300 // 7
        nodes = await forest.nodes()
        assert len([node for node in nodes if node[0] == 0]) == 300

    async def test_is_all_or_nothing_wherever_it_breaks_off(self, forest: Forest) -> None:
        gardener = forest.gardener()
        await forest.plant(5)
        for name in ("list_queued", "list_hashes", "append_leaves", "set_signed"):
            with breaking_after(name), pytest.raises(ConnectionError):
                await gardener.grow(forest.tenant_id)
            assert await forest.state() is None
            assert await forest.heads() == []
        await exhaust(gardener, forest.tenant_id)
        assert [head.size for head in await forest.heads()] == [5]
        await forest.nodes()

    async def test_goes_on_for_others_when_one_tree_is_stuck(self, forest: Forest, quiet: School) -> None:
        other = Forest(quiet, forest.directory)
        await forest.plant(2)
        await exhaust(forest.gardener(), forest.tenant_id)
        await forest.tamper("DELETE FROM audit.tree_leaves WHERE tenant_id = $1 AND leaf_index = 1")
        await forest.plant(1)
        await other.plant(1)
        gardener = forest.gardener()
        assert [await gardener._grow_safely(one.tenant_id) for one in (forest, other)] == [False, False]
        assert (await other.state())["size"] == 1


class TestCheckpoints:
    async def test_wait_for_their_time(self, forest: Forest) -> None:
        patient = forest.gardener(seconds=MINUTE)
        await forest.plant(3)
        await exhaust(patient, forest.tenant_id)
        assert (await forest.state())["size"] == 3
        assert await forest.heads() == []
        await forest.tamper("UPDATE audit.trees SET unsigned_since = now() - interval '61 s' WHERE tenant_id = $1")
        await exhaust(patient, forest.tenant_id)
        assert [head.size for head in await forest.heads()] == [3]

    async def test_are_never_more_than_so_many_entries_apart(self, forest: Forest) -> None:
        with patch.object(trees, "BATCH", 10):
            for number in (4, 33):
                await forest.plant(number)
                await exhaust(forest.gardener(seconds=MINUTE), forest.tenant_id)
        assert [head.size for head in await forest.heads()] == [10, 20, 30]
        assert (await forest.state())["size"] == 37

    async def test_are_not_repeated_while_nothing_comes(self, forest: Forest) -> None:
        gardener = forest.gardener()
        await forest.plant(1)
        for _ in range(3):
            await exhaust(gardener, forest.tenant_id)
        assert len(await forest.heads()) == 1

    @pytest.mark.parametrize("seconds", [-1.0, 60.5])
    def test_may_not_wait_longer_than_a_minute(self, forest: Forest, seconds: float) -> None:
        with pytest.raises(SettingsError, match="AUDIT_CHECKPOINT_SECONDS"):
            forest.gardener(seconds=seconds)


class TestPublishing:
    async def test_adds_each_checkpoint_to_the_tenants_file(self, forest: Forest) -> None:
        gardener = forest.gardener()
        texts = ""
        for number in (1, 5):
            await forest.plant(number)
            await exhaust(gardener, forest.tenant_id)
            assert forest.published().startswith(texts)
            texts = forest.published()
        assert texts == "".join(forest.signer.sign(head) for head in await forest.heads())

    async def test_makes_up_for_what_a_crash_kept_from_it(self, forest: Forest) -> None:
        await forest.plant(2)
        await exhaust(forest.gardener(directory=""), forest.tenant_id)
        (forest.directory / f"{forest.tenant_id}.txt").write_text("storyloom/au")
        await forest.plant(1)
        await exhaust(forest.gardener(), forest.tenant_id)
        whole = "".join(forest.signer.sign(head) for head in await forest.heads())
        assert forest.published() == f"storyloom/au\n{whole}"

    async def test_by_two_processes_repeats_nothing(self, forest: Forest) -> None:
        publisher, text = Publisher(str(forest.directory)), forest.signer.sign(Head(forest.tenant_id, 1, b"r" * 32))
        for _ in range(2):
            publisher.add(forest.tenant_id, [text])
        assert forest.published() == text == publisher.latest(forest.tenant_id)


class TestRewriting:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit.tree_leaves SET hash = sha256('x') WHERE tenant_id = $1 AND leaf_index = 4",
            "UPDATE audit.tree_nodes SET hash = sha256('x') WHERE tenant_id = $1",
            "DELETE FROM audit.tree_nodes WHERE tenant_id = $1",
            "UPDATE audit.checkpoints SET root_hash = sha256('x'), signed_text = replace(signed_text, '=', 'A')"
            " WHERE tenant_id = $1",
        ],
    )
    async def test_is_not_signed(self, forest: Forest, statement: str, caplog: pytest.LogCaptureFixture) -> None:
        gardener = forest.gardener(directory="")
        await forest.plant(5)
        await exhaust(gardener, forest.tenant_id)
        await forest.tamper(statement)
        await forest.plant(4)
        fresh = forest.gardener(directory="")
        caplog.set_level(logging.CRITICAL)
        assert not await fresh._grow_safely(forest.tenant_id)
        assert (await forest.state())["signed_size"] == 5

    async def test_back_to_an_older_backup_is_not_signed(self, forest: Forest) -> None:
        """Neither by the process that remembers, nor by one that finds the published checkpoint."""
        gardener = forest.gardener()
        await forest.plant(5)
        await exhaust(gardener, forest.tenant_id)
        for table in ("checkpoints", "tree_leaves", "tree_nodes", "trees", "tree_queue"):
            await forest.tamper(f"DELETE FROM audit.{table} WHERE tenant_id = $1")
        await forest.plant(3)
        remembering = forest.gardener(directory="")
        remembering._signed = gardener._signed
        for one in (forest.gardener(), remembering):
            with pytest.raises(Rewritten, match="it has 3 entries, and 5 were signed"):
                await one.grow(forest.tenant_id)

    async def test_stops_the_signing_not_the_growing(
        self, forest: Forest, caplog: pytest.LogCaptureFixture
    ) -> None:
        await forest.plant(5)
        await exhaust(forest.gardener(), forest.tenant_id)
        await forest.tamper("UPDATE audit.checkpoints SET signed_text = 'x' WHERE tenant_id = $1")
        gardener = forest.gardener()
        with patch.object(trees, "BATCH", 3):
            await forest.plant(8)
            for _ in range(5):
                await gardener._grow_safely(forest.tenant_id)
        state = await forest.state()
        assert (state["size"], state["signed_size"]) == (13, 5)
        assert [one.levelname for one in caplog.records if "behind the service" in one.message] == ["CRITICAL"]

    async def test_of_what_a_tree_grows_from_lets_it_be_tried_ever_less_often(self, forest: Forest) -> None:
        await forest.plant(5)
        await exhaust(forest.gardener(), forest.tenant_id)
        await forest.tamper("DELETE FROM audit.tree_nodes WHERE tenant_id = $1")
        await forest.plant(1)
        gardener, seconds, tries = forest.gardener(directory=""), 1000.0, 0
        with patch.object(trees, "monotonic", lambda: seconds):
            while seconds < 1120.0:
                if not gardener._rests(forest.tenant_id):
                    tries += 1
                    assert not await gardener._grow_safely(forest.tenant_id)
                seconds += trees.PERIOD_SECONDS
        assert 5 < tries < 12

    async def test_by_who_changed_the_key_without_keeping_the_old_one_is_what_it_looks_like(
        self, forest: Forest
    ) -> None:
        await forest.plant(1)
        await exhaust(forest.gardener(), forest.tenant_id)
        before = forest.signer
        forest.signer = Signer(b"n" * 32)
        await forest.plant(1)
        with pytest.raises(Rewritten, match="not signed by a key of this service"):
            await forest.gardener().grow(forest.tenant_id)
        forest.signer = Signer(b"n" * 32, [before._public[0]])
        await exhaust(forest.gardener(), forest.tenant_id)
        assert [head.size for head in await forest.heads()] == [1, 2]


class TestSigner:
    def test_of_settings_knows_the_keys_that_signed_before(self) -> None:
        tenant_id, old = new_id(), Signer.of(random_key(), "")
        text = old.sign(Head(tenant_id, 3, b"r" * 32))
        octets = base64.b64decode(old.verifier_keys(tenant_id)[0].split("+", 2)[2])[1:]
        new = Signer.of(random_key(), json.dumps([base64.urlsafe_b64encode(octets).decode()]))
        assert new.opened(text).size == 3
        assert new.verifier_keys(tenant_id)[1:] == old.verifier_keys(tenant_id)
        with pytest.raises(ValueError, match="not signed"):
            Signer.of(random_key(), "").opened(text)

    @pytest.mark.parametrize(
        ("key", "earlier"), [("", ""), ("x", ""), ("A" * 43, "x"), ("A" * 43, "{}"), ("A" * 43, "[1]")]
    )
    def test_of_wrong_settings_is_refused(self, key: str, earlier: str) -> None:
        with pytest.raises(SettingsError, match="AUDIT_"):
            Signer.of(key, earlier)


def breaking_after(name: str) -> Any:
    """The connection is lost right after the statement."""
    statement = getattr(trees.trees, name)

    async def broken(*args: Any, **kwargs: Any) -> None:
        await statement(*args, **kwargs)
        raise ConnectionError(name)

    return patch.object(trees.trees, name, broken)
