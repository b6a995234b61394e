"""The bank of questions."""

from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.assessment.v1.question_parts_pb2 import AcceptedText, Blank, Choice, QuestionType
from storyloom.assessment.v1.questions_pb2 import (
    BatchGetQuestionsRequest,
    CreateQuestionRequest,
    DeleteQuestionRequest,
    GetQuestionRequest,
    ListQuestionsRequest,
    ListQuestionUsesRequest,
    PurgeQuestionRequest,
    Question,
    QuestionUse,
    UndeleteQuestionRequest,
    UpdateQuestionRequest,
)
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import ArchiveQuizRequest
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.assessment.calls import get, start
from tests.assessment.conftest import Bank, owner_executes
from tests.stack import Person, School, refused


def questions(person: Person) -> QuestionServiceStub:
    return person.stub(QuestionServiceStub, "assessment")


def accepting(*texts: str) -> Blank:
    return Blank(accepted=[AcceptedText(text=text) for text in texts])


class TestCreateQuestion:
    async def test_keeps_every_field_of_a_choice_question(self, school: School) -> None:
        wanted = Question(
            type=QuestionType.QUESTION_TYPE_MULTIPLE_CHOICE,
            prompt="Món nào?",
            choices=[
                Choice(text="khoai lang", correct=True, feedback="Đúng."),
                Choice(text="cà phê"),
                Choice(text="bắp cải", correct=True),
            ],
            multiple=True,
            explanation="Xem đoạn hai.",
        )
        made = await questions(school.teacher).CreateQuestion(CreateQuestionRequest(question=wanted))
        assert len({choice.id for choice in made.choices} - {""}) == 3
        assert (made.version, made.etag, made.author_id) == (1, "1", school.teacher.user_id)
        for choice in made.choices:
            choice.id = ""
        for field in ("type", "prompt", "choices", "multiple", "explanation"):
            assert getattr(made, field) == getattr(wanted, field)

    async def test_keeps_every_field_of_a_blank_question(self, school: School, bank: Bank) -> None:
        made = await bank.blank_question(["river", "the river"], ["sea"], case_sensitive=True, ignore_accents=True)
        got = await questions(school.teacher).GetQuestion(GetQuestionRequest(id=made.id))
        assert got == made
        assert [[one.text for one in blank.accepted] for blank in got.blanks] == [["river", "the river"], ["sea"]]
        assert got.case_sensitive
        assert got.ignore_accents

    @pytest.mark.parametrize(
        ("question", "field"),
        [
            (Question(prompt="What?"), "question"),
            (Question(type="QUESTION_TYPE_FILL_BLANK"), "question"),
            (Question(type="QUESTION_TYPE_FILL_BLANK", prompt="___"), "question.blanks"),
            (
                Question(type="QUESTION_TYPE_FILL_BLANK", prompt="___", blanks=[accepting("\u2003")]),
                "question.blanks[0].accepted[0].text",
            ),
            (
                Question(type="QUESTION_TYPE_MULTIPLE_CHOICE", prompt="?", choices=[Choice(text="a", correct=True)]),
                "question.choices",
            ),
            (
                Question(
                    type="QUESTION_TYPE_MULTIPLE_CHOICE",
                    prompt="?",
                    choices=[
                        Choice(text="a", correct=True, id="01890a5d-ac96-774b-bcce-b302099a8057"),
                        Choice(text="b"),
                    ],
                ),
                "question.choices[0].id",
            ),
            (Question(type=7, prompt="What?"), "question.type"),
        ],
    )
    async def test_names_the_field_that_is_wrong(self, school: School, question: Question, field: str) -> None:
        async with refused("INVALID_FIELD", field=field, code=grpc.StatusCode.INVALID_ARGUMENT):
            await questions(school.teacher).CreateQuestion(CreateQuestionRequest(question=question))

    async def test_is_for_staff(self, school: School) -> None:
        question = Question(type="QUESTION_TYPE_FILL_BLANK", prompt="___", blanks=[accepting("a")])
        async with refused("PERMISSION_REQUIRED"):
            await questions(school.student).CreateQuestion(CreateQuestionRequest(question=question))


class TestGetQuestion:
    async def test_is_for_staff_of_the_tenant(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        assert await questions(school.teacher2).GetQuestion(GetQuestionRequest(id=question.id)) == question
        async with refused("PERMISSION_REQUIRED"):
            await questions(school.student).GetQuestion(GetQuestionRequest(id=question.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await questions(school.outsider_teacher).GetQuestion(GetQuestionRequest(id=question.id))


async def found(person: Person, **fields: Any) -> list[str]:
    """The prompts of the questions that a list has."""
    return [one.prompt for one in (await questions(person).ListQuestions(ListQuestionsRequest(**fields))).questions]


class TestListQuestions:
    async def test_filters_by_type_and_words_whatever_case_and_accents(self, school: School, bank: Bank) -> None:
        await bank.choice_question(prompt="Đâu là 100% đúng?")
        await bank.blank_question(["a"], prompt="Đâu là ___ 100?")
        await bank.choice_question(prompt="Không phải đâu 10")
        wanted = {"type": "QUESTION_TYPE_MULTIPLE_CHOICE"}
        assert await found(school.teacher, query="100% DAU", **wanted) == ["Đâu là 100% đúng?"]
        assert await found(school.teacher, query="đâu 10", **wanted) == ["Không phải đâu 10", "Đâu là 100% đúng?"]
        assert await found(school.teacher, query="âu 100", **wanted) == []
        assert await found(school.teacher, query="zzz") == []

    async def test_takes_what_means_something_to_a_database_as_it_is(self, school: School, bank: Bank) -> None:
        await bank.choice_question(prompt="Is 7_7 in \\here?", tags=["back\\slash"])
        assert await found(school.teacher, query="7%7") == await found(school.teacher, query="7_7")
        assert await found(school.teacher, query="%") == await found(school.teacher)
        assert await found(school.teacher, query="slash \\") == ["Is 7_7 in \\here?"]

    async def test_finds_by_tags(self, school: School, bank: Bank) -> None:
        await bank.choice_question(prompt="Tagged one", tags=["Động  từ", "B1"])
        await bank.choice_question(prompt="Tagged two", tags=["b1"])
        assert await found(school.teacher, tags=["b1"]) == ["Tagged two", "Tagged one"]
        assert await found(school.teacher, tags=["B1", "động từ"]) == ["Tagged one"]
        assert await found(school.teacher, tags=["dong tu"]) == []
        assert await found(school.teacher, query="dong tu b1") == ["Tagged one"]

    async def test_finds_what_one_author_made(self, school: School, bank: Bank) -> None:
        await bank.choice_question(prompt="Authored by one")
        await Bank(school.teacher2).choice_question(prompt="Authored by the other")
        assert await found(school.teacher, author_id=school.teacher2.user_id, query="authored") == [
            "Authored by the other"
        ]

    async def test_finds_the_same_however_many_there_are(
        self, school: School, bank: Bank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for n in range(3):
            await bank.choice_question(prompt=f"Frequent {n} một", tags=["freq"])
        wanted = [await found(school.teacher, query="frequent mot"), await found(school.teacher, tags=["freq"])]
        monkeypatch.setattr("services.assessment.queries.questions.CANDIDATES", 1)
        again = [await found(school.teacher, query="frequent mot"), await found(school.teacher, tags=["freq"])]
        assert wanted == again == [[f"Frequent {n} một" for n in (2, 1, 0)]] * 2

    async def test_finds_nothing_of_another_tenant(self, school: School, bank: Bank) -> None:
        await bank.choice_question(prompt="Ours alone", tags=["ours-alone"])
        assert await found(school.outsider_teacher, query="ours alone") == []
        assert await found(school.outsider_teacher, tags=["ours-alone"]) == []

    async def test_finds_no_deleted_ones(self, school: School, bank: Bank) -> None:
        gone = await bank.choice_question(prompt="Soon vanished")
        await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=gone.id))
        assert await found(school.teacher, query="vanished") == []

    async def test_pages_newest_first(self, school: School, bank: Bank) -> None:
        made = [(await bank.choice_question(prompt=f"Paged {n}")).id for n in range(3)]
        request = ListQuestionsRequest(query="paged", page_size=2)
        first = await questions(school.teacher).ListQuestions(request)
        request.page_token = first.next_page_token
        second = await questions(school.teacher).ListQuestions(request)
        assert [one.id for one in (*first.questions, *second.questions)] == made[::-1]
        assert not second.next_page_token

    async def test_leaves_out_the_deleted_and_other_tenants(self, school: School, bank: Bank) -> None:
        gone = await bank.choice_question(prompt="Gone")
        await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=gone.id))
        await bank.choice_question(prompt="Gone not")
        listed = await questions(school.teacher).ListQuestions(ListQuestionsRequest(query="Gone"))
        assert [one.prompt for one in listed.questions] == ["Gone not"]
        theirs = await questions(school.outsider_teacher).ListQuestions(ListQuestionsRequest(query="Gone"))
        assert not theirs.questions


class TestUpdateQuestion:
    async def test_makes_a_version_and_leaves_the_one_before(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question(prompt="First")
        question.prompt = "Second"
        updated = await questions(school.teacher2).UpdateQuestion(UpdateQuestionRequest(question=question))
        assert (updated.version, updated.etag, updated.prompt) == (2, "2", "Second")
        assert updated.choices == question.choices
        rows = await owner_executes(
            school,
            "SELECT version, body->>'prompt' FROM assessment.question_versions WHERE question_id = $1 ORDER BY 1",
            question.id,
        )
        assert [tuple(row) for row in rows] == [(1, "First"), (2, "Second")]

    async def test_keeps_choices_by_id_and_adds_new_ones(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        kept = question.choices[0].id
        del question.choices[1:]
        question.choices.add(text="another")
        updated = await questions(school.teacher).UpdateQuestion(
            UpdateQuestionRequest(question=question, update_mask=FieldMask(paths=["choices"]))
        )
        assert [choice.text for choice in updated.choices] == ["yes", "another"]
        assert updated.choices[0].id == kept
        assert updated.choices[1].id not in ("", kept)

    async def test_refuses_what_no_longer_fits_the_type(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        for choice in question.choices:
            choice.correct = False
        async with refused("INVALID_FIELD", field="question.choices"):
            await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=question))

    async def test_refuses_fields_that_stay_and_stale_etags(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        mask = FieldMask(paths=["type"])
        async with refused("INVALID_UPDATE_MASK", field="update_mask"):
            await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=question, update_mask=mask))
        await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=question))
        async with refused("STALE_ETAG", code=grpc.StatusCode.ABORTED):
            await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=question))


    async def test_changes_tags_without_a_new_version(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question(tags=["old"])
        mask = FieldMask(paths=["tags"])
        changed = Question(id=question.id, tags=["New  Tag", "ＮＥＷ"])
        updated = await questions(school.teacher).UpdateQuestion(
            UpdateQuestionRequest(question=changed, update_mask=mask)
        )
        assert (list(updated.tags), updated.version) == (["new tag", "ｎｅｗ"], 1)
        assert updated.etag != question.etag

    @pytest.mark.parametrize(("tags", "field"), [(["a", "A "], "question.tags[1]"), (["\u2003"], "question.tags[0]")])
    async def test_refuses_tags_that_are_one_or_none(
        self, school: School, bank: Bank, tags: list[str], field: str
    ) -> None:
        async with refused("INVALID_FIELD", field=field):
            await bank.choice_question(tags=tags)


class TestBatchGetQuestions:
    async def test_keeps_the_order_and_leaves_out_what_is_not_there(self, school: School, bank: Bank) -> None:
        one, two, gone = [await bank.choice_question() for _ in range(3)]
        await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=gone.id))
        wanted = BatchGetQuestionsRequest(ids=[two.id, gone.id, str(uuid4()), one.id])
        assert list((await questions(school.teacher).BatchGetQuestions(wanted)).questions) == [two, one]
        assert not (await questions(school.outsider_teacher).BatchGetQuestions(wanted)).questions
        async with refused("PERMISSION_REQUIRED"):
            await questions(school.student).BatchGetQuestions(wanted)


class TestListQuestionUses:
    async def test_tells_the_quizzes_that_have_it(self, school: School, bank: Bank) -> None:
        question, other = await bank.choice_question(), await bank.choice_question()
        first = await bank.quiz((question, "2.5"), other)
        second = await bank.quiz(question, publish=False, title="Second")
        await bank.quiz(other)
        request = ListQuestionUsesRequest(question_id=question.id, page_size=1)
        newest = await questions(school.teacher).ListQuestionUses(request)
        request.page_token = newest.next_page_token
        oldest = await questions(school.teacher).ListQuestionUses(request)
        assert [*newest.question_uses, *oldest.question_uses] == [
            QuestionUse(quiz_id=second.id, title="Second", status="QUIZ_STATUS_DRAFT", points="1"),
            QuestionUse(quiz_id=first.id, title="Quiz", status="QUIZ_STATUS_PUBLISHED", points="2.5"),
        ]
        assert not oldest.next_page_token
        async with refused("RESOURCE_NOT_FOUND"):
            await questions(school.outsider_teacher).ListQuestionUses(ListQuestionUsesRequest(question_id=question.id))


class TestPurgeQuestion:
    async def purge(self, school: School, question: Question) -> None:
        await questions(school.admin).PurgeQuestion(PurgeQuestionRequest(id=question.id))

    async def test_removes_a_deleted_question_with_its_versions(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=question))
        async with refused("WRONG_STATE"):
            await self.purge(school, question)
        await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=question.id))
        async with refused("PERMISSION_REQUIRED"):
            await questions(school.teacher).PurgeQuestion(PurgeQuestionRequest(id=question.id))
        await self.purge(school, question)
        async with refused("RESOURCE_NOT_FOUND"):
            await questions(school.teacher).UndeleteQuestion(UndeleteQuestionRequest(id=question.id))
        left = await owner_executes(
            school, "SELECT 1 FROM assessment.question_versions WHERE question_id = $1", question.id
        )
        assert not left

    async def test_keeps_what_an_archived_quiz_or_an_attempt_has(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question)
        attempt = await start(school.student, quiz)
        await school.teacher.stub(QuizServiceStub, "assessment").ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=question.id))
        async with refused("WRONG_STATE"):
            await self.purge(school, question)
        # As it is with what was drawn from the bank.
        await owner_executes(school, "DELETE FROM assessment.quiz_questions WHERE question_id = $1", question.id)
        async with refused("WRONG_STATE"):
            await self.purge(school, question)
        assert (await get(school.student, attempt)).questions[0].question_id == question.id


class TestDeleteQuestion:
    async def test_waits_for_the_quizzes_that_have_it(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question)
        async with refused("WRONG_STATE"):
            await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=question.id))
        await school.teacher.stub(QuizServiceStub, "assessment").ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        deleted = await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=question.id))
        assert deleted.HasField("delete_time")
        async with refused("RESOURCE_NOT_FOUND"):
            await questions(school.teacher).GetQuestion(GetQuestionRequest(id=question.id))

    async def test_refuses_a_stale_etag(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        async with refused("STALE_ETAG"):
            await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=question.id, etag="7"))


class TestUndeleteQuestion:
    async def test_takes_it_back(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=question.id))
        back = await questions(school.teacher).UndeleteQuestion(UndeleteQuestionRequest(id=question.id))
        assert not back.HasField("delete_time")
        assert await questions(school.teacher).GetQuestion(GetQuestionRequest(id=question.id)) == back

    async def test_refuses_one_that_is_not_deleted(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        async with refused("WRONG_STATE"):
            await questions(school.teacher).UndeleteQuestion(UndeleteQuestionRequest(id=question.id))


class TestVersions:
    async def test_cannot_be_changed_by_the_service_itself(self, school: School, bank: Bank) -> None:
        await bank.choice_question()
        connection = await asyncpg.connect(school.stack.cluster.service_url("assessment"))
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL app.tenant_id = '{school.teacher.tenant_id}'")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("UPDATE assessment.question_versions SET body = '{}'")
        finally:
            await connection.close()
