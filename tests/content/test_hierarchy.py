"""Courses, units, lessons and stories are as the model has them, after any sequence of calls."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from storyloom.content.v1 import courses_pb2, lessons_pb2, stories_pb2, units_pb2
from tests.content.conftest import Author
from tests.content.hierarchy import PARENT, Hierarchy, Node, Refused
from tests.profile import PROOF

EXAMPLES, STEPS = (150, 80) if PROOF else (5, 30)
MODULES: dict[str, Any] = {
    "course": courses_pb2,
    "unit": units_pb2,
    "lesson": lessons_pb2,
    "story": stories_pb2,
}
PLURALS = {"course": "courses", "unit": "units", "lesson": "lessons", "story": "stories"}
STATE = """
SELECT id::text, above, position, status, deleted_at IS NOT NULL AS deleted FROM (
  SELECT id, '' AS above, 0 AS position, status, deleted_at FROM content.courses
  UNION ALL SELECT id, course_id::text, position, 'draft', deleted_at FROM content.units
  UNION ALL SELECT id, unit_id::text, position, status, deleted_at FROM content.lessons
  UNION ALL SELECT id, coalesce(lesson_id::text, ''), coalesce(position, 0), status, deleted_at FROM content.stories
) AS one WHERE id = ANY($1)
"""
NEEDS = "SELECT lesson_id::text, prerequisite_id::text FROM content.lesson_prerequisites WHERE lesson_id = ANY($1)"
CHANCES = st.randoms(use_true_random=False)


class Calls:
    """The calls of the machine, by the names that they have in the model."""

    def __init__(self, author: Author) -> None:
        self.author = author

    async def verb(self, name: str, kind: str, which: str) -> Any:
        return await self._call(f"{name}{kind.title()}", kind, id=which)

    async def create(self, kind: str, above: str, position: int) -> str:
        values: dict[str, Any] = {"title": kind}
        if above:
            values |= {f"{PARENT[kind]}_id": above}
        if kind == "story":
            values |= {"text": "Ngày xưa."}
        if position:
            values |= {"position": position}
        made = await self._call(f"Create{kind.title()}", kind, **{kind: values})
        return str(made.id)

    async def move(self, kind: str, which: str, above: str | None, position: int | None) -> Any:
        written = {f"{PARENT[kind]}_id": above, "position": position}
        values = {name: value for name, value in written.items() if value is not None}
        return await self.update(kind, {"id": which, **values}, FieldMask(paths=list(values)))

    async def update(self, kind: str, values: dict[str, Any], mask: FieldMask | None = None) -> Any:
        return await self._call(f"Update{kind.title()}", kind, **{kind: values, "update_mask": mask})

    async def batch(self, kind: str, wanted: list[str], **more: Any) -> Any:
        return await self._call(f"BatchGet{PLURALS[kind].title()}", kind, ids=wanted, **more)

    async def reorder(self, kind: str, which: str, wanted: list[str]) -> Any:
        child = {above: child for child, above in PARENT.items()}[kind]
        name = f"Reorder{PLURALS[child].title()}"
        return await self._call(name, kind, **{"id": which, f"{child}_ids": wanted})

    async def require_first(self, which: str, before: list[str]) -> Any:
        values = {"id": which, "prerequisite_ids": before}
        return await self.update("lesson", values, FieldMask(paths=["prerequisite_ids"]))

    async def _call(self, rpc: str, kind: str, **request: Any) -> Any:
        stub = getattr(self.author, PLURALS[kind])
        return await getattr(stub, rpc)(getattr(MODULES[kind], f"{rpc}Request")(**request))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
    return info.reason


class HierarchyMachine(RuleBasedStateMachine):
    """Does the same to the service and to the model; both refuse alike, and are alike afterwards."""

    loop: asyncio.AbstractEventLoop
    calls: Calls
    tables: "asyncpg.Connection[asyncpg.Record]"

    @initialize()
    def begin(self) -> None:
        self.model, self.made = Hierarchy(), []
        for kind in ("course", "unit", "unit", "lesson", "lesson", "lesson", "story", "story", "story"):
            self._create(kind, self.model.ids(PARENT[kind])[0] if kind in PARENT else "", 0)

    def _run(self, call: Awaitable[Any]) -> Any:
        async def waited() -> Any:
            return await call

        return asyncio.run_coroutine_threadsafe(waited(), self.loop).result(20)

    def _both(self, call: Awaitable[Any], model: Callable[[Any], None]) -> None:
        said, reason = None, ""
        try:
            said = self._run(call)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
        expected = ""
        try:
            model(said)
        except Refused as refusal:
            expected = refusal.reason
        assert reason == expected

    def _create(self, kind: str, above: str, position: int) -> None:
        def made(new: str | None) -> None:
            self.model.create(kind, new or "none", above, position)
            self.made.append(new or "none")

        self._both(self.calls.create(kind, above, position), made)

    def _pick(self, chance: random.Random, *kinds: str) -> Node | None:
        """One of these kinds, more often one that is not deleted."""
        found = [one for one in self.model.nodes.values() if one.kind in kinds]
        present = [one for one in found if not one.mark]
        return chance.choice(present if present and chance.randrange(6) else found) if found else None

    @rule(kind=st.sampled_from(["course", "unit", "lesson", "lesson", "story", "story"]), chance=CHANCES)
    def create(self, kind: str, chance: random.Random) -> None:
        parent = self._pick(chance, PARENT[kind]) if kind in PARENT else None
        if kind in {"unit", "lesson"} and parent is None:
            return
        alone = parent is None or (kind == "story" and not chance.randrange(5))
        self._create(kind, "" if alone or parent is None else parent.id, 0 if kind == "course" else chance.randrange(4))

    @rule(chance=CHANCES)
    def move(self, chance: random.Random) -> None:
        one = self._pick(chance, "unit", "lesson", "lesson", "story", "story", "story")
        if one is None:
            return
        place, above = chance.randrange(1, 6), None
        parent = self._pick(chance, PARENT[one.kind]) if one.kind != "unit" and chance.randrange(3) else None
        if parent is not None:
            above = parent.id if one.kind == "lesson" or chance.randrange(5) else ""
        position = place if above is None or chance.randrange(2) else None
        self._both(
            self.calls.move(one.kind, one.id, above, position), lambda _: self.model.move(one.id, above, position)
        )

    @rule(chance=CHANCES)
    def reorder(self, chance: random.Random) -> None:
        one = self._pick(chance, "course", "unit", "lesson", "lesson")
        wanted = [child.id for child in self.model.children(one.id)] if one is not None else []
        chance.shuffle(wanted)
        if not chance.randrange(6):
            wanted = wanted[1:]
        if one is not None and wanted:
            self._both(self.calls.reorder(one.kind, one.id, wanted), lambda _: self.model.reorder(one.id, wanted))

    @rule(verb=st.sampled_from(["delete", "delete", "undelete", "undelete", "undelete", "purge"]), chance=CHANCES)
    def hide(self, verb: str, chance: random.Random) -> None:
        one = self._pick(chance, "course", "unit", "lesson", "lesson", "story")
        deleted = [one for one in self.model.nodes.values() if one.mark]
        if not deleted and chance.randrange(4):
            verb = "delete"
        elif verb != "delete" and deleted and chance.randrange(5):
            one = chance.choice(deleted)
        if one is not None:
            self._both(self.calls.verb(verb.title(), one.kind, one.id), lambda _: getattr(self.model, verb)(one.id))

    @rule(verb=st.sampled_from(["publish", "publish", "archive"]), chance=CHANCES)
    def step(self, verb: str, chance: random.Random) -> None:
        kinds = ("course", *["story"] * 3, *["lesson"] * 3)
        one = self._pick(chance, chance.choice([kind for kind in kinds if (verb, kind) != ("archive", "lesson")]))
        # In an archived course nothing moves any more.
        if one is not None and ((verb, one.kind) != ("archive", "course") or not chance.randrange(5)):
            self._both(self.calls.verb(verb.title(), one.kind, one.id), lambda _: self.model.step(one.id, verb))

    @rule(many=st.integers(0, 3), chance=CHANCES)
    def require_first(self, many: int, chance: random.Random) -> None:
        one = self._pick(chance, "lesson")
        picked = [self._pick(chance, "lesson") for _ in range(many)]
        before = list(dict.fromkeys(found.id for found in picked if found is not None))
        if one is not None:
            self._both(self.calls.require_first(one.id, before), lambda _: self.model.require_first(one.id, before))

    @invariant()
    def are_alike(self) -> None:
        if not hasattr(self, "model"):
            return
        rows = self._run(self.tables.fetch(STATE, self.made))
        found = {row["id"]: (row["above"], row["position"], row["status"], row["deleted"]) for row in rows}
        nodes = self.model.nodes.values()
        assert found == {one.id: (one.above, one.position, one.status, one.mark > 0) for one in nodes}
        pairs = {tuple(row) for row in self._run(self.tables.fetch(NEEDS, self.made))}
        assert pairs == {(one.id, before) for one in nodes for before in one.needs}


class TestAnySequenceOfCalls:
    async def test_leaves_what_the_model_has(
        self, principal: Author, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        HierarchyMachine.loop = asyncio.get_running_loop()
        HierarchyMachine.calls, HierarchyMachine.tables = Calls(principal), tables
        profile = settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        await asyncio.to_thread(run_state_machine_as_test, HierarchyMachine, settings=profile)
