"""Whatever is done to the log behind the service is found, and where: by random tampering with a model of it (export,
tree and checkpoints, so many thousand times), and by a superuser with a database that real events have filled."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.ids import new_id
from services.audit import merkle, sealing
from services.audit.queries.trees import node_id
from services.audit.signing import Signer
from tests.audit.exporting import Export, Line, Log, make_leaf, verified
from tests.audit.growing import database, deliver, event, grown
from tests.profile import PROOF
from tests.stack import School

# What was exported after the tampering, and the numbers of the entries that are not what they were.
Tampered = tuple[Export, Sequence[int]]
TIMES = 5_000 if PROOF else 300
FOUND = re.compile(r"^entry (\d+)(?:.* one of those up to (\d+))?")
WHOLE = re.compile(r"not signed by the key|two histories|no tree")


def edited(random: Random, leaf: bytes) -> bytes:
    entry = sealing.parsed(leaf)
    name = random.choice(["action", "user_id", "entity_id", "occur_time", "old_values", "new_values"])
    entry[name] = {
        "action": "edited",
        "user_id": str(new_id()),
        "entity_id": str(new_id()),
        "occur_time": "2026-11-22T08:00:00.000001Z",
        "old_values": {"title": "edited"},
        "new_values": {"title": {"sealed": {"subject": "x", "key": str(new_id()), "nonce": "x", "data": "edited"}}},
    }[name]
    return sealing.canonical(entry)


def edit_a_leaf(random: Random, log: Log, export: Export) -> Tampered:
    """The tree's hash of it stays as it was."""
    at, lines = random.randrange(len(export.lines)), list(export.lines)
    lines[at] = Line.of(at, edited(random, log.leaves[at]), lines[at].hash)
    return replace(export, lines=lines), [at]


def edit_a_leaf_and_its_hash(random: Random, log: Log, export: Export) -> Tampered:
    at, lines = random.randrange(len(export.lines)), list(export.lines)
    lines[at] = Line.of(at, edited(random, log.leaves[at]))
    return replace(export, lines=lines), [at]


def edit_what_is_shown(random: Random, log: Log, export: Export) -> Tampered:
    at, lines = random.randrange(len(export.lines)), list(export.lines)
    shown = Line.of(at, edited(random, log.leaves[at])).entry
    if shown.get("newValues", {}).get("title") == "[erased]" and {**shown} == lines[at].entry:
        # One seal looks like another once it is opened.
        shown["action"] = "edited"
    lines[at] = replace(lines[at], entry=shown)
    return replace(export, lines=lines), [at]


def swap(random: Random, log: Log, export: Export) -> Tampered:
    first, second = sorted(random.choices(range(len(export.lines)), k=2))
    lines = list(export.lines)
    lines[first], lines[second] = replace(lines[second], index=first), replace(lines[first], index=second)
    return replace(export, lines=lines), [] if first == second else [first, second]


def remove(random: Random, log: Log, export: Export) -> Tampered:
    at = random.randrange(len(export.lines))
    return replace(export, lines=[*export.lines[:at], *export.lines[at + 1 :]]), [at]


def remove_and_close_the_gap(random: Random, log: Log, export: Export) -> Tampered:
    changed, at = remove(random, log, export)
    return export.with_lines(changed.lines), at


def remove_and_say_that_the_month_was_dropped(random: Random, log: Log, export: Export) -> Tampered:
    at, lines = random.randrange(len(export.lines)), list(export.lines)
    lines[at] = replace(lines[at], leaf=None, id=lines[at].entry["id"])
    # Of a whole month nothing else may be left: then it cannot be told from one that was dropped.
    return replace(export, lines=lines), [at] if len(lines) > 1 else []


def insert(random: Random, log: Log, export: Export) -> Tampered:
    at = random.randrange(len(export.lines))
    new = Line.of(at, make_leaf(random, log.tenant_id, 1000))
    return export.with_lines([*export.lines[:at], new, *export.lines[at:]]), [at]


def insert_besides_the_tree(random: Random, log: Log, export: Export) -> Tampered:
    new = Line.of(None, make_leaf(random, log.tenant_id, 1000))
    return replace(export, lines=[*export.lines, new]), [len(export.lines)]


def insert_a_copy(random: Random, log: Log, export: Export) -> Tampered:
    at = random.randrange(len(export.lines))
    lines = [*export.lines[: at + 1], *export.lines[at:]]
    return export.with_lines(lines), [at, at + 1]


def truncate(random: Random, log: Log, export: Export) -> Tampered:
    size = random.randrange(len(export.lines))
    return replace(export.with_lines(export.lines[:size]), checkpoint=""), [size]


def roll_back(random: Random, log: Log, export: Export) -> Tampered:
    """To what the log truly was, with the checkpoint of that time."""
    size = random.randrange(len(export.lines))
    return log.export(size), [size]


def rewrite_the_end(random: Random, log: Log, export: Export) -> Tampered:
    """From one entry on everything is another, with the last checkpoint that still fits."""
    at = random.randrange(len(export.lines))
    others = [make_leaf(random, log.tenant_id, 1000 + number) for number in range(len(export.lines) - at)]
    lines = [*export.lines[:at], *(Line.of(at, leaf) for leaf in others)]
    fits = max((size for size in log.sizes if size <= at), default=0)
    return replace(export.with_lines(lines), checkpoint=log.checkpoint(fits) if fits else ""), [at]


def rewrite_and_sign_with_another_key(random: Random, log: Log, export: Export) -> Tampered:
    changed, at = rewrite_the_end(random, log, export)
    leaves = [line.leaf or b"" for line in changed.lines]
    return replace(changed, checkpoint=log.checkpoint(len(leaves), leaves, Signer(random.randbytes(32)))), at


def rewrite_and_have_it_signed(random: Random, log: Log, export: Export) -> Tampered:
    """As if the key had been stolen too."""
    changed, at = rewrite_the_end(random, log, export)
    leaves = [line.leaf or b"" for line in changed.lines] + [make_leaf(random, log.tenant_id, 2000)]
    lines = [*changed.lines, Line.of(None, leaves[-1])]
    return replace(changed.with_lines(lines), checkpoint=log.checkpoint(len(leaves), leaves)), at


WAYS: Sequence[Callable[[Random, Log, Export], Tampered]] = (
    *(edit_a_leaf, edit_a_leaf_and_its_hash, edit_what_is_shown, swap),
    *(remove, remove_and_close_the_gap, remove_and_say_that_the_month_was_dropped),
    *(insert, insert_besides_the_tree, insert_a_copy, truncate, roll_back),
    *(rewrite_the_end, rewrite_and_sign_with_another_key, rewrite_and_have_it_signed),
)


def found_at(said: str, changed: Sequence[int]) -> bool:
    """Whether the verifier names one of the entries, or the few among which it is."""
    if WHOLE.search(said):
        return True
    found = FOUND.match(said)
    assert found, said
    first = int(found[1])
    return any(first <= at <= int(found[2] or first) for at in changed)


class TestTheModel:
    @settings(max_examples=TIMES // 5)
    @given(seed=st.integers(0, 2**63))
    def test_is_right_until_it_is_tampered_with(self, seed: int) -> None:
        log = Log.random(Random(seed))
        assert verified(log.export(), log.key, log.kept) == ""

    @pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
    @settings(max_examples=max(20, TIMES // len(WAYS)))
    @given(seed=st.integers(0, 2**63))
    def test_does_not_hide_it(self, way: Callable[[Random, Log, Export], Tampered], seed: int) -> None:
        random = Random(seed)
        log = Log.random(random)
        export, changed = way(random, log, log.export())
        said = verified(export, log.key, log.kept)
        if changed:
            assert said, "nothing was found"
            assert found_at(said, changed), f"{said}, though it was {changed}"


NODES = "SELECT leaf_index, id, hash FROM audit.tree_leaves WHERE tenant_id = $1 ORDER BY leaf_index"
PLACES = """
SELECT t.leaf_index, t.hash, t.id, l.leaf FROM audit.tree_leaves t LEFT JOIN audit.audit_logs l USING (tenant_id, id)
WHERE tenant_id = $1
UNION ALL
SELECT NULL, NULL, l.id, l.leaf FROM audit.audit_logs l
WHERE tenant_id = $1 AND NOT EXISTS (SELECT FROM audit.tree_leaves t WHERE t.tenant_id = $1 AND t.id = l.id)
ORDER BY leaf_index NULLS LAST
"""
OWN = "SELECT signed_text FROM audit.checkpoints WHERE tenant_id = $1 ORDER BY tree_size DESC LIMIT 1"
SIZE = "SELECT size FROM audit.trees WHERE tenant_id = $1"


class Superuser:
    """Somebody who may do anything to the database, triggers and policies notwithstanding."""

    def __init__(self, connection: Any, tenant_id: UUID, random: Random) -> None:
        self.connection, self.tenant_id, self.random = connection, tenant_id, random

    async def do(self, statement: str, *values: Any) -> None:
        await self.connection.execute(statement, self.tenant_id, *values)

    async def entries(self) -> list[Any]:
        return list(await self.connection.fetch(PLACES, self.tenant_id))

    async def exported(self) -> Export:
        """As the service exports, from its own tables."""
        lines = [
            Line(row["leaf_index"], None, row["hash"], id=str(row["id"]))
            if row["leaf"] is None
            else Line.of(row["leaf_index"], row["leaf"], row["hash"])
            for row in await self.entries()
        ]
        own = await self.connection.fetchval(OWN, self.tenant_id)
        size = await self.connection.fetchval(SIZE, self.tenant_id)
        return Export(self.tenant_id, lines, own or "", size)

    async def edit(self) -> list[int]:
        row = self.random.choice(await self.entries())
        await self._set_leaf(row["id"], edited(self.random, row["leaf"]))
        return [row["leaf_index"]]

    async def edit_with_hash(self) -> list[int]:
        found = await self.edit()
        row = (await self.entries())[found[0]]
        statement = "UPDATE audit.tree_leaves SET hash = $3 WHERE tenant_id = $1 AND id = $2"
        await self.do(statement, row["id"], merkle.leaf_hash(row["leaf"]))
        return found

    async def edit_with_tree(self) -> list[int]:
        found = await self.edit()
        await self._replant()
        return found

    async def swap(self) -> list[int]:
        first, second = sorted(self.random.sample(await self.entries(), 2), key=lambda row: row["leaf_index"])
        await self._set_leaf(first["id"], second["leaf"])
        await self._set_leaf(second["id"], first["leaf"])
        return [first["leaf_index"], second["leaf_index"]]

    async def swap_in_the_tree(self) -> list[int]:
        first, second = self.random.sample(await self.entries(), 2)
        move = "UPDATE audit.tree_leaves SET leaf_index = $3 WHERE tenant_id = $1 AND id = $2"
        for row, index in ((first, 10**6), (second, first["leaf_index"]), (first, second["leaf_index"])):
            await self.do(move, row["id"], index)
        return [first["leaf_index"], second["leaf_index"]]

    async def delete(self) -> list[int]:
        row = self.random.choice(await self.entries())
        await self.do("DELETE FROM audit.audit_logs WHERE tenant_id = $1 AND id = $2", row["id"])
        return [row["leaf_index"]]

    async def delete_with_leaf(self) -> list[int]:
        (index,) = await self.delete()
        await self.do("DELETE FROM audit.tree_leaves WHERE tenant_id = $1 AND leaf_index = $2", index)
        return [index]

    async def delete_with_tree(self) -> list[int]:
        found = await self.delete_with_leaf()
        await self._replant()
        return found

    async def insert(self) -> list[int]:
        """Shown to whoever lists the log, but in no tree."""
        entries = await self.entries()
        await self._insert(make_leaf(self.random, self.tenant_id, 0))
        return [len(entries)]

    async def insert_with_tree(self) -> list[int]:
        entries = await self.entries()
        at = self.random.randrange(len(entries))
        await self._insert(make_leaf(self.random, self.tenant_id, 0), before=at)
        await self._replant()
        return [at]

    async def truncate(self) -> list[int]:
        """The end is gone, everywhere but in the last checkpoint."""
        entries = await self.entries()
        size = self.random.randrange(len(entries))
        gone = [row["id"] for row in entries[size:]]
        for table in ("audit_logs", "tree_leaves"):
            await self.do(f"DELETE FROM audit.{table} WHERE tenant_id = $1 AND id = ANY ($2)", gone)
        await self._replant()
        return [size]

    async def roll_back(self) -> list[int]:
        """To a checkpoint of an older backup."""
        found = await self.truncate()
        await self.do("DELETE FROM audit.checkpoints WHERE tenant_id = $1 AND tree_size > $2", found[0])
        return found

    async def rewrite(self) -> list[int]:
        """Every entry, with valid hashes and without the key."""
        for row in await self.entries():
            await self._set_leaf(row["id"], edited(self.random, row["leaf"]))
        await self._replant()
        return [0]

    async def rewrite_and_sign(self) -> list[int]:
        """With a key of their own."""
        found = await self.rewrite()
        size = await self.connection.fetchval(SIZE, self.tenant_id)
        leaves = [row["leaf"] for row in await self.entries()]
        text = Log(self.tenant_id, leaves, [size], Signer(self.random.randbytes(32))).kept[0]
        await self.do("UPDATE audit.checkpoints SET signed_text = $2 WHERE tenant_id = $1", text)
        return found

    async def _set_leaf(self, entry_id: UUID, leaf: bytes) -> None:
        await self.do("UPDATE audit.audit_logs SET leaf = $3 WHERE tenant_id = $1 AND id = $2", entry_id, leaf)

    async def _insert(self, leaf: bytes, before: int | None = None) -> None:
        entry_id = UUID(sealing.parsed(leaf)["id"])
        copy = (await self.entries())[0]["id"]
        await self.do("CREATE TEMP TABLE copied ON COMMIT DROP AS SELECT * FROM audit.audit_logs"
                      " WHERE tenant_id = $1 AND id = $2", copy)  # fmt: skip
        await self.connection.execute("UPDATE copied SET id = $1, leaf = $2", entry_id, leaf)
        await self.connection.execute("INSERT INTO audit.audit_logs SELECT * FROM copied")
        if before is not None:
            move = "UPDATE audit.tree_leaves SET leaf_index = leaf_index + $3 WHERE tenant_id = $1 AND leaf_index >= $2"
            await self.do(move, before, 10**6)
            await self.do(move, 10**6, 1 - 10**6)
            statement = "INSERT INTO audit.tree_leaves (tenant_id, id, leaf_index, hash) VALUES ($1, $2, $3, $4)"
            await self.do(statement, entry_id, before, merkle.leaf_hash(leaf))

    async def _replant(self) -> None:
        """Makes the whole tree anew, as if the entries that are there had always been these."""
        rows = [row for row in await self.entries() if row["leaf_index"] is not None]
        hashes = [merkle.leaf_hash(row["leaf"]) for row in rows]
        await self.do("DELETE FROM audit.tree_leaves WHERE tenant_id = $1")
        await self.do("DELETE FROM audit.tree_nodes WHERE tenant_id = $1")
        leaves = [(self.tenant_id, row["id"], at, one) for at, (row, one) in enumerate(zip(rows, hashes, strict=True))]
        nodes = [(self.tenant_id, node_id(node), one) for node, one in merkle.grow(0, [], hashes)]
        await self.connection.executemany("INSERT INTO audit.tree_leaves VALUES ($1, $2, $3, $4)", leaves)
        await self.connection.executemany("INSERT INTO audit.tree_nodes VALUES ($1, $2, $3)", nodes)
        await self.do("UPDATE audit.trees SET size = $2, signed_size = 0 WHERE tenant_id = $1", len(rows))


DEEDS = [
    *("edit", "edit_with_hash", "edit_with_tree", "swap", "swap_in_the_tree", "delete", "delete_with_leaf"),
    *("delete_with_tree", "insert", "insert_with_tree", "truncate", "roll_back", "rewrite", "rewrite_and_sign"),
]


@pytest.fixture(scope="module")
async def grew(school: School) -> tuple[UUID, str, list[str]]:
    """A tenant's log that grew by four batches: its key, and the checkpoints that somebody kept."""
    tenant_id = new_id()
    for number in (1, 9, 30, 13):
        await deliver(school, *(event(str(tenant_id), old_values="{}", new_values='{"n": 1}') for _ in range(number)))
        await grown(school, tenant_id)
    signer = Signer.of(school.stack.environments["audit"]["AUDIT_SIGNING_KEY"], "")
    async with database(school) as superuser:
        rows = await superuser.fetch("SELECT signed_text FROM audit.checkpoints WHERE tenant_id = $1", tenant_id)
    return tenant_id, signer.verifier_keys(tenant_id)[0], [row[0] for row in rows]



class TestTheDatabase:
    async def test_is_right_until_it_is_tampered_with(
        self, school: School, grew: tuple[UUID, str, list[str]]
    ) -> None:
        tenant_id, key, kept = grew
        async with database(school) as connection:
            export = await Superuser(connection, tenant_id, Random(0)).exported()
        assert len(kept) >= 4
        assert verified(export, key, kept) == ""

    @pytest.mark.parametrize("deed", DEEDS)
    async def test_does_not_hide_it(
        self, school: School, grew: tuple[UUID, str, list[str]], deed: str
    ) -> None:
        tenant_id, key, kept = grew
        async with database(school) as connection:
            for seed in range(100 if PROOF else 4):
                tampering = connection.transaction()
                await tampering.start()
                await connection.execute("SET LOCAL session_replication_role = replica")
                superuser = Superuser(connection, tenant_id, Random(f"{deed} {seed}"))
                changed = await getattr(superuser, deed)()
                said = verified(await superuser.exported(), key, kept)
                await tampering.rollback()
                assert said, f"nothing was found, seed {seed}"
                assert found_at(said, changed), f"{said}, though it was {changed}, seed {seed}"
