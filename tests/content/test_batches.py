"""Courses, units, lessons and stories by their ids: several at once, and only what the caller may see."""

from typing import Any

import pytest

from kit.ids import new_id
from storyloom.content.v1 import stories_pb2, story_versions_pb2
from tests.content.conftest import Author, PublishApproved
from tests.content.test_hierarchy import PLURALS, Calls
from tests.content.test_transitions import made
from tests.stack import School, refused

KINDS = ("course", "unit", "lesson", "story")


async def batch(author: Author, kind: str, wanted: list[str], **more: Any) -> list[Any]:
    return list(getattr(await Calls(author).batch(kind, wanted, **more), PLURALS[kind]))


async def ids(author: Author, kind: str, wanted: list[str]) -> list[str]:
    return [one.id for one in await batch(author, kind, wanted)]


@pytest.mark.parametrize("kind", KINDS)
class TestBatchGet:
    async def test_answers_in_the_order_asked_for_what_reading_each_would(self, kind: str, teacher: Author) -> None:
        wanted = [await made(teacher, kind, ()) for _ in range(3)][::-1]
        found = await batch(teacher, kind, wanted)
        assert [one.id for one in found] == wanted
        for one in found:
            alone = await Calls(teacher).verb("Get", kind, one.id)
            # Heavy or computed for one only.
            for field in ("contributor_ids", "current_version"):
                for message in (alone, one):
                    if field in message.DESCRIPTOR.fields_by_name:
                        message.ClearField(field)
            assert one == alone

    async def test_leaves_out_what_is_not_there(self, kind: str, teacher: Author, outsider: Author) -> None:
        kept, deleted = [await made(teacher, kind, way) for way in ((), ("Delete",))]
        foreign = await made(outsider, kind, ())
        assert await ids(teacher, kind, [deleted, str(new_id()), kept, foreign]) == [kept]

    async def test_takes_as_many_statements_for_many_as_for_one(
        self, kind: str, teacher: Author, statements: Any
    ) -> None:
        wanted = [await made(teacher, kind, ()) for _ in range(4)]
        with statements() as sent:
            await batch(teacher, kind, wanted)
        assert len(sent) == 1, sent

    async def test_takes_1_to_100_ids_each_once(self, kind: str, teacher: Author) -> None:
        one = str(new_id())
        for wrong in ([], [one, one], [str(new_id()) for _ in range(101)], ["x"]):
            async with refused("INVALID_FIELD"):
                await batch(teacher, kind, wrong)
        assert await batch(teacher, kind, [str(new_id()) for _ in range(100)]) == []


class TestWhoSeesWhat:
    async def test_of_a_course_is_what_reading_each_says(
        self, school: School, teacher: Author, reader: Author
    ) -> None:
        open_, shut = await teacher.course(published=True), await teacher.course()
        units = [await teacher.unit(one.id) for one in (open_, shut)]
        taken = await teacher.course(published=True)
        unit = await teacher.unit(taken.id)
        lessons = [await teacher.lesson(one.id, published=True) for one in (units[0], unit)]
        draft = await teacher.lesson(unit.id)
        await teacher.enrol(taken.id, reader.person)
        await school.settle()
        await Calls(teacher).verb("Archive", "course", taken.id)
        assert await ids(reader, "course", [shut.id, taken.id, open_.id]) == [taken.id, open_.id]
        assert await ids(reader, "unit", [unit.id, units[1].id, units[0].id]) == [unit.id, units[0].id]
        assert await ids(reader, "lesson", [lessons[0].id, draft.id, lessons[1].id]) == [lessons[1].id]

    async def test_of_stories_is_the_published_version(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        draft, story = await teacher.story(), await teacher.story(text="Một.")
        published = await publish_approved(story.id)
        await teacher.rewrite(story.id, "Hai.")
        (seen,) = await batch(student, "story", [draft.id, story.id])
        assert seen.current_version.id == published.published_version_id
        assert not seen.current_version.text
        (full,) = await batch(student, "story", [story.id], view=story_versions_pb2.FULL)
        assert full.current_version.text == "Một."
        assert full == await student.read(story.id)

    async def test_of_whole_stories_are_ten_at_most(self, teacher: Author) -> None:
        many = [str(new_id()) for _ in range(11)]
        async with refused("INVALID_FIELD"):
            request = stories_pb2.BatchGetStoriesRequest(ids=many, view=story_versions_pb2.FULL)
            await teacher.stories.BatchGetStories(request)
        assert await batch(teacher, "story", many[:10], view=story_versions_pb2.FULL) == []
