"""One model, three uses: what a check allows is what a list shows, and what an explanation says."""

import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import collate, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

import kit.access.policies
import kit.access.sql
from kit.access import Access, Policy, PolicySet, Rule, Snapshot, caller_attributes
from kit.access import conditions as language
from kit.access.documents import read
from kit.access.explaining import Case, Change, Explanation, explain
from kit.access.policies import row_attributes
from kit.migrations import async_url
from tests.kit.decisions import FIELDS, IDS, PAGES, ROWS, TENANT, Page, accesses, policies, rows, snapshots
from tests.kit.toy import Toy
from tests.profile import PROOF

EXAMPLES = 20_000 if PROOF else 250


def case(access: Access, snapshot: Snapshot, entity: Any, fields: Any = None) -> Case:
    return Case(
        resource="page",
        action="read",
        policies=snapshot.policies.matching("page", "read"),
        rules=access.rules("page", "read"),
        permitted=snapshot.grants("page", "read"),
        attributes=row_attributes(entity, "page", caller_attributes(snapshot)),
        fields=FIELDS if fields is None else fields,
    )

# The rows that were decided about, one number for each set of policies.
compared: list[int] = []


@pytest.fixture(scope="module")
async def pages(toy: Toy) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(async_url(toy.superuser_url), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.run_sync(PAGES.metadata.create_all)
        await connection.execute(PAGES.insert(), rows())
        yield connection
    await engine.dispose()
    sys.stdout.write(f"{len(compared)} sets of policies, {sum(compared)} decisions compared\n")


async def listed(pages: AsyncConnection, access: Access, snapshot: Snapshot) -> set[UUID]:
    where = access.filter(snapshot, "page", "read", Page).expression
    return set((await pages.execute(select(PAGES.c.id).where(where))).scalars())


async def disagreements(pages: AsyncConnection, access: Access, snapshot: Snapshot) -> list[str]:
    """The rows about which check, list and explanation are not of one mind."""
    found = []
    shown = await listed(pages, access, snapshot)
    for values in rows():
        entity = SimpleNamespace(**values)
        answers = {
            "check": access.allows(snapshot, "page", "read", entity),
            "list": entity.id in shown,
            "explanation": case(access, snapshot, entity).decide()[0],
        }
        if len(set(answers.values())) > 1:
            found.append(f"{answers} for {values}")
    return found


LIMITS: Any = {
    "deadline": None,
    "max_examples": EXAMPLES,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


class TestCheckListAndExplanation:
    @pytest.mark.slow
    @settings(**LIMITS)
    @given(access=accesses(), snapshot=snapshots())
    async def test_always_agree(self, pages: AsyncConnection, access: Access, snapshot: Snapshot) -> None:
        compared.append(ROWS)
        assert not await disagreements(pages, access, snapshot)

    @pytest.mark.slow
    @settings(**LIMITS | {"max_examples": EXAMPLES // 4})
    @given(access=accesses(), snapshot=snapshots(), more=policies())
    async def test_one_more_refusal_never_widens_access(
        self, pages: AsyncConnection, access: Access, snapshot: Snapshot, more: Policy
    ) -> None:
        before = await listed(pages, access, snapshot)
        stricter = PolicySet([*snapshot.policies.policies, changed(more, allow=False, id=UUID(int=100))])
        assert await listed(pages, access, changed(snapshot, policies=stricter, plans={})) <= before


PUBLISHED = read([{"field": "page.status", "operator": "eq", "value": "PAGE_STATUS_PUBLISHED"}], "page", FIELDS)


def deciding(conditions: Any, *, allow: bool, number: int = 1) -> Policy:
    return Policy(
        id=UUID(int=number),
        tenant_id=TENANT,
        name=f"policy {number}",
        resource="page",
        actions=frozenset({"read"}),
        condition=read(conditions, "page", FIELDS),
        allow=allow,
        priority=0,
    )


def changed(one: Any, **values: Any) -> Any:
    return type(one)(**{name: getattr(one, name) for name in one.__slots__} | values)


def applied(explanation: Explanation, snapshot: Snapshot, values: dict[str, Any]) -> tuple[Snapshot, dict[str, Any]]:
    """The caller and the row after the changes, made where they are: in the snapshot and in the row."""
    for change in explanation.changes:
        match change.kind, change.subject.split("."):
            case "attribute", ["page", field]:
                values = values | {{"create_time": "created_at"}.get(field, field): change.value}
            case "attribute", ["user", "attributes", name]:
                snapshot = changed(snapshot, attributes={**snapshot.attributes, name: change.value}, plans={})
            case "attribute", ["user", name]:
                name = {"id": "user_id", "role": "roles"}.get(name, name)
                snapshot = changed(snapshot, **{name: change.value}, plans={})
            case "permission", _:
                held = {("page", "read")} if change.value else set()
                snapshot = changed(snapshot, permissions=frozenset(held), plans={})
            case "policy", _:
                left = [one for one in snapshot.policies.policies if str(one.id) != change.subject]
                snapshot = changed(snapshot, policies=PolicySet(left), plans={})
    return snapshot, values


@pytest.mark.slow
class TestExplanation:
    @settings(**LIMITS)
    @given(access=accesses(), snapshot=snapshots(), number=st.integers(0, ROWS - 1))
    def test_what_it_would_change_turns_the_decision_round(
        self, access: Access, snapshot: Snapshot, number: int
    ) -> None:
        values = rows()[number]
        explanation = explain(case(access, snapshot, SimpleNamespace(**values)))
        assert explanation.allowed == access.allows(snapshot, "page", "read", SimpleNamespace(**values))
        if any(change.kind == "user" for change in explanation.changes):
            assert explanation.allowed
            assert not explanation.smallest
            return
        after, row = applied(explanation, snapshot, values)
        assert access.allows(after, "page", "read", SimpleNamespace(**row)) != explanation.allowed

    @settings(**LIMITS)
    @given(access=accesses(), snapshot=snapshots(), number=st.integers(0, ROWS - 1))
    def test_none_of_its_changes_could_be_left_out(self, access: Access, snapshot: Snapshot, number: int) -> None:
        one = case(access, snapshot, SimpleNamespace(**rows()[number]))
        explanation = explain(one)
        if explanation.smallest and len(explanation.changes) > 1:
            for left_out in explanation.changes:
                rest = [change for change in explanation.changes if change != left_out]
                assert one.after(rest).decide()[0] == explanation.allowed

    def test_asks_for_one_change_where_one_is_enough(self) -> None:
        published = Rule("anyone reads what is published", "page", frozenset({"read"}), PUBLISHED)
        snapshot = Snapshot(tenant_id=TENANT, user_id=IDS[0], roles=frozenset(), permissions=frozenset())
        draft = rows()[0] | {"status": "draft"}
        explanation = explain(case(Access([published]), snapshot, SimpleNamespace(**draft)))
        assert explanation.smallest
        assert [(one.kind, one.subject, one.value) for one in explanation.changes] == [
            ("permission", "page:read", True)
        ]
        refusal = Policy(
            id=UUID(int=1),
            tenant_id=TENANT,
            name="beginners wait",
            resource="page",
            actions=frozenset({"read"}),
            condition=read([{"field": "user.level", "operator": "lt", "value": "B1"}], "page", FIELDS),
            allow=False,
            priority=0,
        )
        beginner = changed(snapshot, level="A2", policies=PolicySet([refusal]), plans={})
        page = draft | {"status": "published"}
        explanation = explain(case(Access([published]), beginner, SimpleNamespace(**page)))
        assert explanation.decided_by == refusal
        found = [(one.kind, one.subject, one.value) for one in explanation.changes]
        assert found == [("attribute", "user.level", "B1")]

    def test_takes_no_empty_level_for_a_level(self) -> None:
        condition = read({"not": {"field": "user.level", "operator": "lt", "value": "B1"}}, "page", FIELDS)
        access = Access([Rule("beginners wait", "page", frozenset({"read"}), condition)])
        snapshot = Snapshot(tenant_id=TENANT, user_id=IDS[0], roles=frozenset(), permissions=frozenset())
        page = SimpleNamespace(**rows()[0])
        explanation = explain(case(access, snapshot, page))
        assert [one.subject for one in explanation.changes] == ["user.level"]
        after, _ = applied(explanation, snapshot, {})
        assert access.allows(after, "page", "read", page) != explanation.allowed

    @pytest.mark.parametrize("allow", [True, False])
    def test_lets_in_who_is_barred_and_ends(self, allow: bool) -> None:
        barred = Snapshot(tenant_id=TENANT, user_id=IDS[0], roles=frozenset(), permissions=frozenset())
        refusal = deciding([{"always": True}], allow=allow)
        one = case(Access(), changed(barred, policies=PolicySet([refusal])), SimpleNamespace(**rows()[0]))
        explanation = explain(replace(one, active=False))
        assert not explanation.allowed
        assert explanation.changes[0] == Change("user", "active", value=True)
        assert replace(one, active=False).after(explanation.changes).decide()[0]

    @pytest.mark.parametrize(("path", "moment"), [
        ("request.time", "9999-12-31T23:59:59Z"),
        ("request.time", "0001-01-01T00:00:00Z"),
        ("page.length", "86399999999999s"),
    ])  # fmt: skip
    def test_knows_that_nothing_is_beyond_the_edges_of_time(self, path: str, moment: str) -> None:
        one = deciding([{"field": path, "operator": "gt", "value": moment}], allow=False)
        nobody = Snapshot(tenant_id=TENANT, user_id=IDS[0], roles=frozenset(), permissions=frozenset())
        explain(case(Access(), changed(nobody, policies=PolicySet([one])), SimpleNamespace(**rows()[0])))

    def test_keeps_nobody_waiting_for_what_is_smallest(self) -> None:
        long = [
            {"field": "user.level", "operator": "in", "value": [f"{n} {m}" for m in range(500)], "logic": "or"}
            for n in range(20)
        ]
        refusals = [deciding([{"always": True}], allow=False, number=n) for n in range(5)]
        somebody = Snapshot(tenant_id=TENANT, user_id=IDS[0], roles=frozenset(), permissions=frozenset(), level="B1")
        all_of_them = PolicySet([deciding(long, allow=False, number=9), *refusals])
        began = time.process_time()
        explanation = explain(case(Access(), changed(somebody, policies=all_of_them), SimpleNamespace(**rows()[0])))
        assert time.process_time() - began < 2
        assert not explanation.smallest
        assert len(explanation.changes) == 6


def operated(**others: str) -> Any:
    """SQL in which some operators are mistaken for others."""
    genuine = kit.access.sql.operate
    return lambda left, name, right: genuine(left, others.get(name, name), right)


def without(dictionary: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {**dictionary, **others}


GENUINE_COMPARE = kit.access.sql.Compiler.compile
GENUINE_FIRST = kit.access.sql.Compiler.first_match
OPERATE: Any = language._OPERATE
MUTANTS: dict[str, tuple[Any, str, Any]] = {
    **{
        f"SQL: {name} is {other}": (kit.access.sql, "operate", operated(**{name: other}))
        for name, other in [
            ("eq", "ne"),
            ("ne", "eq"),
            ("gt", "gte"),
            ("gte", "gt"),
            ("lt", "lte"),
            ("lte", "lt"),
            ("in", "nin"),
            ("nin", "in"),
            ("contains", "eq"),
        ]
    },
    "SQL: text is ordered as the database likes": (
        kit.access.sql,
        "collate",
        lambda column, _: collate(column, "und-x-icu"),
    ),
    "SQL: NULL is left below a negation": (
        kit.access.sql.Compiler,
        "compile",
        lambda self, condition, *, positive: GENUINE_COMPARE(self, condition, positive=True),
    ),
    "SQL: numbers are never exact": (kit.access.sql, "converted", lambda value, kind: None),
    "SQL: what is decided last wins": (
        kit.access.sql.Compiler,
        "first_match",
        lambda self, steps: GENUINE_FIRST(self, steps[::-1]),
    ),
    **{
        f"Python: {name} is {other}": (language, "_OPERATE", without(OPERATE, **{name: OPERATE[other]}))
        for name, other in [("eq", "ne"), ("gt", "gte"), ("lte", "lt"), ("ne", "eq"), ("contains", "eq")]
    },
    "Python: a missing value is equal to nothing": (
        kit.access.policies,
        "holds",
        lambda left, name, right, of_row: name == "ne" if left is None else language.holds(left, name, right, of_row),
    ),
    "Python: a caller's value is not mirrored": (language, "MIRRORED", {**language.MIRRORED, "gt": "gt", "lt": "lt"}),
}


@cache
def samples() -> tuple[tuple[Access, Snapshot], ...]:
    """The same ones in every run."""
    found: list[tuple[Access, Snapshot]] = []

    @settings(max_examples=500, derandomize=True, database=None, deadline=None)
    @given(access=accesses(), snapshot=snapshots())
    def collect(access: Access, snapshot: Snapshot) -> None:
        found.append((access, snapshot))

    collect()
    return tuple(found)


@pytest.mark.slow
class TestFaultsInEitherCompiler:
    @pytest.mark.parametrize("name", MUTANTS)
    async def test_are_noticed(self, pages: AsyncConnection, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        both = samples()
        monkeypatch.setattr(*MUTANTS[name])
        for access, snapshot in both:
            snapshot.plans.clear()
            try:
                if await disagreements(pages, access, snapshot):
                    return
            except (DBAPIError, TypeError):
                # Nor does it go unnoticed that there is no answer at all.
                return
        pytest.fail("nobody noticed")
