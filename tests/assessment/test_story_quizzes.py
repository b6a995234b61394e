"""Quizzes made of a story that teachers wrote and wove."""

from uuid import uuid4

from storyloom.assessment.v1.question_parts_pb2 import QuestionType
from storyloom.assessment.v1.questions_pb2 import GetQuestionRequest
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import PublishQuizRequest, QuizStatus
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.assessment.v1.story_quizzes_pb2 import CreateStoryQuizRequest, StoryQuestionKind, StoryQuiz
from storyloom.assessment.v1.story_quizzes_pb2_grpc import StoryQuizServiceStub
from storyloom.content.v1.stories_pb2 import Story
from storyloom.content.v1.story_versions_pb2 import ChunkKind
from tests.assessment.calls import start, submit
from tests.content.conftest import TEXT, WORDS, Author
from tests.stack import Person, School, refused

CLOZE, CHOICE, TRANSLATION, MATCHING = (
    StoryQuestionKind.Value(f"STORY_QUESTION_KIND_{name}") for name in ("CLOZE", "CHOICE", "TRANSLATION", "MATCHING")
)


async def woven(school: School) -> Story:
    author = Author(school.teacher)
    await author.learn_words(*WORDS)
    story = await author.story(f"Vườn của bà {uuid4().hex[:6]}", TEXT)
    return await author.weave(story.id, noun="1")


async def made(person: Person, story: Story, **fields: object) -> StoryQuiz:
    stub = person.stub(StoryQuizServiceStub, "assessment")
    return await stub.CreateStoryQuiz(CreateStoryQuizRequest(story_id=story.id, **fields))


class TestCreateStoryQuiz:
    async def test_asks_about_the_words_woven_in(self, school: School) -> None:
        story = await woven(school)
        found = await made(school.teacher, story, kinds=[CLOZE])
        assert found.quiz.status == QuizStatus.QUIZ_STATUS_DRAFT
        assert found.quiz.title == story.title
        assert found.story_version_id == story.current_version.id
        shown = {one.text for one in story.current_version.chunks if one.kind == ChunkKind.CHUNK_KIND_CHEM}
        answers = [one.blanks[0].accepted[0].text for one in found.questions]
        assert answers
        assert set(answers) <= shown
        assert [item.question_id for item in found.quiz.items] == [one.id for one in found.questions]
        stub = school.teacher.stub(QuestionServiceStub, "assessment")
        assert await stub.GetQuestion(GetQuestionRequest(id=found.questions[0].id)) == found.questions[0]

    async def test_is_the_same_quiz_for_the_same_seed(self, school: School) -> None:
        story = await woven(school)
        first, again = [await made(school.teacher, story, seed=7, question_count=3) for _ in range(2)]
        assert [one.prompt for one in first.questions] == [one.prompt for one in again.questions]
        assert {one.id for one in first.questions}.isdisjoint(one.id for one in again.questions)

    async def test_has_the_kinds_that_were_asked_for(self, school: School) -> None:
        found = await made(school.teacher, await woven(school), kinds=[TRANSLATION, MATCHING], question_count=4)
        kinds = {one.type for one in found.questions}
        assert kinds <= {QuestionType.QUESTION_TYPE_SHORT_ANSWER, QuestionType.QUESTION_TYPE_MATCHING}

    async def test_can_be_published_and_taken(self, school: School) -> None:
        found = await made(school.teacher, await woven(school), title="Từ mới", question_count=2)
        assert found.quiz.title == "Từ mới"
        stub = school.teacher.stub(QuizServiceStub, "assessment")
        quiz = await stub.PublishQuiz(PublishQuizRequest(id=found.quiz.id))
        attempt = await start(school.student, quiz)
        assert len(attempt.questions) == len(found.questions)
        assert (await submit(school.student, attempt)).result.max_score == found.quiz.max_score

    async def test_refuses_a_story_without_woven_words(self, school: School) -> None:
        story = await Author(school.teacher).story(f"Trống {uuid4().hex[:6]}", "Không có gì cả.")
        async with refused("WRONG_STATE"):
            await made(school.teacher, story)

    async def test_refuses_a_version_of_another_story(self, school: School) -> None:
        story, other = await woven(school), await woven(school)
        async with refused("RESOURCE_NOT_FOUND"):
            await made(school.teacher, story, version_id=other.current_version.id)

    async def test_refuses_stories_that_are_not_there_alike(self, school: School) -> None:
        story = await woven(school)
        for person, unseen in ((school.outsider_admin, story.id), (school.teacher, str(uuid4()))):
            async with refused("RESOURCE_NOT_FOUND"):
                await made(person, Story(id=unseen))

    async def test_is_for_teachers(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await made(school.student, await woven(school))
