"""Random rows, callers, policies and rules for the tests of decisions."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from sqlalchemy import ARRAY, Boolean, Column, DateTime, Integer, Interval, MetaData, Numeric, Table, Text, Uuid

from kit.access import Access, Policy, PolicySet, Rule, Snapshot
from kit.access.attributes import Attribute
from kit.access.documents import read
from kit.ids import SYSTEM_TENANT

TENANT = UUID(int=7)
FIELDS = {
    "id": Attribute("id"),
    "status": Attribute("text", values=("draft", "published", "archived"), prefix="PAGE_STATUS_"),
    "title": Attribute("text"),
    "author_id": Attribute("id"),
    "words": Attribute("number"),
    "weight": Attribute("number"),
    "open": Attribute("bool"),
    "create_time": Attribute("time"),
    "length": Attribute("duration"),
    "tags": Attribute("text", many=True),
    "reader_ids": Attribute("id", many=True),
}
PAGES = Table(
    "pages",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("status", Text),
    Column("title", Text),
    Column("author_id", Uuid),
    Column("words", Integer),
    Column("weight", Numeric),
    Column("open", Boolean),
    Column("created_at", DateTime(timezone=True)),
    Column("length", Interval),
    Column("tags", ARRAY(Text)),
    Column("reader_ids", ARRAY(Uuid)),
    prefixes=["TEMPORARY"],
)


class Page:
    """Stands for the model: its columns are attributes."""

    __resource__ = "page"
    locals().update({column.name: column for column in PAGES.columns})


IDS = [UUID(int=n) for n in range(3)]
TEXTS = ["", "a", "A", "á", "a\u0301", "a%", "a_b", "\\", "'", "ả", "Z", "z", "user.level", "aa", "😀", "draft", "3"]
# One that contains nearly all others.
TEXTS.append("".join(TEXTS))
NUMBERS: list[Any] = [0, -1, 1, 3, Decimal("0.1"), 0.1, 2**31 - 1, -(2**31), 2**53 + 1, Decimal("1e30"), 1.5]
TIMES = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)]
LENGTHS = [timedelta(0), timedelta(microseconds=1), timedelta(days=400), timedelta(seconds=-5)]
ROWS = 24


def rows() -> list[dict[str, Any]]:
    """Rows with every kind of value, missing ones among them."""
    chance = random.Random(20261122)

    def one(values: Iterable[Any]) -> Any:
        return chance.choice([*values, None])

    def several(values: list[Any]) -> Any:
        return one([[], chance.sample(values, 2), chance.sample(values, 1)])

    return [
        {
            "id": UUID(int=1000 + number),
            "status": chance.choice(["draft", "published", "archived"]),
            "title": one(TEXTS),
            "author_id": one(IDS),
            "words": one([0, -1, 1, 3, 2**31 - 1, -(2**31)]),
            "weight": one([Decimal("0.1"), Decimal(3), Decimal("1e30"), Decimal(0)]),
            "open": one([True, False]),
            "created_at": one(TIMES),
            "length": one(LENGTHS),
            "tags": several(TEXTS),
            "reader_ids": several(IDS),
        }
        for number in range(ROWS)
    ]


LITERALS: dict[str, list[Any]] = {
    "text": TEXTS,
    "id": [*map(str, IDS), str(TENANT)],
    "number": [0, -1, 1, 3, 0.1, 2**31 - 1, 1.5, 1e30],
    "bool": [True, False],
    "time": [one.isoformat() for one in TIMES],
    "duration": ["0s", "0.000001s", "34560000s"],
    "any": ["a", "published", str(IDS[0]), 3, 0.1, True, "0s", "2026-01-01T00:00:00Z"],
}
CALLER = {
    "user.id": Attribute("id"),
    "user.role": Attribute("text", many=True),
    "user.level": Attribute("text"),
    "user.attributes.a": Attribute("any"),
    "user.attributes.b": Attribute("any"),
}
PATHS = {f"page.{name}": attribute for name, attribute in FIELDS.items()} | CALLER


@st.composite
def comparisons(draw: Any) -> dict[str, Any]:
    """Comparisons as people write them, all that `read` accepts."""
    # Text has the most operators, so it is asked about most.
    path = draw(st.sampled_from([*sorted(PATHS), "page.title", "page.title", "user.level"]))
    left = PATHS[path]
    operators = ["eq", "ne", "in", "nin"]
    if left.many:
        operators = ["contains"] if path.startswith("page.") else [*operators, "contains"]
    else:
        operators += ["gt", "gte", "lt", "lte"] if left.kind not in {"id", "bool"} else []
        operators += ["contains"] if left.kind in {"text", "any"} else []
    operator = draw(st.sampled_from(operators))
    many = operator in {"in", "nin"}
    refs = [
        other
        for other, right in PATHS.items()
        if right.many == many and (right.kind == left.kind or "any" in {left.kind, right.kind})
    ]
    # What concerns the caller alone is decided in Python on all sides: it is compared with the row more often.
    if refs and draw(st.integers(0, 2)) <= path.startswith("user."):
        return {"field": path, "operator": operator, "value": {"ref": draw(st.sampled_from(sorted(refs)))}}
    literal = st.sampled_from(left.values or LITERALS[left.kind])
    value = draw(st.lists(literal, min_size=1, max_size=3) if many else literal)
    return {"field": path, "operator": operator, "value": {"literal": value}}


@st.composite
def documents(draw: Any, depth: int = 2) -> Any:
    kind = draw(st.integers(0, 7 if depth else 3))
    if kind < 3:
        return draw(comparisons())
    if kind == 3:
        return {"always": True}
    items = draw(st.lists(documents(depth - 1), min_size=1, max_size=2))
    return {4: items, 5: {"all": items}, 6: {"any": items}, 7: {"not": items[0]}}[kind]


@st.composite
def policies(draw: Any) -> Policy:
    return Policy(
        id=UUID(int=draw(st.integers(1, 99))),
        tenant_id=draw(st.sampled_from([TENANT, TENANT, SYSTEM_TENANT])),
        name="any",
        resource=draw(st.sampled_from(["page", "page", "page", "all"])),
        actions=draw(st.sampled_from([frozenset(), frozenset({"read"}), frozenset({"manage"}), frozenset({"write"})])),
        condition=read(draw(documents()), "page", FIELDS),
        allow=draw(st.booleans()),
        priority=draw(st.integers(0, 3)),
    )


@st.composite
def snapshots(draw: Any) -> Snapshot:
    free = st.sampled_from([None, *LITERALS["any"]])
    attributes = {name: value for name in ("a", "b") if (value := draw(free)) is not None}
    permissions = st.frozensets(st.sampled_from([("page", "read"), ("all", "manage"), ("page", "write")]), max_size=1)
    return Snapshot(
        tenant_id=TENANT,
        user_id=draw(st.sampled_from(IDS)),
        roles=draw(st.frozensets(st.sampled_from(TEXTS), max_size=2)),
        permissions=draw(permissions),
        level=draw(st.sampled_from(TEXTS)),
        attributes=attributes,
        policies=PolicySet({one.id: one for one in draw(st.lists(policies(), min_size=1, max_size=4))}.values()),
    )


@st.composite
def accesses(draw: Any) -> Access:
    found = draw(st.lists(documents(), max_size=2))
    return Access(Rule(str(n), "page", frozenset({"read"}), read(one, "page", FIELDS)) for n, one in enumerate(found))
