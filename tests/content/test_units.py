"""Units: their places in the course, also when many make them at once."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1 import courses_pb2, units_pb2
from tests.content.conftest import Author, outcomes
from tests.stack import School, refused

NOWHERE = "00000000-0000-7000-8000-000000000000"


async def places(author: Author, course_id: str) -> list[tuple[str, int]]:
    request = units_pb2.ListUnitsRequest(course_id=course_id, page_size=2)
    found: list[tuple[str, int]] = []
    while True:
        answer = await author.units.ListUnits(request)
        found += [(one.title, one.position) for one in answer.units]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def move(author: Author, unit_id: str, position: int, etag: str = "") -> units_pb2.Unit:
    unit = units_pb2.Unit(id=unit_id, position=position, etag=etag)
    return await author.units.UpdateUnit(units_pb2.UpdateUnitRequest(unit=unit))


async def delete(author: Author, unit_id: str) -> units_pb2.Unit:
    return await author.units.DeleteUnit(units_pb2.DeleteUnitRequest(id=unit_id))


async def undelete(author: Author, unit_id: str) -> units_pb2.Unit:
    return await author.units.UndeleteUnit(units_pb2.UndeleteUnitRequest(id=unit_id))


class TestCreateUnit:
    async def test_comes_last_unless_it_names_its_place(self, teacher: Author) -> None:
        course = await teacher.course()
        for title, position in (("a", 0), ("b", 0), ("c", 1), ("d", 9), ("e", 0)):
            await teacher.unit(course.id, title, position=position)
        assert await places(teacher, course.id) == [("c", 1), ("a", 2), ("b", 3), ("d", 9), ("e", 10)]

    async def test_made_at_once_each_gets_its_own_place(self, teacher: Author, teacher2: Author) -> None:
        course = await teacher.course()
        authors = (teacher, teacher2) * 4
        made = await outcomes(*(one.unit(course.id, f"{n}") for n, one in enumerate(authors)))
        assert sorted(one.position for one in made) == list(range(1, 9))

    async def test_made_at_once_in_one_place_all_find_room(self, teacher: Author) -> None:
        course = await teacher.course()
        made = await outcomes(*(teacher.unit(course.id, f"{n}", position=1) for n in range(6)))
        assert all(isinstance(one, units_pb2.Unit) for one in made)
        assert [place for _, place in await places(teacher, course.id)] == list(range(1, 7))

    @pytest.mark.parametrize("which", ["absent", "deleted", "foreign"])
    async def test_refuses_a_course_that_is_not_there(self, teacher: Author, outsider: Author, which: str) -> None:
        course_id = NOWHERE
        if which != "absent":
            course_id = (await (outsider if which == "foreign" else teacher).course()).id
        if which == "deleted":
            await teacher.courses.DeleteCourse(courses_pb2.DeleteCourseRequest(id=course_id))
        async with refused("REFERENCE_NOT_FOUND") as refusal:
            await teacher.unit(course_id)
        assert refusal.metadata == {"resource": "course"}

    async def test_is_not_for_students(self, teacher: Author, student: Author) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await student.unit((await teacher.course(published=True)).id)


class TestGetUnit:
    async def test_is_seen_by_whoever_sees_the_course(self, school: School, teacher: Author, reader: Author) -> None:
        course = await teacher.course()
        unit = await teacher.unit(course.id)
        request = units_pb2.GetUnitRequest(id=unit.id)
        async with refused("PERMISSION_REQUIRED"):
            await reader.units.GetUnit(request)
        async with refused("PERMISSION_REQUIRED"):
            await places(reader, course.id)
        await teacher.courses.PublishCourse(courses_pb2.PublishCourseRequest(id=course.id))
        assert await reader.units.GetUnit(request) == unit
        await teacher.enrol(course.id, reader.person)
        await school.settle()
        await teacher.courses.ArchiveCourse(courses_pb2.ArchiveCourseRequest(id=course.id))
        assert await reader.units.GetUnit(request) == unit
        assert len(await places(reader, course.id)) == 1

    async def test_another_tenants_unit_is_absent(self, teacher: Author, outsider: Author) -> None:
        course = await teacher.course(published=True)
        unit = await teacher.unit(course.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await outsider.units.GetUnit(units_pb2.GetUnitRequest(id=unit.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await places(outsider, course.id)


class TestListUnits:
    async def test_takes_two_statements_however_many_there_are(self, teacher: Author, statements: Any) -> None:
        course = await teacher.course()
        for _ in range(5):
            await teacher.unit(course.id)
        with statements() as sent:
            await teacher.units.ListUnits(units_pb2.ListUnitsRequest(course_id=course.id))
        assert len(sent) == 2, sent


class TestUpdateUnit:
    @pytest.mark.parametrize(
        ("unit", "position", "wanted"),
        [
            (2, 1, [("c", 1), ("a", 2), ("b", 3)]),
            (0, 3, [("b", 2), ("a", 3), ("c", 4)]),
            (1, 2, [("a", 1), ("b", 2), ("c", 3)]),
            (0, 7, [("b", 2), ("c", 3), ("a", 7)]),
        ],
    )
    async def test_moving_pushes_the_one_in_the_place_and_those_behind_it_on(
        self, teacher: Author, unit: int, position: int, wanted: list[tuple[str, int]]
    ) -> None:
        course = await teacher.course()
        made = [await teacher.unit(course.id, title) for title in "abc"]
        await move(teacher, made[unit].id, position)
        assert await places(teacher, course.id) == wanted

    async def test_who_is_pushed_on_gets_another_etag(self, teacher: Author) -> None:
        course = await teacher.course()
        first, second = await teacher.unit(course.id), await teacher.unit(course.id)
        await move(teacher, second.id, 1)
        async with refused("STALE_ETAG"):
            await move(teacher, first.id, 5, first.etag)

    async def test_moves_at_once_leave_every_unit_a_place_of_its_own(self, teacher: Author) -> None:
        course = await teacher.course()
        made = [await teacher.unit(course.id, title) for title in "abcdef"]
        moved = await outcomes(*(move(teacher, one.id, 1) for one in made))
        assert all(isinstance(one, units_pb2.Unit) for one in moved)
        found = [place for _, place in await places(teacher, course.id)]
        assert len(found) == len(set(found)) == 6

    @pytest.mark.parametrize("path", ["course_id", "etag", "nonsense"])
    async def test_refuses_to_write_other_fields(self, teacher: Author, path: str) -> None:
        unit = await teacher.unit((await teacher.course()).id)
        request = units_pb2.UpdateUnitRequest(unit=units_pb2.Unit(id=unit.id), update_mask=FieldMask(paths=[path]))
        async with refused("INVALID_UPDATE_MASK"):
            await teacher.units.UpdateUnit(request)


class TestDeleteUnit:
    async def test_comes_back_in_its_place_or_last_when_that_is_taken(self, teacher: Author) -> None:
        course = await teacher.course()
        made = [await teacher.unit(course.id, title) for title in "abc"]
        await delete(teacher, made[0].id)
        await delete(teacher, made[1].id)
        await teacher.unit(course.id, "new", position=2)
        assert (await undelete(teacher, made[0].id)).position == 1
        assert (await undelete(teacher, made[1].id)).position == 4
        assert await places(teacher, course.id) == [("a", 1), ("new", 2), ("c", 3), ("b", 4)]

    async def test_undeleting_what_is_there_is_refused(self, teacher: Author) -> None:
        async with refused("WRONG_STATE"):
            await undelete(teacher, (await teacher.unit((await teacher.course()).id)).id)
