"""Places of units, lessons and stories: reordered all at once, moved between parents, and changed by many at once."""

import random
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1 import courses_pb2, lessons_pb2, stories_pb2, units_pb2
from tests.content.conftest import Author, ListEntries, outcomes
from tests.content.test_hierarchy import Calls, reason_of
from tests.stack import School, refused

# What a call that loses against others may be told; all of it can be tried again, or is no longer wanted.
LOST = {"CONCURRENT_CHANGE", "RESOURCE_NOT_FOUND", "WRONG_STATE", "REFERENCE_NOT_FOUND", "OVERLOADED"}


@dataclass
class Level:
    """Siblings of one kind, in two parents of one course."""

    kind: str
    table: str
    parent: str
    parents: list[str]
    children: list[str]

    async def places(self, tables: Any) -> dict[str, list[tuple[str, int]]]:
        """What is not deleted, by parent, as the database has it."""
        rows = await tables.fetch(
            f"SELECT id::text, {self.parent}::text AS above, position FROM content.{self.table}"
            f" WHERE {self.parent} = ANY($1) AND deleted_at IS NULL ORDER BY position",
            self.parents,
        )
        found: dict[str, list[tuple[str, int]]] = {one: [] for one in self.parents}
        for row in rows:
            found[row["above"]].append((row["id"], row["position"]))
        return found

    async def order(self, tables: Any) -> list[str]:
        return [one for one, _ in (await self.places(tables))[self.parents[0]]]


ABOVE = {"unit": "course", "lesson": "unit", "story": "lesson"}


async def level(author: Author, kind: str, count: int) -> Level:
    course = (await author.course()).id
    parents, table, parent = [course], "units", "course_id"
    if kind != "unit":
        parents, table, parent = [(await author.unit(course)).id for _ in range(2)], "lessons", "unit_id"
    if kind == "story":
        parents, table, parent = [(await author.lesson(one)).id for one in parents], "stories", "lesson_id"
    calls = Calls(author)
    children = [await calls.create(kind, parents[0], 0) for _ in range(count)]
    return Level(kind, table, parent, parents, children)


async def reorder(author: Author, one: Level, wanted: list[str]) -> Any:
    return await Calls(author).reorder(ABOVE[one.kind], one.parents[0], wanted)


@pytest.mark.parametrize("kind", ["unit", "lesson", "story"])
class TestReorder:
    async def test_gives_all_their_places_at_once(self, kind: str, teacher: Author, tables: Any) -> None:
        one = await level(teacher, kind, 4)
        wanted = [one.children[n] for n in (2, 0, 3, 1)]
        answer = await reorder(teacher, one, wanted)
        said = next(iter(answer.ListFields()))[1]
        assert [(child.id, child.position) for child in said] == list(zip(wanted, (1, 2, 3, 4), strict=True))
        assert (await one.places(tables))[one.parents[0]] == [(child.id, child.position) for child in said]

    async def test_changes_the_etags_of_the_parent_and_of_those_that_moved(self, kind: str, teacher: Author) -> None:
        one = await level(teacher, kind, 3)
        first, second, third = one.children
        answer = await reorder(teacher, one, [second, first, third])
        assert [child.etag for child in next(iter(answer.ListFields()))[1]] == ["2", "2", "1"]
        assert answer.etag == "2"
        again = await reorder(teacher, one, [second, first, third])
        assert again.etag == "2"
        request = {"id": one.parents[0], f"{kind}_ids": one.children, "etag": "1"}
        async with refused("STALE_ETAG", code=grpc.StatusCode.ABORTED):
            await send(teacher, kind, request)

    async def test_refuses_a_list_that_is_not_all_of_them(self, kind: str, teacher: Author, tables: Any) -> None:
        one, other = await level(teacher, kind, 3), await level(teacher, kind, 1)
        await Calls(teacher).verb("Delete", kind, one.children[2])
        kept = one.children[:2]
        for wrong in (kept[:1], one.children, [*kept, *other.children]):
            async with refused("CONCURRENT_CHANGE", code=grpc.StatusCode.ABORTED) as refusal:
                await reorder(teacher, one, wrong)
            assert refusal.metadata == {"resource": kind}
        async with refused("INVALID_FIELD", field=f"{kind}_ids"):
            await reorder(teacher, one, [kept[0], kept[0]])
        assert await one.order(tables) == kept

    async def test_is_in_the_audit_log_with_each_that_moved(
        self, kind: str, teacher: Author, entries_of: ListEntries
    ) -> None:
        one = await level(teacher, kind, 3)
        first, second, third = one.children
        await reorder(teacher, one, [second, first, third])
        logged = [(await entries_of(entity_type=kind, entity_id=child))[-1] for child in one.children]
        assert [entry.action for entry in logged] == ["update", "update", "create"]
        assert dict(logged[0].old_values) == {"position": 1}
        assert dict(logged[0].new_values) == {"position": 2}
        (entry,) = (await entries_of(entity_type=ABOVE[kind], entity_id=one.parents[0]))[1:]
        assert list(entry.old_values[f"{kind}_ids"]) == one.children
        assert list(entry.new_values[f"{kind}_ids"]) == [second, first, third]

    async def test_is_for_those_who_may_change_the_parent(
        self, kind: str, teacher: Author, student: Author, outsider: Author
    ) -> None:
        one = await level(teacher, kind, 2)
        async with refused("PERMISSION_REQUIRED") as refusal:
            await reorder(student, one, one.children)
        assert refusal.metadata["permission"] == f"{ABOVE[kind]}:update"
        async with refused("RESOURCE_NOT_FOUND"):
            await reorder(outsider, one, one.children)

    async def test_is_refused_in_an_archived_course(self, kind: str, teacher: Author) -> None:
        one = await level(teacher, kind, 2)
        await archive_course_of(teacher, kind, one)
        async with refused("WRONG_STATE"):
            await reorder(teacher, one, one.children[::-1])


async def send(author: Author, kind: str, request: dict[str, Any]) -> Any:
    match kind:
        case "unit":
            return await author.courses.ReorderUnits(courses_pb2.ReorderUnitsRequest(**request))
        case "lesson":
            return await author.units.ReorderLessons(units_pb2.ReorderLessonsRequest(**request))
        case _:
            return await author.lessons.ReorderStories(lessons_pb2.ReorderStoriesRequest(**request))


async def archive_course_of(author: Author, kind: str, one: Level) -> None:
    course = one.parents[0]
    if kind == "story":
        course = (await author.lessons.GetLesson(lessons_pb2.GetLessonRequest(id=course))).course_id
    elif kind == "lesson":
        course = (await author.units.GetUnit(units_pb2.GetUnitRequest(id=course))).course_id
    await Calls(author).verb("Publish", "course", course)
    await Calls(author).verb("Archive", "course", course)


@pytest.mark.parametrize("kind", ["unit", "lesson", "story"])
class TestManyAtOnce:
    async def test_reorders_leave_one_of_the_orders_asked_for(
        self, kind: str, teacher: Author, teacher2: Author, tables: Any
    ) -> None:
        one = await level(teacher, kind, 5)
        orders = [random.sample(one.children, 5) for _ in range(8)]
        calls = [reorder(who, one, wanted) for who, wanted in zip((teacher, teacher2) * 4, orders, strict=True)]
        done = await outcomes(*calls)
        assert all(not isinstance(said, BaseException) or reason_of(said) in LOST for said in done), done
        assert await one.order(tables) in orders
        assert [place for _, place in (await one.places(tables))[one.parents[0]]] == [1, 2, 3, 4, 5]

    async def test_made_in_one_place_all_find_room(
        self, kind: str, teacher: Author, teacher2: Author, tables: Any
    ) -> None:
        one = await level(teacher, kind, 1)
        made = await outcomes(*(Calls(who).create(kind, one.parents[0], 1) for who in (teacher, teacher2) * 3))
        order = await one.order(tables)
        assert order[-1] == one.children[0]
        assert set(order[:-1]) == set(made)

    async def test_no_place_is_lost_or_given_twice(
        self, kind: str, teacher: Author, teacher2: Author, tables: Any
    ) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        one = await level(teacher, kind, 6)
        removed = set(one.children[4:])
        for child in removed:
            await Calls(teacher).verb("Delete", kind, child)
        done = []
        for _ in range(5):
            calls = [change(chance.choice((teacher, teacher2)), one, chance) for _ in range(8)]
            done += await outcomes(*calls)
        failed = [said for said in done if isinstance(said, BaseException)]
        assert {reason_of(said) for said in failed} <= LOST, (seed, failed)
        assert len(failed) < len(done), seed
        created = {said for said in done if isinstance(said, str)}
        places = await one.places(tables)
        for siblings in places.values():
            taken = [place for _, place in siblings]
            assert len(set(taken)) == len(taken), (seed, siblings)
        rows = await tables.fetch(f"SELECT id::text FROM content.{one.table} WHERE {one.parent} = ANY($1)", one.parents)
        assert {row["id"] for row in rows} == {*one.children, *created}, seed


async def change(author: Author, one: Level, chance: random.Random) -> Any:
    """Any change of places, of any of the siblings."""
    calls, child = Calls(author), chance.choice(one.children)
    match chance.randrange(6):
        case 0:
            return await calls.create(one.kind, chance.choice(one.parents), chance.randrange(4))
        case 1:
            return await calls.verb("Delete", one.kind, child)
        case 2:
            return await calls.verb("Undelete", one.kind, child)
        case 3:
            return await reorder(author, one, chance.sample(one.children[:4], 4))
        case 4 if one.kind != "unit":
            return await calls.move(one.kind, child, chance.choice(one.parents), chance.choice((None, 1, 2)))
        case _:
            return await calls.move(one.kind, child, None, chance.randrange(1, 6))


class TestMoveLesson:
    async def test_into_another_unit_of_the_course_tells_learning(
        self, school: School, teacher: Author, tables: Any
    ) -> None:
        one = await level(teacher, "lesson", 2)
        other = await teacher.lesson(one.parents[1])
        story = await teacher.story(lesson_id=one.children[0])
        moved = await Calls(teacher).move("lesson", one.children[0], one.parents[1], 1)
        assert (moved.unit_id, moved.position) == (one.parents[1], 1)
        assert await one.places(tables) == {
            one.parents[0]: [(one.children[1], 2)],
            one.parents[1]: [(moved.id, 1), (other.id, 2)],
        }
        assert (await teacher.read(story.id)).lesson_id == moved.id
        await school.settle()
        index = "SELECT id::text, position FROM learning.lesson_index WHERE unit_id = $1"
        told = await tables.fetch(index, moved.unit_id)
        assert {row["id"]: row["position"] for row in told} == {moved.id: 1, other.id: 2}

    async def test_refuses_units_that_are_not_of_the_course(self, teacher: Author, outsider: Author) -> None:
        one, other = await level(teacher, "lesson", 1), await level(teacher, "lesson", 0)
        foreign = await outsider.unit((await outsider.course()).id)
        await Calls(teacher).verb("Delete", "unit", one.parents[1])
        for wrong in (other.parents[0], foreign.id, one.parents[1]):
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await Calls(teacher).move("lesson", one.children[0], wrong, None)
            assert refusal.metadata == {"resource": "unit"}
        lesson = lessons_pb2.Lesson(id=one.children[0])
        request = lessons_pb2.UpdateLessonRequest(lesson=lesson, update_mask=FieldMask(paths=["unit_id"]))
        async with refused("INVALID_FIELD"):
            await teacher.lessons.UpdateLesson(request)


class TestMoveStory:
    async def test_into_another_lesson_and_out(self, teacher: Author, tables: Any) -> None:
        one = await level(teacher, "story", 3)
        first, second, third = one.children
        assert (await Calls(teacher).move("story", first, one.parents[1], None)).position == 1
        assert (await Calls(teacher).move("story", third, one.parents[1], 1)).position == 1
        assert await one.places(tables) == {one.parents[0]: [(second, 2)], one.parents[1]: [(third, 1), (first, 2)]}
        out = await Calls(teacher).move("story", third, "", None)
        assert (out.lesson_id, out.position) == ("", 0)
        assert (await Calls(teacher).move("story", third, one.parents[0], None)).position == 3

    async def test_comes_back_in_its_place_or_last_when_that_is_taken(self, teacher: Author, tables: Any) -> None:
        one = await level(teacher, "story", 3)
        for story in one.children[:2]:
            await Calls(teacher).verb("Delete", "story", story)
        new = await Calls(teacher).create("story", one.parents[0], 2)
        for story in one.children[:2]:
            await Calls(teacher).verb("Undelete", "story", story)
        first, second, third = one.children
        assert (await one.places(tables))[one.parents[0]] == [(first, 1), (new, 2), (third, 3), (second, 4)]

    async def test_refuses_a_place_without_a_lesson(self, teacher: Author) -> None:
        story = await teacher.story()
        for call in (teacher.story(position=1), Calls(teacher).move("story", story.id, None, 1)):
            async with refused("INVALID_FIELD", field="story.position"):
                await call

    async def test_refuses_lessons_of_archived_courses(self, teacher: Author) -> None:
        one, story = await level(teacher, "story", 1), await teacher.story()
        await archive_course_of(teacher, "story", one)
        calls: list[Awaitable[Any]] = [
            teacher.story(lesson_id=one.parents[0]),
            Calls(teacher).move("story", story.id, one.parents[0], None),
            Calls(teacher).move("story", one.children[0], "", None),
        ]
        for call in calls:
            async with refused("WRONG_STATE"):
                await call

    async def test_lists_by_place(self, teacher: Author) -> None:
        one = await level(teacher, "story", 5)
        wanted = random.sample(one.children, 5)
        await reorder(teacher, one, wanted)
        request = stories_pb2.ListStoriesRequest(lesson_id=one.parents[0], order_by="position", page_size=2)
        found: list[str] = []
        while len(found) < len(wanted):
            answer = await teacher.stories.ListStories(request)
            found += [story.id for story in answer.stories]
            request.page_token = answer.next_page_token
        assert found == wanted
        assert not request.page_token
        async with refused("INVALID_FIELD"):
            await teacher.stories.ListStories(stories_pb2.ListStoriesRequest(order_by="position"))
