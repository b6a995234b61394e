"""Removal for good: only of what is deleted, with all that belongs to it and nothing else."""

from typing import Any

import grpc
import pytest
from sqlalchemy import ForeignKeyConstraint

from services.content.models import Base, StoryVersion
from services.content.queries.purging import PARTS, RESOURCES
from storyloom.content.v1 import courses_pb2, lessons_pb2
from storyloom.content.v1.audios_pb2 import Audio, CreateAudioRequest
from storyloom.content.v1.audios_pb2_grpc import AudioServiceStub
from tests.content.conftest import WORDS, Author, ListEntries
from tests.content.test_hierarchy import PLURALS, Calls
from tests.content.test_lessons import require_first
from tests.stack import School, refused


@pytest.fixture(scope="session")
def boss(school: School) -> Author:
    """Somebody who may purge."""
    return Author(school.admin)


async def purge(author: Author, kind: str, which: str) -> Any:
    return await Calls(author).verb("Purge", kind, which)


async def grown(author: Author) -> dict[str, str]:
    """A course with one of everything, the story woven, recorded and written anew."""
    await author.learn_words(*WORDS)
    course = await author.course(published=True)
    unit = await author.unit(course.id)
    first = await author.lesson(unit.id, published=True)
    lesson = await author.lesson(unit.id, published=True, prerequisite_ids=[first.id])
    story = await author.story(lesson_id=lesson.id)
    await author.weave(story.id)
    audio = CreateAudioRequest(audio=Audio(story_id=story.id, title="Giọng đọc"))
    await author.person.stub(AudioServiceStub, "content").CreateAudio(audio)
    await author.rewrite(story.id, "Khác hẳn.")
    return {"course": course.id, "unit": unit.id, "first": first.id, "lesson": lesson.id, "story": story.id}


async def rows_of_tenant(tables: Any, tenant_id: str) -> dict[str, int]:
    """How many rows of each of content's tables the tenant has."""
    names = [table.name for table in Base.metadata.sorted_tables if "tenant_id" in table.c]
    count = "SELECT count(*) FROM content.{} WHERE tenant_id = $1"
    found = {name: await tables.fetchval(count.format(name), tenant_id) for name in names}
    return {name: rows for name, rows in found.items() if name not in {"outbox", "idempotency_keys"}}


class TestPurge:
    @pytest.mark.parametrize("kind", ["course", "unit", "lesson", "story"])
    async def test_removes_all_that_belongs_to_it_and_nothing_else(
        self, kind: str, boss: Author, tables: Any
    ) -> None:
        await grown(boss)
        before = await rows_of_tenant(tables, boss.person.tenant_id)
        made = await grown(boss)
        for one in dict.fromkeys((kind, "course")):
            await Calls(boss).verb("Delete", one, made[one])
            await purge(boss, one, made[one])
            assert await tables.fetchval(f"SELECT count(*) FROM content.{PLURALS[one]} WHERE id = $1", made[one]) == 0
        assert await rows_of_tenant(tables, boss.person.tenant_id) == before

    @pytest.mark.parametrize("kind", ["course", "unit", "lesson", "story"])
    async def test_is_only_of_what_is_deleted(self, kind: str, boss: Author, outsider: Author) -> None:
        made = await grown(boss)
        async with refused("WRONG_STATE", code=grpc.StatusCode.FAILED_PRECONDITION):
            await purge(boss, kind, made[kind])
        await Calls(boss).verb("Delete", kind, made[kind])
        async with refused("PERMISSION_REQUIRED") as refusal:
            await purge(outsider, kind, made[kind])
        assert refusal.metadata["permission"] == f"{kind}:purge"
        await purge(boss, kind, made[kind])
        for verb in ("Get", "Undelete", "Purge"):
            async with refused("RESOURCE_NOT_FOUND"):
                await Calls(boss).verb(verb, kind, made[kind])

    async def test_refuses_a_stale_etag(self, boss: Author) -> None:
        course = await boss.course()
        await Calls(boss).verb("Delete", "course", course.id)
        async with refused("STALE_ETAG"):
            await boss.courses.PurgeCourse(courses_pb2.PurgeCourseRequest(id=course.id, etag=course.etag))

    async def test_removes_what_was_deleted_before_the_whole(self, boss: Author, tables: Any) -> None:
        made = await grown(boss)
        for kind in ("story", "lesson", "course"):
            await Calls(boss).verb("Delete", kind, made[kind])
        await purge(boss, "course", made["course"])
        assert not await tables.fetchval("SELECT count(*) FROM content.stories WHERE id = $1", made["story"])

    async def test_is_in_the_audit_log_with_what_was_removed(self, boss: Author, entries_of: ListEntries) -> None:
        made = await grown(boss)
        await Calls(boss).verb("Delete", "course", made["course"])
        await purge(boss, "course", made["course"])
        ends = {}
        for name, which in made.items():
            kind = {"first": "lesson"}.get(name, name)
            ends[name] = (await entries_of(entity_type=kind, entity_id=which))[-1]
        assert {one.action for one in ends.values()} == {"purge"}
        assert {one.old_values["title"] for one in ends.values()} == {"Tiếng Anh", "Chương", "Bài", "Chợ nổi"}
        removed = dict(ends["course"].old_values["removed"])
        assert removed.pop("story_chunks") > removed.pop("cloze_configs") > 0
        assert removed == {
            "courses": 1,
            "units": 1,
            "lessons": 2,
            "lesson_authors": 2,
            "lesson_prerequisites": 1,
            "stories": 1,
            "story_versions": 3,
            "audios": 1,
        }

    async def test_makes_learning_forget(self, school: School, boss: Author, tables: Any) -> None:
        made = await grown(boss)

        async def known() -> tuple[set[str], int]:
            await school.settle()
            rows = await tables.fetch("SELECT id::text FROM learning.lesson_index WHERE course_id = $1", made["course"])
            courses = await tables.fetchval("SELECT count(*) FROM learning.course_index WHERE id = $1", made["course"])
            return {row["id"] for row in rows}, courses

        assert await known() == ({made["first"], made["lesson"]}, 1)
        await Calls(boss).verb("Delete", "lesson", made["first"])
        await purge(boss, "lesson", made["first"])
        assert await known() == ({made["lesson"]}, 1)
        await Calls(boss).verb("Delete", "course", made["course"])
        await purge(boss, "course", made["course"])
        assert await known() == (set(), 0)

    async def test_of_a_prerequisite_frees_those_that_waited_for_it(
        self, school: School, boss: Author, tables: Any
    ) -> None:
        made = await grown(boss)
        last = await boss.lesson(made["unit"])
        await require_first(boss, last.id, made["first"], made["lesson"])
        await Calls(boss).verb("Delete", "lesson", made["first"])
        await purge(boss, "lesson", made["first"])
        read = await boss.lessons.GetLesson(lessons_pb2.GetLessonRequest(id=last.id))
        assert list(read.prerequisite_ids) == [made["lesson"]]
        await school.settle()
        told = await tables.fetchval("SELECT prerequisite_ids FROM learning.lesson_index WHERE id = $1", last.id)
        assert list(map(str, told)) == [made["lesson"]]


class TestEveryTable:
    def test_that_refers_to_what_is_purged_has_a_line(self) -> None:
        """Or has a key that goes, or lets go, with the row."""
        listed = {(column.class_.__tablename__, column.key, owner.__tablename__) for column, owner in PARTS}
        ours = {model.__tablename__ for model in (*RESOURCES, StoryVersion)}
        missing = {
            (table.name, key.column_keys[-1], key.referred_table.name)
            for table in Base.metadata.sorted_tables
            for key in table.constraints
            if isinstance(key, ForeignKeyConstraint) and key.referred_table.name in ours and not key.ondelete
            if table.name not in ours
        }
        assert missing <= listed, "say in PARTS what becomes of these rows"
        assert set(PLURALS.values()) < ours
