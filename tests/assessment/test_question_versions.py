"""Versions of questions, which attempts keep."""

from storyloom.assessment.v1.question_versions_pb2 import GetQuestionVersionRequest, ListQuestionVersionsRequest
from storyloom.assessment.v1.question_versions_pb2_grpc import QuestionVersionServiceStub
from storyloom.assessment.v1.questions_pb2 import DeleteQuestionRequest, Question, UpdateQuestionRequest
from tests.assessment.conftest import Bank
from tests.assessment.test_questions import questions
from tests.stack import Person, School, refused


def versions(person: Person) -> QuestionVersionServiceStub:
    return person.stub(QuestionVersionServiceStub, "assessment")


async def changed(school: School, bank: Bank, count: int) -> Question:
    """A question that was changed so often."""
    question = await bank.choice_question(prompt="Version 1")
    for n in range(2, count + 2):
        change = Question(id=question.id, prompt=f"Version {n}")
        question = await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=change))
    return question


class TestGetQuestionVersion:
    async def test_tells_what_the_question_said(self, school: School, bank: Bank) -> None:
        question = await changed(school, bank, 1)
        request = GetQuestionVersionRequest(question_id=question.id, version=1)
        version = await versions(school.teacher).GetQuestionVersion(request)
        assert (version.question_id, version.version, version.content.prompt) == (question.id, 1, "Version 1")
        assert version.content.choices == question.choices
        assert not version.content.id
        made = version.create_time.ToDatetime()
        assert question.create_time.ToDatetime() <= made <= question.update_time.ToDatetime()

    async def test_is_for_staff_of_the_tenant(self, school: School, bank: Bank) -> None:
        question = await changed(school, bank, 0)
        request = GetQuestionVersionRequest(question_id=question.id, version=1)
        async with refused("PERMISSION_REQUIRED"):
            await versions(school.student).GetQuestionVersion(request)
        async with refused("RESOURCE_NOT_FOUND"):
            await versions(school.outsider_teacher).GetQuestionVersion(request)

    async def test_finds_no_version_that_is_not_there(self, school: School, bank: Bank) -> None:
        question = await changed(school, bank, 0)
        async with refused("RESOURCE_NOT_FOUND"):
            await versions(school.teacher).GetQuestionVersion(
                GetQuestionVersionRequest(question_id=question.id, version=2)
            )
        await questions(school.teacher).DeleteQuestion(DeleteQuestionRequest(id=question.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await versions(school.teacher).GetQuestionVersion(
                GetQuestionVersionRequest(question_id=question.id, version=1)
            )


class TestListQuestionVersions:
    async def test_pages_newest_first(self, school: School, bank: Bank) -> None:
        question = await changed(school, bank, 2)
        request = ListQuestionVersionsRequest(question_id=question.id, page_size=2)
        first = await versions(school.teacher).ListQuestionVersions(request)
        request.page_token = first.next_page_token
        second = await versions(school.teacher).ListQuestionVersions(request)
        shown = [one.content.prompt for one in (*first.question_versions, *second.question_versions)]
        assert shown == ["Version 3", "Version 2", "Version 1"]
        assert not second.next_page_token
        async with refused("RESOURCE_NOT_FOUND"):
            await versions(school.outsider_teacher).ListQuestionVersions(
                ListQuestionVersionsRequest(question_id=question.id)
            )
