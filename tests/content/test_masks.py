"""Update masks: every field of a course, unit, lesson and story is written if it may be, and only when it is named."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from services.content import courses, lessons, stories, units
from tests.content.conftest import Author
from tests.content.test_hierarchy import MODULES, Calls
from tests.content.test_transitions import made, under_unit
from tests.stack import refused

WRITABLE = {
    "course": courses.WRITABLE,
    "unit": units.WRITABLE,
    "lesson": lessons.WRITABLE,
    "story": stories.WRITABLE,
}
TEXTS: dict[str, Any] = {"title": "Khác", "description": "Khác", "position": 7}
LANGUAGES = {"story_language": "fr", "learning_language": "de"}


def fields_of(kind: str) -> list[str]:
    return [field.name for field in MODULES[kind].DESCRIPTOR.message_types_by_name[kind.title()].fields]


def of_each(*, writable: bool) -> list[tuple[str, str]]:
    return [(kind, name) for kind in WRITABLE for name in fields_of(kind) if (name in WRITABLE[kind]) == writable]


async def written(author: Author, kind: str, which: str) -> dict[str, Any]:
    """A new value for each field that may be written."""
    match kind:
        case "course":
            return {"title": "Khác", "description": "Khác", **LANGUAGES}
        case "unit":
            return TEXTS
        case "lesson":
            lesson = await Calls(author).verb("Get", kind, which)
            other = await author.lesson(lesson.unit_id)
            there = await author.unit(lesson.course_id)
            return {**TEXTS, "unit_id": there.id, "prerequisite_ids": [other.id]}
        case _:
            lesson = await under_unit(author)
            await Calls(author).move(kind, which, (await under_unit(author)).id, None)
            (word,) = {(await author.learn_words(("con ong", "bee", "noun")))["con ong"]}
            return {"title": "Khác", "text": "Khác.", "lesson_id": lesson.id, "position": 7, "vocabulary_ids": [word]}


def shown(message: Any, name: str) -> Any:
    if name == "text":
        return message.current_version.content_hash
    value = getattr(message, name)
    return value if isinstance(value, str | int) else list(value)


class TestUpdateMask:
    @pytest.mark.parametrize(("kind", "name"), of_each(writable=True))
    async def test_writes_what_it_names_and_nothing_else(self, kind: str, name: str, teacher: Author) -> None:
        which = await made(teacher, kind, ())
        values = await written(teacher, kind, which)
        assert values.keys() == set(WRITABLE[kind])
        before = await Calls(teacher).verb("Get", kind, which)
        after = await Calls(teacher).update(kind, {"id": which, **values}, FieldMask(paths=[name]))
        others = [one for one in WRITABLE[kind] if one not in {name, *FOLLOWS.get((kind, name), ())}]
        assert shown(after, name) != shown(before, name)
        assert name == "text" or shown(after, name) == values[name]
        assert {one: shown(after, one) for one in others} == {one: shown(before, one) for one in others}
        assert after.etag != before.etag

    @pytest.mark.parametrize(("kind", "name"), [*of_each(writable=False), *((kind, "nonsense") for kind in WRITABLE)])
    async def test_refuses_any_other_field(self, kind: str, name: str, teacher: Author) -> None:
        which = await made(teacher, kind, ())
        async with refused("INVALID_UPDATE_MASK", field="update_mask"):
            await Calls(teacher).update(kind, {"id": which, "title": "Khác"}, FieldMask(paths=["title", name]))

    @pytest.mark.parametrize("kind", WRITABLE)
    async def test_may_be_left_out_for_what_is_populated(self, kind: str, teacher: Author) -> None:
        which = await made(teacher, kind, ())
        after = await Calls(teacher).update(kind, {"id": which, "title": "Khác"}, None)
        assert (after.title, after.etag) != ("", "1")


# A title is part of what is hashed; with the lesson or unit the place changes.
FOLLOWS = {("story", "title"): ("text",), ("story", "lesson_id"): ("position",), ("lesson", "unit_id"): ("position",)}
