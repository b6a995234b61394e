"""Which verb may follow which: every status of a course, unit, lesson and story with every verb."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.content.conftest import Author
from tests.content.test_hierarchy import PLURALS, Calls
from tests.stack import refused

OK, WRONG, GONE = "", "WRONG_STATE", "RESOURCE_NOT_FOUND"
VERBS = ("Get", "Update", "Publish", "Archive", "Delete", "Undelete", "Purge")
# How a thing comes to be in a status.
WAYS: dict[str, tuple[str, ...]] = {
    "draft": (),
    "published": ("Publish",),
    "archived": ("Publish", "Archive"),
    "deleted": ("Delete",),
    "deleted and published": ("Publish", "Delete"),
    "purged": ("Delete", "Purge"),
}
HIDDEN = (GONE, GONE, GONE, GONE, GONE, OK, OK)
# In the order of the verbs above; a verb that a kind has not is left out.
TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "course": {
        "draft": (OK, OK, OK, WRONG, OK, WRONG, WRONG),
        "published": (OK, OK, WRONG, OK, OK, WRONG, WRONG),
        "archived": (OK, WRONG, WRONG, WRONG, OK, WRONG, WRONG),
    },
    "lesson": {
        "draft": (OK, OK, OK, WRONG, OK, WRONG, WRONG),
        "published": (OK, OK, WRONG, WRONG, OK, WRONG, WRONG),
    },
    "story": {
        "draft": (OK, OK, OK, WRONG, OK, WRONG, WRONG),
        # The version that is published already: nothing happens.
        "published": (OK, OK, OK, OK, OK, WRONG, WRONG),
        "archived": (OK, WRONG, WRONG, WRONG, OK, WRONG, WRONG),
    },
    "unit": {"draft": (OK, OK, WRONG, WRONG, OK, WRONG, WRONG)},
}
LACKING = {("lesson", "Archive"), ("unit", "Publish"), ("unit", "Archive")}


def cases() -> list[Any]:
    found = []
    for kind, table in TABLE.items():
        more: dict[str, tuple[str, ...]] = {"deleted": HIDDEN, "purged": (GONE,) * len(VERBS)}
        if kind != "unit":
            more["deleted and published"] = HIDDEN
        for status, expected in (table | more).items():
            wanted = {verb: one for verb, one in zip(VERBS, expected, strict=True) if (kind, verb) not in LACKING}
            found.append(pytest.param(kind, status, wanted, id=f"{kind}-{status}"))
    return found


async def made(author: Author, kind: str, way: tuple[str, ...]) -> str:
    above: dict[str, Callable[[], Any]] = {
        "course": author.course,
        "unit": lambda: under_course(author),
        "lesson": lambda: under_unit(author),
        "story": author.story,
    }
    which = str((await above[kind]()).id)
    for verb in way:
        await Calls(author).verb(verb, kind, which)
    return which


async def under_course(author: Author) -> Any:
    return await author.unit((await author.course()).id)


async def under_unit(author: Author) -> Any:
    return await author.lesson((await under_course(author)).id)


async def attempt(author: Author, kind: str, verb: str, which: str) -> Any:
    if verb == "Update":
        return await Calls(author).update(kind, {"id": which, "title": "Khác"})
    return await Calls(author).verb(verb, kind, which)


@pytest.mark.parametrize(("kind", "status", "wanted"), cases())
class TestEveryStatus:
    async def test_takes_these_verbs_and_no_other(
        self, kind: str, status: str, wanted: dict[str, str], principal: Author, tables: Any
    ) -> None:
        row = f"SELECT to_jsonb(one)::text FROM content.{PLURALS[kind]} AS one WHERE id = $1"
        which = await made(principal, kind, WAYS[status])
        for verb, expected in wanted.items():
            if expected:
                before = await tables.fetchval(row, which)
                async with refused(expected):
                    await attempt(principal, kind, verb, which)
                assert await tables.fetchval(row, which) == before, verb
            else:
                await attempt(principal, kind, verb, await made(principal, kind, WAYS[status]))
