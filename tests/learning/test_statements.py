"""What learners did leaves the platform as statements: all of it, once, in order, and only for who may have it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from kit.ids import new_id
from services.learning import statements
from services.learning.models import GradedAttempt
from services.learning.queries.daily_activity import recount
from storyloom.learning.v1 import learning_sessions_pb2, progress_pb2, vocabulary_progress_pb2, vocabulary_reviews_pb2
from storyloom.learning.v1.learning_sessions_pb2_grpc import LearningSessionServiceStub
from storyloom.learning.v1.progress_pb2_grpc import ProgressServiceStub
from storyloom.learning.v1.statements_pb2 import ExportStatementsRequest
from storyloom.learning.v1.statements_pb2_grpc import StatementServiceStub
from storyloom.learning.v1.vocabulary_progress_pb2_grpc import VocabularyProgressServiceStub
from storyloom.learning.v1.vocabulary_reviews_pb2_grpc import VocabularyReviewServiceStub
from tests.learning.conftest import Connection, Course, ListEntries
from tests.learning.reviewing import make_words, writing
from tests.learning.test_xapi import valid
from tests.stack import Person, School, add_person, refused

LOGS = ("statements", "vocabulary_exposures", "vocabulary_reviews")
VERBS = {"initialized", "terminated", "experienced", "completed", "answered", "passed", "scored"}
HOMEPAGE = "https://storyloom.example"


async def export(person: Person, **asked: Any) -> list[Any]:
    """The messages of an export."""
    for name in ("since", "until"):
        if name in asked:
            at, asked[name] = asked[name], None
            asked[name] = ExportStatementsRequest().since
            asked[name].FromDatetime(at)
    stub = person.stub(StatementServiceStub, "learning")
    return [piece async for piece in stub.ExportStatements(ExportStatementsRequest(**asked))]


def lines(pieces: Sequence[Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(piece.body.data for piece in pieces).splitlines()]


def said(pieces: Sequence[Any]) -> list[dict[str, Any]]:
    """The statements among the lines."""
    return [line for line in lines(pieces) if "cursor" not in line]


async def settle(tables: Connection, user_id: str) -> None:
    """Makes what the user did so old that it is exported."""
    for table in LOGS:
        await tables.execute(
            f"UPDATE learning.{table} SET receive_time = receive_time - interval '1 hour' WHERE user_id = $1",
            UUID(user_id),
        )


async def study(school: School, person: Person, course: Course) -> None:
    """Something of everything that is exported."""
    await course.enrol(person)
    await school.settle()
    lesson, story = course.lesson_ids[0], str(new_id())
    sessions = person.stub(LearningSessionServiceStub, "learning")
    opened = learning_sessions_pb2.LearningSession(lesson_id=lesson)
    begun = await sessions.CreateLearningSession(
        learning_sessions_pb2.CreateLearningSessionRequest(learning_session=opened)
    )
    progress = progress_pb2.Progress(lesson_id=lesson, status=progress_pb2.ProgressStatus.PROGRESS_STATUS_COMPLETED)
    await person.stub(ProgressServiceStub, "learning").UpdateProgress(
        progress_pb2.UpdateProgressRequest(progress=progress)
    )
    (word,) = await make_words(school.teacher)
    exposure = vocabulary_progress_pb2.VocabularyExposure(event_id=str(new_id()), story_id=story, vocabulary_ids=[word])
    await person.stub(VocabularyProgressServiceStub, "learning").RecordVocabularyExposures(
        vocabulary_progress_pb2.RecordVocabularyExposuresRequest(exposures=[exposure])
    )
    reviews = person.stub(VocabularyReviewServiceStub, "learning")
    for rating in (vocabulary_reviews_pb2.REVIEW_RATING_AGAIN, vocabulary_reviews_pb2.REVIEW_RATING_GOOD):
        review = vocabulary_reviews_pb2.VocabularyReview(vocabulary_id=word, rating=rating)
        review.duration.FromTimedelta(timedelta(seconds=2.5))
        await reviews.CreateVocabularyReview(
            vocabulary_reviews_pb2.CreateVocabularyReviewRequest(vocabulary_review=review)
        )
    # Known words were not answered.
    await reviews.ImportKnownVocabulary(
        vocabulary_reviews_pb2.ImportKnownVocabularyRequest(vocabulary_ids=await make_words(school.teacher))
    )
    await sessions.EndLearningSession(learning_sessions_pb2.EndLearningSessionRequest(id=begun.id))
    await grade(school, person, lesson)


async def grade(school: School, person: Person, lesson: str, *, hidden: bool = False) -> None:
    """A result, and the same one corrected."""
    async with writing(school) as session:
        result = GradedAttempt(
            quiz_id=new_id(), lesson_id=UUID(lesson), user_id=UUID(person.user_id), number=1, score=Decimal(7),
            max_score=Decimal(10), percent=Decimal(70), passed=True, regraded=False, grade_time=datetime.now(UTC),
            score_hidden=hidden,
        )  # fmt: skip
        session.add(result)
        await session.flush()
        result.score = Decimal(8)
        await session.flush()
        await recount(session, result.user_id)


@pytest.fixture
async def learner(school: School, course: Course, tables: Connection) -> Person:
    person = await add_person(school.admin, school.slug, f"teller-{new_id().hex}", "student")
    await study(school, person, course)
    await settle(tables, person.user_id)
    return person


class TestExportStatements:
    async def test_tells_all_that_a_learner_did_in_valid_statements(
        self, school: School, course: Course, learner: Person
    ) -> None:
        pieces = await export(learner, user_id=learner.user_id)
        found = said(pieces)
        for one in found:
            valid(one)
        assert {one["verb"]["display"]["en"] for one in found} == VERBS
        assert len(found) == pieces[-1].statement_count == 9
        assert len({one["id"] for one in found}) == len(found)
        assert {one["actor"]["account"]["name"] for one in found} == {learner.user_id}
        assert {one["actor"]["account"]["homePage"] for one in found} == {HOMEPAGE}
        assert [one["stored"] for one in found] == sorted(one["stored"] for one in found)
        lesson = f"{HOMEPAGE}/v1/lessons/{course.lesson_ids[0]}"
        by_verb = {one["verb"]["display"]["en"]: one for one in found}
        assert by_verb["completed"]["object"]["id"] == by_verb["terminated"]["object"]["id"] == lesson
        assert by_verb["completed"]["object"]["definition"]["name"] == {"und": "Bài 1"}
        assert by_verb["completed"]["context"]["contextActivities"]["grouping"][0]["id"].endswith(course.id)
        assert [one["result"]["success"] for one in found if one["verb"]["id"].endswith("answered")] == [False, True]
        assert by_verb["answered"]["result"]["duration"] == "PT2.50S"
        assert by_verb["passed"]["result"]["score"]["scaled"] == 0.7
        assert by_verb["scored"]["result"]["score"]["scaled"] == 0.8
        assert by_verb["passed"]["context"]["contextActivities"]["parent"][0]["id"] == lesson

    async def test_names_nobody(self, learner: Person) -> None:
        text = b"".join(piece.body.data for piece in await export(learner, user_id=learner.user_id))
        assert b"@" not in text
        assert b"mbox" not in text

    async def test_says_the_same_each_time_and_that_it_is_complete(self, school: School, learner: Person) -> None:
        first, second = [await export(school.teacher, user_id=learner.user_id) for _ in range(2)]
        assert said(first) == said(second)
        # Of all that there is, a learner is given what is theirs.
        assert said(await export(learner)) == said(first)
        assert lines(first)[-1] == {"cursor": first[-1].cursor, "complete": True}
        assert first[-1].complete

    async def test_goes_on_wherever_it_was_cut_off(
        self, school: School, learner: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = said(await export(school.teacher, user_id=learner.user_id))
        monkeypatch.setattr(statements, "ROWS_AT_ONCE", 2)
        pieces = await export(school.teacher, user_id=learner.user_id)
        assert said(pieces) == whole
        assert len(pieces) == 5
        for number, piece in enumerate(pieces, 1):
            rest = await export(school.teacher, user_id=learner.user_id, cursor=piece.cursor)
            assert said(pieces[:number]) + said(rest) == whole

    async def test_has_what_is_new_after_a_complete_file(
        self, school: School, learner: Person, course: Course, tables: Connection
    ) -> None:
        before = await export(school.teacher, user_id=learner.user_id)
        await grade(school, learner, course.lesson_ids[0])
        assert said(await export(school.teacher, user_id=learner.user_id, cursor=before[-1].cursor)) == []
        # As if it had been stored while the earlier file was made, and is old enough now.
        await tables.execute(
            "UPDATE learning.statements SET receive_time = now() - interval '30.5 seconds'"
            " WHERE user_id = $1 AND receive_time > now() - interval '1 minute'", UUID(learner.user_id),
        )  # fmt: skip
        after = said(await export(school.teacher, user_id=learner.user_id))
        assert len(after) == len(said(before)) + 2

    async def test_leaves_out_what_may_not_be_all_yet(
        self, school: School, learner: Person, course: Course
    ) -> None:
        before = said(await export(school.teacher, user_id=learner.user_id))
        await grade(school, learner, course.lesson_ids[0])
        assert said(await export(school.teacher, user_id=learner.user_id)) == before

    async def test_is_of_a_time_when_asked(self, school: School, learner: Person) -> None:
        whole = said(await export(school.teacher, user_id=learner.user_id))
        # To the millisecond, as it is told: the first one is stored a little after that.
        middle = datetime.fromisoformat(whole[3]["stored"]).replace(tzinfo=None)
        early = said(await export(school.teacher, user_id=learner.user_id, until=middle))
        late = said(await export(school.teacher, user_id=learner.user_id, since=middle))
        assert early + late == whole
        assert early
        assert late
        async with refused("INVALID_FIELD"):
            await export(school.teacher, since=middle, until=middle)

    async def test_keeps_from_learners_the_results_that_their_quiz_keeps_from_them(
        self, school: School, learner: Person, course: Course, tables: Connection
    ) -> None:
        before = said(await export(learner))
        await grade(school, learner, course.lesson_ids[0], hidden=True)
        await settle(tables, learner.user_id)
        for asked in ({}, {"user_id": learner.user_id}):
            assert {one["id"] for one in said(await export(learner, **asked))} == {one["id"] for one in before}
        told = said(await export(school.teacher, user_id=learner.user_id))
        assert len(told) == len(before) + 2

    async def test_is_of_the_whole_school_for_who_may(self, school: School, learner: Person) -> None:
        mine = said(await export(school.teacher, user_id=learner.user_id))
        everything = said(await export(school.admin))
        assert [one for one in everything if one in mine] == mine
        theirs = await export(school.outsider_admin)
        assert not {one["id"] for one in said(theirs)} & {one["id"] for one in everything}
        # Another tenant's learner is as good as none.
        assert said(await export(school.outsider_teacher, user_id=learner.user_id)) == []

    async def test_is_refused_to_whoever_it_is_not_about(self, school: School, learner: Person) -> None:
        for person, asked in (
            (learner, {"user_id": school.student.user_id}),
            (school.auditor, {"user_id": learner.user_id}),
        ):
            async with refused("PERMISSION_REQUIRED"):
                await export(person, **asked)

    async def test_refuses_a_cursor_that_is_none(self, school: School) -> None:
        async with refused("INVALID_FIELD", field="cursor"):
            await export(school.teacher, cursor="1-2")

    async def test_is_recorded_once(self, school: School, learner: Person, entries_of: ListEntries) -> None:
        before = len(await entries_of(action="export", entity_type="statement"))
        await export(learner, user_id=learner.user_id)
        *_, entry = entries = await entries_of(action="export", entity_type="statement")
        assert len(entries) == before + 1
        assert (entry.user_id, entry.new_values["user_id"]) == (learner.user_id, learner.user_id)


class TestStatements:
    async def test_stay_what_they_were_and_go_with_their_learner(
        self, school: School, learner: Person, course: Course, tables: Connection
    ) -> None:
        assert not await tables.fetchval(
            "SELECT has_any_column_privilege('storyloom_learning', 'learning.statements', 'UPDATE')"
        )
        before = said(await export(school.teacher, user_id=learner.user_id))
        reset = progress_pb2.OverrideProgressRequest(
            user_id=learner.user_id,
            lesson_id=course.lesson_ids[0],
            status=progress_pb2.ProgressStatus.PROGRESS_STATUS_NOT_STARTED,
            reason="a mistake",
        )
        await school.teacher.stub(ProgressServiceStub, "learning").OverrideProgress(reset)
        assert said(await export(school.teacher, user_id=learner.user_id)) == before
