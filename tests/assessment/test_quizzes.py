"""Quizzes and their life."""

import asyncio
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from protovalidate import Validator

from storyloom.assessment.v1.attempts_pb2 import SaveResponsesRequest, SubmitAttemptRequest
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    CreateQuizRequest,
    DeleteQuizRequest,
    GetQuizRequest,
    ListQuizzesRequest,
    PublishQuizRequest,
    Quiz,
    QuizItem,
    QuizStatus,
    UndeleteQuizRequest,
    UpdateQuizRequest,
)
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.content.v1.courses_pb2 import Course, CreateCourseRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.lessons_pb2 import CreateLessonRequest, Lesson
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.units_pb2 import CreateUnitRequest, Unit
from storyloom.content.v1.units_pb2_grpc import UnitServiceStub
from tests.assessment.conftest import Bank
from tests.stack import Person, School, refused


def quizzes(person: Person) -> QuizServiceStub:
    return person.stub(QuizServiceStub, "assessment")


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


@pytest.fixture
async def lesson(school: School) -> Lesson:
    teacher = school.teacher
    course = await teacher.stub(CourseServiceStub, "content").CreateCourse(
        CreateCourseRequest(course=Course(title="Course"))
    )
    unit = await teacher.stub(UnitServiceStub, "content").CreateUnit(
        CreateUnitRequest(unit=Unit(course_id=course.id, title="Unit"))
    )
    return await teacher.stub(LessonServiceStub, "content").CreateLesson(
        CreateLessonRequest(lesson=Lesson(unit_id=unit.id, title="Lesson"))
    )


class TestCreateQuiz:
    async def test_is_a_draft_with_exact_points(self, school: School, bank: Bank) -> None:
        one, two = await bank.choice_question(), await bank.blank_question(["a"])
        quiz = await bank.quiz(
            (one, "0.1"), (two, "0.200000"), publish=False, pass_mark="66.50", shuffle=True, attempts_allowed=3
        )
        assert [(item.question_id, item.points) for item in quiz.items] == [(one.id, "0.1"), (two.id, "0.2")]
        assert (quiz.max_score, quiz.question_count, quiz.pass_mark) == ("0.3", 2, "66.5")
        assert (quiz.status, quiz.author_id) == (QuizStatus.QUIZ_STATUS_DRAFT, school.teacher.user_id)
        assert await quizzes(school.teacher).GetQuiz(GetQuizRequest(id=quiz.id)) == quiz

    async def test_has_defaults(self, bank: Bank) -> None:
        quiz = await bank.quiz(publish=False)
        assert (quiz.pass_mark, quiz.max_score, quiz.attempts_allowed, quiz.shuffle) == ("50", "0", 0, False)
        assert not any(quiz.HasField(name) for name in ("time_limit", "open_time", "close_time"))

    async def test_refuses_thousands_of_items_without_comparing_them(self, school: School) -> None:
        items = [QuizItem(question_id=str(uuid4())) for _ in range(5_000)]
        started = process_time()
        async with refused("INVALID_FIELD", field="quiz.items"):
            await quizzes(school.teacher).CreateQuiz(CreateQuizRequest(quiz=Quiz(title="Quiz", items=items)))
        assert process_time() - started < 2

    @pytest.mark.parametrize("message", [Quiz, SaveResponsesRequest, SubmitAttemptRequest])
    def test_rules_for_lists_take_no_longer_than_the_lists_are(self, message: Any) -> None:
        name = "items" if message is Quiz else "responses"
        sent = message(**{name: [{"question_id": str(uuid4())} for _ in range(10_000)]})
        started = process_time()
        assert Validator().collect_violations(sent)
        assert process_time() - started < 1

    async def test_keeps_its_lesson(self, school: School, bank: Bank, lesson: Lesson) -> None:
        quiz = await bank.quiz(publish=False, lesson_id=lesson.id)
        found = await quizzes(school.teacher).ListQuizzes(ListQuizzesRequest(lesson_id=lesson.id))
        assert [one.id for one in found.quizzes] == [quiz.id]

    async def test_refuses_a_lesson_that_does_not_exist(self, bank: Bank) -> None:
        async with refused("REFERENCE_NOT_FOUND", code=grpc.StatusCode.FAILED_PRECONDITION) as refusal:
            await bank.quiz(publish=False, lesson_id=str(uuid4()))
        assert refusal.metadata["field"] == "quiz.lesson_id"

    async def test_refuses_the_lesson_of_another_tenant_as_if_there_were_none(
        self, school: School, lesson: Lesson
    ) -> None:
        async with refused("REFERENCE_NOT_FOUND"):
            await Bank(school.outsider_teacher).quiz(publish=False, lesson_id=lesson.id)

    async def test_refuses_questions_that_do_not_exist_or_are_of_another_tenant(
        self, school: School, bank: Bank
    ) -> None:
        question = await bank.choice_question()
        async with refused("REFERENCE_NOT_FOUND"):
            await Bank(school.outsider_teacher).quiz(question, publish=False)
        question.id = str(uuid4())
        async with refused("REFERENCE_NOT_FOUND"):
            await bank.quiz(question, publish=False)

    async def test_refuses_a_question_twice_however_its_id_is_written(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        items = [QuizItem(question_id=question.id), QuizItem(question_id=question.id.upper())]
        async with refused("INVALID_FIELD", field="quiz.items"):
            await quizzes(school.teacher).CreateQuiz(CreateQuizRequest(quiz=Quiz(title="Twice", items=items)))

    async def test_takes_at_most_200_questions(self, school: School) -> None:
        items = [QuizItem(question_id=str(uuid4())) for _ in range(201)]
        async with refused("INVALID_FIELD", field="quiz.items"):
            await quizzes(school.teacher).CreateQuiz(CreateQuizRequest(quiz=Quiz(title="Long", items=items)))

    @pytest.mark.parametrize(
        ("quiz", "field"),
        [
            (Quiz(), "quiz"),
            (Quiz(title=" "), "quiz.title"),
            (Quiz(title="a\0b"), "quiz.title"),
            (Quiz(title="Quiz", pass_mark="100.1"), "quiz.pass_mark"),
            (Quiz(title="Quiz", pass_mark="NaN"), "quiz.pass_mark"),
            (Quiz(title="Quiz", attempts_allowed=-1), "quiz.attempts_allowed"),
            (Quiz(title="Quiz", items=[QuizItem(question_id=str(uuid4()), points="1e9")]), "quiz.items[0].points"),
            (Quiz(title="Quiz", items=[QuizItem(question_id="x")]), "quiz.items[0].question_id"),
        ],
    )
    async def test_names_the_field_that_is_wrong(self, school: School, quiz: Quiz, field: str) -> None:
        async with refused("INVALID_FIELD", field=field):
            await quizzes(school.teacher).CreateQuiz(CreateQuizRequest(quiz=quiz))

    async def test_is_for_staff(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await quizzes(school.student).CreateQuiz(CreateQuizRequest(quiz=Quiz(title="Mine")))


class TestGetQuiz:
    async def test_shows_published_ones_to_everyone_without_items(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        seen = await quizzes(school.student).GetQuiz(GetQuizRequest(id=quiz.id))
        assert not seen.items
        assert (seen.question_count, seen.max_score) == (1, "1")

    async def test_hides_drafts_from_learners(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(publish=False)
        async with refused("PERMISSION_REQUIRED"):
            await quizzes(school.student).GetQuiz(GetQuizRequest(id=quiz.id))

    async def test_is_not_found_by_another_tenant(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        async with refused("RESOURCE_NOT_FOUND"):
            await quizzes(school.outsider).GetQuiz(GetQuizRequest(id=quiz.id))


class TestListQuizzes:
    async def test_shows_learners_the_published_only(self, school: School, bank: Bank, lesson: Lesson) -> None:
        question = await bank.choice_question()
        draft = await bank.quiz(publish=False, lesson_id=lesson.id)
        published = await bank.quiz(question, lesson_id=lesson.id)
        request = ListQuizzesRequest(lesson_id=lesson.id)
        seen = await quizzes(school.student).ListQuizzes(request)
        assert [one.id for one in seen.quizzes] == [published.id]
        assert not seen.quizzes[0].items
        assert [one.id for one in (await quizzes(school.teacher).ListQuizzes(request)).quizzes] == [
            published.id,
            draft.id,
        ]
        request.status = QuizStatus.QUIZ_STATUS_DRAFT
        assert [one.id for one in (await quizzes(school.teacher).ListQuizzes(request)).quizzes] == [draft.id]

    async def test_pages(self, school: School, bank: Bank, lesson: Lesson) -> None:
        made = [(await bank.quiz(publish=False, lesson_id=lesson.id)).id for _ in range(3)]
        request = ListQuizzesRequest(lesson_id=lesson.id, page_size=2)
        first = await quizzes(school.teacher).ListQuizzes(request)
        request.page_token = first.next_page_token
        second = await quizzes(school.teacher).ListQuizzes(request)
        assert [one.id for one in (*first.quizzes, *second.quizzes)] == made[::-1]


class TestUpdateQuiz:
    async def test_writes_what_the_mask_names(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), publish=False, shuffle=True, pass_mark="10")
        quiz.time_limit.FromTimedelta(timedelta(minutes=5))
        quiz.title, quiz.shuffle = "Other", False
        updated = await quizzes(school.teacher2).UpdateQuiz(
            UpdateQuizRequest(quiz=quiz, update_mask=mask("shuffle", "time_limit"))
        )
        assert (updated.title, updated.shuffle, updated.time_limit.seconds, updated.etag) == ("Quiz", False, 300, "2")
        quiz.ClearField("time_limit")
        quiz.etag = ""
        cleared = await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=quiz, update_mask=mask("time_limit")))
        assert not cleared.HasField("time_limit")
        assert cleared.items == updated.items

    async def test_replaces_the_items_of_a_draft(self, school: School, bank: Bank) -> None:
        one, two, three = [await bank.choice_question() for _ in range(3)]
        quiz = await bank.quiz((one, "1"), (two, "2"), publish=False)
        items = [QuizItem(question_id=three.id, points="0.5"), QuizItem(question_id=one.id)]
        updated = await quizzes(school.teacher).UpdateQuiz(
            UpdateQuizRequest(quiz=Quiz(id=quiz.id, items=items), update_mask=mask("items"))
        )
        assert [(item.question_id, item.points) for item in updated.items] == [(three.id, "0.5"), (one.id, "1")]
        assert (updated.max_score, updated.question_count) == ("1.5", 2)
        assert updated.etag != quiz.etag

    async def test_changes_the_etag_when_only_items_change(self, school: School, bank: Bank) -> None:
        one, two = await bank.choice_question(), await bank.choice_question()
        quiz = await bank.quiz(one, publish=False)
        quiz.items[0].question_id = two.id
        updated = await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=quiz, update_mask=mask("items")))
        assert (updated.etag, updated.max_score) == ("2", quiz.max_score)

    async def test_leaves_the_items_of_a_published_quiz(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        quiz.title = "Same items are no change"
        updated = await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=quiz))
        assert updated.title == quiz.title
        quiz.items[0].points, quiz.etag = "2", ""
        async with refused("WRONG_STATE") as refusal:
            await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=quiz))
        assert refusal.metadata["state"] == "published"

    async def test_refuses_an_archived_quiz(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        await quizzes(school.teacher).ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        async with refused("WRONG_STATE"):
            await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=Quiz(id=quiz.id, title="Late")))

    async def test_refuses_a_window_that_would_end_before_it_begins(self, school: School, bank: Bank) -> None:
        noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
        quiz = await bank.quiz(publish=False, open_time=noon)
        change = Quiz(id=quiz.id, close_time=noon - timedelta(hours=1))
        async with refused("INVALID_FIELD", field="quiz.close_time"):
            await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=change))

    async def test_refuses_a_stale_etag_and_fields_that_are_not_writable(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(publish=False)
        async with refused("INVALID_UPDATE_MASK"):
            await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=quiz, update_mask=mask("status")))
        async with refused("STALE_ETAG"):
            await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=Quiz(id=quiz.id, title="Stale", etag="99")))

    async def test_is_won_by_one_of_two_at_once(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(publish=False)
        both = await asyncio.gather(
            *(quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=quiz)) for _ in range(2)),
            return_exceptions=True,
        )
        assert sorted(isinstance(one, grpc.aio.AioRpcError) for one in both) == [False, True]


class TestPublishQuiz:
    async def test_needs_a_draft_with_items(self, school: School, bank: Bank) -> None:
        empty = await bank.quiz(publish=False)
        async with refused("WRONG_STATE"):
            await quizzes(school.teacher).PublishQuiz(PublishQuizRequest(id=empty.id))
        quiz = await bank.quiz(await bank.choice_question())
        assert quiz.status == QuizStatus.QUIZ_STATUS_PUBLISHED
        async with refused("WRONG_STATE"):
            await quizzes(school.teacher).PublishQuiz(PublishQuizRequest(id=quiz.id))

    async def test_is_for_staff(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), publish=False)
        async with refused("PERMISSION_REQUIRED"):
            await quizzes(school.student).PublishQuiz(PublishQuizRequest(id=quiz.id))


class TestArchiveQuiz:
    async def test_needs_a_published_quiz(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), publish=False)
        async with refused("WRONG_STATE"):
            await quizzes(school.teacher).ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        await quizzes(school.teacher).PublishQuiz(PublishQuizRequest(id=quiz.id))
        async with refused("STALE_ETAG"):
            await quizzes(school.teacher).ArchiveQuiz(ArchiveQuizRequest(id=quiz.id, etag="1"))
        archived = await quizzes(school.teacher).ArchiveQuiz(ArchiveQuizRequest(id=quiz.id, etag="2"))
        assert archived.status == QuizStatus.QUIZ_STATUS_ARCHIVED


class TestDeleteQuiz:
    async def test_hides_it_until_it_is_taken_back(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        deleted = await quizzes(school.teacher).DeleteQuiz(DeleteQuizRequest(id=quiz.id))
        assert deleted.HasField("delete_time")
        for person in (school.student, school.teacher):
            async with refused("RESOURCE_NOT_FOUND"):
                await quizzes(person).GetQuiz(GetQuizRequest(id=quiz.id))
        back = await quizzes(school.teacher).UndeleteQuiz(UndeleteQuizRequest(id=quiz.id))
        assert (back.status, list(back.items)) == (quiz.status, list(quiz.items))
        assert (await quizzes(school.student).GetQuiz(GetQuizRequest(id=quiz.id))).id == quiz.id


class TestUndeleteQuiz:
    async def test_refuses_one_that_is_not_deleted(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(publish=False)
        async with refused("WRONG_STATE"):
            await quizzes(school.teacher).UndeleteQuiz(UndeleteQuizRequest(id=quiz.id))
