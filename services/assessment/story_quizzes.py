"""Quizzes made of stories: a draft for teachers, with questions about the words that are woven in."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from kit import audit
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database
from kit.enums import stored_name
from kit.errors import NotFound, wrong_state
from kit.turns import Worker
from services.assessment import models
from services.assessment.bodies import LONGEST_TAG, check_body, check_tags
from services.assessment.composing import Composed
from services.assessment.queries.question_files import insert_questions
from services.assessment.question_messages import question_to_proto
from services.assessment.quizzes import insert_quiz, quiz_to_proto
from services.assessment.story_questions import Kind, Made, Piece, Word, make_questions
from storyloom.assessment.v1 import story_quizzes_pb2
from storyloom.assessment.v1.story_quizzes_pb2 import CreateStoryQuizRequest, StoryQuestionKind, StoryQuiz
from storyloom.content.v1.stories_pb2 import GetStoryRequest
from storyloom.content.v1.story_versions_pb2 import FULL, ChunkKind, GetStoryVersionRequest, StoryChunk
from storyloom.content.v1.vocabularies_pb2 import BatchGetVocabulariesRequest

DEFAULT_KINDS = (Kind.CLOZE, Kind.CHOICE, Kind.TRANSLATION)
DEFAULT_COUNT = 10
WORDS_AT_ONCE = 500
MAKER = Worker("story-questions")


class StoryQuizService:
    SERVICE = story_quizzes_pb2.DESCRIPTOR.services_by_name["StoryQuizService"]

    def __init__(self, db: Database, *, stories: Any, versions: Any, vocabularies: Any) -> None:
        self.db, self._stories, self._versions, self._vocabularies = db, stories, versions, vocabularies

    async def CreateStoryQuiz(self, request: CreateStoryQuizRequest, context: Any) -> StoryQuiz:
        story, version = await self._read(request)
        words = await self._words(version.chunks)
        made = await MAKER.do(_make, request, story.language, version.chunks, words)
        if not made:
            raise wrong_state("No question of these kinds can be made of the words woven in.", "no_words")
        quiz = models.Quiz(title=request.title.strip() or story.title, author_id=current().subject)
        quiz.lesson_id = UUID(story.lesson_id) if story.lesson_id else None
        questions = [_question(one, story.title) for one in made]
        for new in (quiz, *questions):
            require("create", new)
        pairs = list(zip(questions, made, strict=True))
        items = [Composed(points=_worth(one), question_ids=(question.id,)) for question, one in pairs]
        async with self.db.write() as session:
            for question in questions:
                audit.record(session, Action.CREATE, question)
            await insert_questions(session, questions, [_version(*pair) for pair in pairs])
            await insert_quiz(session, quiz, items)
        shown = [question_to_proto(question, one.body) for question, one in pairs]
        return StoryQuiz(quiz=quiz_to_proto(quiz, items), questions=shown, story_version_id=version.id)

    async def _read(self, request: CreateStoryQuizRequest) -> tuple[Any, Any]:
        """The story and one of its versions, as the caller may see them."""
        story = await self._stories.GetStory(GetStoryRequest(id=request.story_id, view=FULL))
        if request.version_id in {"", story.current_version.id}:
            return story, story.current_version
        version = await self._versions.GetStoryVersion(GetStoryVersionRequest(id=request.version_id, view=FULL))
        if version.story_id != story.id:
            raise NotFound("story_version")
        return story, version

    async def _words(self, chunks: Sequence[StoryChunk]) -> dict[str, Word]:
        """The words woven in that the caller may see; of some that are deleted since, nothing can be asked."""
        ids = list(dict.fromkeys(one.vocabulary_id for one in chunks if one.kind == ChunkKind.CHUNK_KIND_CHEM))
        words: dict[str, Word] = {}
        for at in range(0, len(ids), WORDS_AT_ONCE):
            asked = BatchGetVocabulariesRequest(ids=ids[at : at + WORDS_AT_ONCE])
            found = (await self._vocabularies.BatchGetVocabularies(asked)).vocabularies
            words |= {
                one.id: Word(one.id, one.term, one.translation, one.part_of_speech, one.explanation) for one in found
            }
        return words


def _make(
    request: CreateStoryQuizRequest, language: str, chunks: Sequence[StoryChunk], words: Mapping[str, Word]
) -> list[Made]:
    return make_questions(
        [
            Piece(one.text, one.source, one.vocabulary_id if one.kind == ChunkKind.CHUNK_KIND_CHEM else "")
            for one in chunks
            if one.kind != ChunkKind.CHUNK_KIND_EXPLAIN
        ],
        words,
        kinds=[_kind(one) for one in request.kinds] or DEFAULT_KINDS,
        most=request.question_count or DEFAULT_COUNT,
        seed=request.seed,
        language=language,
        new_id=uuid4,
    )


def _kind(value: Any) -> Kind:
    return Kind(stored_name(StoryQuestionKind, value))


def _worth(one: Made) -> Decimal:
    """A point for each word that is asked about."""
    return Decimal(len(one.words))


def _question(one: Made, title: str) -> models.Question:
    """The question, to be found by the title of the story."""
    check_body(one.body)
    tags, kind, prompt = check_tags([title[:LONGEST_TAG]]), one.body["type"], one.body["prompt"]
    return models.Question(type=kind, prompt=prompt, tags=tags, author_id=current().subject, facility=None)


def _version(question: models.Question, one: Made) -> models.QuestionVersion:
    return models.QuestionVersion(question_id=question.id, version=1, body=one.body)
