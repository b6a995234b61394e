"""Comparisons and snapshots: the parts that decisions are made of."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from kit.access import Policy
from kit.access.conditions import OPERATORS, holds
from kit.access.snapshots import Change, Snapshot, SnapshotCache
from kit.errors import DeadlineExceeded, Unavailable


async def no_policies(tenant_id: UUID) -> tuple[Policy, ...]:
    return ()


class TestComparisons:
    @pytest.mark.parametrize(
        ("left", "operator", "right", "expected"),
        [
            ("b", "gt", "a", True),
            ("b", "gt", 1, False),
            (None, "ne", "a", False),
            ("a", "in", ["a", "b"], True),
            ("c", "nin", ["a", "b"], True),
            ("story", "contains", "tor", True),
            (3, "eq", Decimal(3), True),
            (True, "eq", 1, False),
            (0.1, "eq", Decimal("0.1"), True),
            (float("nan"), "ne", 1, False),
            (frozenset({"teacher", "student"}), "eq", "teacher", True),
            (frozenset({"teacher", "student"}), "ne", "teacher", False),
            (frozenset({"teacher"}), "in", ["teacher", "admin"], True),
            (frozenset({"teacher"}), "contains", "teacher", True),
            (frozenset[str](), "eq", "teacher", False),
            (frozenset[str](), "nin", ["teacher"], True),
        ],
    )
    def test_operators(self, left: Any, operator: str, right: Any, expected: bool) -> None:
        assert holds(left, operator, right, "left") is expected

    def test_text_is_read_as_what_the_resource_has_and_never_the_other_way_round(self) -> None:
        one = uuid4()
        assert holds(one, "eq", str(one), "left")
        assert not holds(str(one), "eq", one, "left")

    def test_every_documented_operator_compares(self) -> None:
        for operator in OPERATORS:
            holds("a", operator, ["a"] if operator in {"in", "nin"} else "a", "left")


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
        cache = SnapshotCache(identity.snapshot, identity.changes, no_policies, max_stale=0.5)
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

    async def test_what_was_fetched_long_ago_is_as_good_as_the_streams_last_sign_of_life(
        self, cache: SnapshotCache, identity: Identity
    ) -> None:
        """Else an hour after the start nobody would be served at the moment when identity goes."""
        tenant, user = uuid4(), uuid4()
        await cache.get(tenant, user)
        await asyncio.sleep(0.6)
        identity.news.put_nowait(None)
        await asyncio.sleep(0.01)
        identity.failure = Unavailable("down")
        identity.news.put_nowait(Unavailable("gone"))
        await asyncio.sleep(0.01)
        assert (await cache.get(tenant, user)).user_id == user
        await asyncio.sleep(0.5)
        with pytest.raises(Unavailable):
            await cache.get(tenant, user)

    async def test_a_later_stream_makes_nothing_younger(self, identity: Identity) -> None:
        """What changed between two streams nobody has told."""
        tenant, user = uuid4(), uuid4()
        cache = SnapshotCache(identity.snapshot, identity.changes, no_policies, max_stale=0.5)
        for _ in range(2):
            watch = asyncio.create_task(cache.watch())
            identity.news.put_nowait(None)
            await asyncio.sleep(0.01)
            if not identity.asked:
                await cache.get(tenant, user)
            await asyncio.sleep(0.3)
            watch.cancel()
            await asyncio.wait([watch])
        identity.failure = Unavailable("down")
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
        cache = SnapshotCache(identity.snapshot, identity.changes, no_policies, max_stale=0.5)
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
