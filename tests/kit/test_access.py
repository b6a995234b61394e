"""Conditions, rules and snapshots: what is allowed, the same for one row and for a list."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from kit.access import All, Always, AnyOf, Compare, ConditionError, Not, Ref, compare, evaluate
from kit.access.conditions import OPERATORS
from kit.access.snapshots import Change, Snapshot, SnapshotCache
from kit.access.sql import compile_condition
from kit.errors import DeadlineExceeded, Unavailable
from tests.kit.toy import Toy

TEXTS = ["", "a", "A", "á", "a%", "a_b", "\\", "'", "ả", "user.id", "aa"]
IDS = [UUID(int=n) for n in range(3)]


def comparisons() -> st.SearchStrategy[Any]:
    text = st.sampled_from(TEXTS)
    literal = st.builds(
        Compare,
        st.sampled_from(["note.text", "note.secret", "user.level", "user.missing", "note.missing"]),
        st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "contains"]),
        st.one_of(text, st.sampled_from([Ref("user.level"), Ref("note.secret"), Ref("user.missing")])),
    )
    members = st.builds(
        Compare,
        st.sampled_from(["note.text", "user.level"]),
        st.sampled_from(["in", "nin"]),
        st.lists(text, max_size=3),
    )
    author = st.builds(
        Compare,
        st.just("note.author_id"),
        st.sampled_from(["eq", "ne"]),
        st.one_of(st.sampled_from(IDS), st.just(Ref("user.id"))),
    )
    roles = st.builds(
        Compare,
        st.just("user.role"),
        st.sampled_from(["eq", "ne", "gt", "contains"]),
        st.one_of(text, st.just(Ref("note.text"))),
    )
    return st.one_of(literal, members, author, roles)


def conditions() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.one_of(comparisons(), st.just(Always())),
        lambda inner: st.one_of(
            st.builds(All, st.lists(inner, max_size=3).map(tuple)),
            st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
            st.builds(Not, inner),
        ),
        max_leaves=6,
    )


class TestConditions:
    written: ClassVar[list[UUID]] = []

    def attributes(self, row: Any, user: dict[str, Any]) -> Any:
        return lambda path: getattr(row, path[5:], None) if path.startswith("note.") else user.get(path)

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(condition=conditions(), level=st.sampled_from([*TEXTS, None]), user=st.sampled_from(IDS))
    async def test_a_row_is_in_the_filter_exactly_when_the_check_holds(
        self, toy: Toy, condition: Any, level: str | None, user: UUID
    ) -> None:
        tenant = await self.rows(toy)
        caller = {"user.id": user, "user.level": level, "user.role": frozenset({"a", "A"})}
        where = compile_condition(condition, "note", toy.note, caller.get)
        async with toy.db.read(tenant) as session:
            everything = (await session.execute(select(toy.note.__table__))).all()
            found = (await session.execute(select(toy.note.id).where(where))).scalars().all()
        wanted = {row.id for row in everything if evaluate(condition, self.attributes(row, caller))}
        assert set(found) == wanted

    async def rows(self, toy: Toy) -> UUID:
        tenant = UUID(int=77)
        if not self.written:
            async with toy.db.write(tenant) as session:
                for number, text in enumerate(TEXTS):
                    session.add(toy.note(text=text, secret=TEXTS[-number], author_id=IDS[number % 3]))
            self.written.append(tenant)
        return tenant

    @pytest.mark.parametrize(
        ("left", "operator", "right", "holds"),
        [
            ("b", "gt", "a", True),
            ("b", "gt", 1, False),
            (None, "ne", "a", False),
            ("a", "in", ["a", "b"], True),
            ("c", "nin", ["a", "b"], True),
            ("story", "contains", "tor", True),
            (frozenset({"teacher", "student"}), "eq", "teacher", True),
            (frozenset({"teacher", "student"}), "ne", "teacher", False),
            (frozenset({"teacher"}), "in", ["teacher", "admin"], True),
            (frozenset({"teacher"}), "contains", "teacher", True),
            (frozenset[str](), "eq", "teacher", False),
        ],
    )
    def test_operators(self, left: Any, operator: str, right: Any, holds: bool) -> None:
        assert evaluate(compare("x", operator, right), lambda _: left) is holds

    def test_refuses_an_unknown_operator(self) -> None:
        with pytest.raises(ConditionError, match="like"):
            compare("story.title", "like", "x")

    def test_knows_every_documented_operator(self) -> None:
        for operator in OPERATORS:
            evaluate(compare("x", operator, ["a"] if operator in {"in", "nin"} else "a"), lambda _: "a")


def snapshot(**values: Any) -> Snapshot:
    given = {"tenant_id": uuid4(), "user_id": uuid4(), "roles": frozenset(), "permissions": frozenset()}
    return Snapshot(**(given | values))


class Identity:
    """Where a cache gets its snapshots and news; the test decides when it answers and what."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.level = "A1"
        self.news: asyncio.Queue[Change | Exception | None] = asyncio.Queue()

    async def snapshot(self, tenant_id: UUID, user_id: UUID) -> Snapshot:
        self.asked += 1
        if self.failure:
            raise self.failure
        level = self.level
        await self.gate.wait()
        return snapshot(tenant_id=tenant_id, user_id=user_id, level=level)

    async def changes(self) -> AsyncIterator[Change | None]:
        while True:
            one = await self.news.get()
            if isinstance(one, Exception):
                raise one
            yield one


class TestSnapshotCache:
    @pytest.fixture
    def identity(self) -> Identity:
        return Identity()

    @pytest.fixture
    async def cache(self, identity: Identity) -> AsyncIterator[SnapshotCache]:
        cache = SnapshotCache(identity.snapshot, identity.changes, max_stale=0.5)
        watch = asyncio.create_task(cache.watch())
        identity.news.put_nowait(None)
        await asyncio.sleep(0.01)
        yield cache
        watch.cancel()

    async def test_asks_once_while_the_stream_lives(self, cache: SnapshotCache, identity: Identity) -> None:
        tenant, user = uuid4(), uuid4()
        await asyncio.gather(*(cache.get(tenant, user) for _ in range(10)))
        await cache.get(tenant, user)
        assert identity.asked == 1

    @pytest.mark.parametrize("concerns", ["user", "tenant", "everyone"])
    async def test_a_change_is_in_force_at_once(self, cache: SnapshotCache, identity: Identity, concerns: str) -> None:
        tenant, user = uuid4(), uuid4()
        await cache.get(tenant, user)
        identity.level = "B2"
        change = {
            "user": Change(tenant, user, None),
            "tenant": Change(tenant, None, None),
            "everyone": Change(None, None, None),
        }[concerns]
        identity.news.put_nowait(change)
        await asyncio.sleep(0.01)
        assert (await cache.get(tenant, user)).level == "B2"

    async def test_a_change_of_somebody_else_costs_nothing(self, cache: SnapshotCache, identity: Identity) -> None:
        tenant, user = uuid4(), uuid4()
        await cache.get(tenant, user)
        identity.news.put_nowait(Change(tenant, uuid4(), None))
        identity.news.put_nowait(Change(uuid4(), None, None))
        await asyncio.sleep(0.01)
        await cache.get(tenant, user)
        assert identity.asked == 1

    async def test_asks_again_after_the_stream_broke(self, cache: SnapshotCache, identity: Identity) -> None:
        tenant, user = uuid4(), uuid4()
        await cache.get(tenant, user)
        identity.news.put_nowait(Unavailable("gone"))
        await asyncio.sleep(0.01)
        identity.level = "C1"
        assert (await cache.get(tenant, user)).level == "C1"

    async def test_serves_what_it_has_while_identity_is_down_and_then_no_more(
        self, cache: SnapshotCache, identity: Identity
    ) -> None:
        tenant, user = uuid4(), uuid4()
        await cache.get(tenant, user)
        identity.failure = Unavailable("down")
        identity.news.put_nowait(Unavailable("gone"))
        await asyncio.sleep(0.01)
        assert (await cache.get(tenant, user)).user_id == user
        await asyncio.sleep(0.5)
        with pytest.raises(Unavailable):
            await cache.get(tenant, user)

    async def test_a_change_during_a_look_up_is_not_lost(self, cache: SnapshotCache, identity: Identity) -> None:
        tenant, user = uuid4(), uuid4()
        identity.gate.clear()
        before = asyncio.create_task(cache.get(tenant, user))
        await asyncio.sleep(0.01)
        identity.level = "B2"
        identity.news.put_nowait(Change(tenant, user, None))
        await asyncio.sleep(0.01)
        # The first look-up has read the old state and is still on its way.
        after = asyncio.create_task(cache.get(tenant, user))
        await asyncio.sleep(0.01)
        identity.gate.set()
        await before
        assert (await after).level == "B2"
        assert (await cache.get(tenant, user)).level == "B2"

    async def test_serves_what_it_has_while_identity_is_silent(self, cache: SnapshotCache, identity: Identity) -> None:
        tenant, user = uuid4(), uuid4()
        await cache.get(tenant, user)
        identity.failure = DeadlineExceeded("silent")
        identity.news.put_nowait(Unavailable("gone"))
        await asyncio.sleep(0.01)
        assert (await cache.get(tenant, user)).user_id == user

    async def test_a_stream_that_broke_in_an_unforeseen_way_is_not_trusted_either(self, identity: Identity) -> None:
        tenant, user = uuid4(), uuid4()
        cache = SnapshotCache(identity.snapshot, identity.changes, max_stale=0.5)
        for level, end in (("A1", ValueError("no change at all")), ("C1", None)):
            watch = asyncio.create_task(cache.watch())
            identity.news.put_nowait(None)
            await asyncio.sleep(0.01)
            assert (await cache.get(tenant, user)).level == level
            if end:
                identity.news.put_nowait(end)
                with pytest.raises(ValueError, match="no change"):
                    await watch
                # What happens now is heard by nobody.
                identity.level = "C1"
            watch.cancel()

    async def test_a_caller_who_gives_up_leaves_the_look_up_to_the_others(
        self, cache: SnapshotCache, identity: Identity
    ) -> None:
        tenant, user = uuid4(), uuid4()
        identity.gate.clear()
        calls = [asyncio.create_task(cache.get(tenant, user)) for _ in range(3)]
        await asyncio.sleep(0.01)
        calls[0].cancel()
        identity.gate.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert [task.cancelled() for task in calls] == [True, False, False]
        assert identity.asked == 1

    async def test_remembers_sessions_that_ended(self, cache: SnapshotCache, identity: Identity) -> None:
        session = uuid4()
        assert not cache.session_ended(session)
        identity.news.put_nowait(Change(uuid4(), uuid4(), session))
        await asyncio.sleep(0.01)
        assert cache.session_ended(session)


class TestSnapshot:
    @pytest.mark.parametrize(
        ("held", "granted"),
        [
            (("story", "publish"), True),
            (("story", "manage"), True),
            (("all", "publish"), True),
            (("all", "manage"), True),
            (("story", "read"), False),
            (("course", "manage"), False),
        ],
    )
    def test_manage_is_every_action_and_all_every_resource(self, held: tuple[str, str], granted: bool) -> None:
        assert snapshot(permissions=frozenset({held})).grants("story", "publish") is granted


def test_namespace_rows_are_enough_for_a_check() -> None:
    row = SimpleNamespace(status="published")
    assert evaluate(Compare("story.status", "eq", "published"), lambda path: getattr(row, path[6:]))
