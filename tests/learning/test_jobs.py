"""Long work on the rows of all tenants."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from random import Random
from uuid import UUID

from kit.ids import SYSTEM_TENANT, new_id
from kit.jobs import Job, Repeating, Runner, Standing
from services.learning import jobs
from services.learning.jobs import JOBS
from tests.learning.conftest import Connection, Course, ListEntries
from tests.learning.reviewing import STATE, history, send
from tests.learning.test_learning_sessions import ABANDONED, OPEN, beat, begin, get, let_pass
from tests.stack import School

(REBUILD,) = (job for job in JOBS if job.name == "rebuild_vocabulary_progress")
(CLOSE,) = (job for job in JOBS if job.name == "close_abandoned_sessions")

STORED = "SELECT state FROM learning.learning_sessions WHERE id = $1"


async def run(school: School, job: Job = REBUILD) -> Standing:
    runner = Runner(school.stack.services["learning"].db, job, tell=lambda standing: None)
    return await runner.run(restart=True)


class TestRebuildVocabularyProgress:
    async def test_finds_that_what_is_kept_is_what_the_logs_say(
        self, school: School, tables: Connection, entries_of: ListEntries
    ) -> None:
        for seed in range(7):
            await send(school, new_id(), history(Random(seed)))
        # The platform's staff are learners of no school.
        await tables.execute("INSERT INTO learning.learners (tenant_id, id) VALUES ($1, $2)", SYSTEM_TENANT, new_id())
        before = len(await entries_of(action="rebuild"))
        learners = await tables.fetchval("SELECT count(*) FROM learning.learners")
        standing = await run(school)
        assert (standing.state, standing.done, standing.total) == ("done", learners, learners)
        assert len(await entries_of(action="rebuild")) == before

    async def test_mends_and_writes_down_what_differs(
        self, school: School, tables: Connection, entries_of: ListEntries
    ) -> None:
        user_id, tenant_id = new_id(), UUID(school.student.tenant_id)
        await send(school, user_id, history(Random(3)))
        right = await tables.fetch(STATE, tenant_id, user_id)
        await tables.execute(
            "UPDATE learning.user_vocabulary_progress SET lapse_count = lapse_count + 1 WHERE user_id = $1", user_id
        )
        await run(school)
        assert await tables.fetch(STATE, tenant_id, user_id) == right
        [entry] = await entries_of(action="rebuild", entity_id=str(user_id))
        assert entry.new_values["words"] == len(right)


class TestCloseAbandonedSessions:
    async def test_ends_those_without_a_sign_of_life_when_they_were_last_heard_of(
        self, school: School, course: Course, tables: Connection, entries_of: ListEntries
    ) -> None:
        await course.enrol(school.student2)
        silent = await begin(school.student, course.lesson_ids[0])
        alive = await begin(school.student2, course.lesson_ids[0])
        await let_pass(tables, silent.id, timedelta(minutes=31))
        before = await get(school.teacher, silent.id)
        assert (before.state, before.etag) == (ABANDONED, silent.etag)
        assert (await run(school, CLOSE)).state == "done"
        closed = await get(school.teacher, silent.id)
        assert (closed.state, closed.end_time) == (ABANDONED, before.last_seen_time)
        assert closed.etag != before.etag
        assert closed.active_duration == before.active_duration
        assert await tables.fetchval(STORED, UUID(silent.id)) == "abandoned"
        assert (await beat(school.student2, alive.id)).state == OPEN
        [entry] = await entries_of(entity_type="learning_session", entity_id=silent.id, action="end")
        assert (entry.new_values["state"], entry.user_id) == ("abandoned", "")
        await run(school, CLOSE)
        assert await get(school.teacher, silent.id) == closed

    async def test_is_done_now_and_then_by_the_service_itself(
        self, school: School, course: Course, tables: Connection
    ) -> None:
        silent = await begin(school.student, course.lesson_ids[0])
        await let_pass(tables, silent.id, timedelta(minutes=31))
        db = school.stack.services["learning"].db
        sweeping = asyncio.create_task(Repeating(db, jobs.ABANDONED, seconds=0.01).run())
        async with asyncio.timeout(5):
            while await tables.fetchval(STORED, UUID(silent.id)) != "abandoned":
                await asyncio.sleep(0.02)
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
