"""Quizzes: questions put together, with the rules for taking them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import denied, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, ReadSession, WriteSession
from kit.enums import stored_name
from kit.errors import wrong_state
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.assessment import models, rules
from services.assessment.composing import Composed, asked, check_items, total
from services.assessment.lessons import check_lesson
from services.assessment.queries import quizzes as queries
from services.assessment.question_messages import stored_type, type_to_proto
from storyloom.assessment.v1 import quizzes_pb2
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    CreateQuizRequest,
    DeleteQuizRequest,
    DuplicateQuizRequest,
    GetQuizRequest,
    ListQuizzesRequest,
    ListQuizzesResponse,
    PublishQuizRequest,
    Quiz,
    QuizDraw,
    QuizItem,
    QuizStatus,
    UndeleteQuizRequest,
    UpdateQuizRequest,
)
from storyloom.assessment.v1.review_policies_pb2 import ReviewPolicy, ReviewTime
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub

SETTINGS = (
    *("title", "lesson_id", "time_limit", "attempts_allowed", "pass_mark", "shuffle"),
    *("open_time", "close_time", "review_policy"),
)
DEFAULT_PASS_MARK = 50


class QuizService:
    SERVICE = quizzes_pb2.DESCRIPTOR.services_by_name["QuizService"]

    def __init__(self, db: Database, lessons: LessonServiceStub) -> None:
        self.db = db
        self.lessons: Any = lessons

    async def CreateQuiz(self, request: CreateQuizRequest, context: Any) -> Quiz:
        items = _items(request.quiz)
        await check_lesson(self.lessons, request.quiz.lesson_id, "quiz.lesson_id")
        async with self.db.write() as session:
            quiz = models.Quiz(author_id=current().subject, **_stored(request.quiz, SETTINGS))
            require("create", quiz)
            await insert_quiz(session, quiz, items)
        return quiz_to_proto(quiz, items)

    async def GetQuiz(self, request: GetQuizRequest, context: Any) -> Quiz:
        async with self.db.read() as session:
            row = await queries.get_quiz_row(session, request.id)
            require("read", row, resource="quiz")
            items = await _items_to_show(session, row)
        return quiz_to_proto(row, items)

    async def ListQuizzes(self, request: ListQuizzesRequest, context: Any) -> ListQuizzesResponse:
        page = Page.of(request)
        status = stored_name(QuizStatus, request.status)
        async with self.db.read() as session:
            rows, token = await queries.list_quizzes(session, page, lesson_id=request.lesson_id, status=status)
        return ListQuizzesResponse(quizzes=[quiz_to_proto(row) for row in rows], next_page_token=token)

    async def UpdateQuiz(self, request: UpdateQuizRequest, context: Any) -> Quiz:
        names = fieldmask.changes(request.quiz, request.update_mask, (*SETTINGS, "items"))
        changes = _stored(request.quiz, [name for name in names if name != "items"])
        await check_lesson(self.lessons, request.quiz.lesson_id if "lesson_id" in names else "", "quiz.lesson_id")
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.quiz.id)
            require("update", quiz)
            check_etag(quiz, request.quiz.etag)
            rules.check_update(quiz.status)
            for name, value in changes.items():
                setattr(quiz, name, value)
            rules.check_window(quiz.open_time, quiz.close_time)
            if "items" in names:
                await _change_items(session, quiz, _items(request.quiz))
            # Other items with the same points change the quiz too, and so its etag.
            quiz.updated_at = now()
            audit.record(session, Action.UPDATE, quiz)
            items = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, items)

    async def DeleteQuiz(self, request: DeleteQuizRequest, context: Any) -> Quiz:
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.id)
            require("delete", quiz)
            check_etag(quiz, request.etag)
            quiz.deleted_at = now()
            audit.record(session, Action.DELETE, quiz)
            items = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, items)

    async def UndeleteQuiz(self, request: UndeleteQuizRequest, context: Any) -> Quiz:
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.id, deleted=True)
            require("undelete", quiz)
            check_etag(quiz, request.etag)
            if quiz.deleted_at is None:
                raise wrong_state("The quiz is not deleted.", quiz.status)
            quiz.deleted_at = None
            audit.record(session, Action.UNDELETE, quiz)
            items = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, items)

    async def PublishQuiz(self, request: PublishQuizRequest, context: Any) -> Quiz:
        return await self._move(request, Action.PUBLISH)

    async def ArchiveQuiz(self, request: ArchiveQuizRequest, context: Any) -> Quiz:
        return await self._move(request, Action.ARCHIVE)

    async def DuplicateQuiz(self, request: DuplicateQuizRequest, context: Any) -> Quiz:
        async with self.db.write() as session:
            original = await queries.get_quiz_row(session, request.id)
            require("read", original, resource="quiz")
            items = await _all_items(session, original.id)
            copied = {name: getattr(original, name) for name in SETTINGS} | {"title": request.title or original.title}
            quiz = models.Quiz(author_id=current().subject, **copied)
            require("create", quiz)
            await insert_quiz(session, quiz, items)
        return quiz_to_proto(quiz, items)

    async def _move(self, request: PublishQuizRequest | ArchiveQuizRequest, action: Action) -> Quiz:
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.id)
            require(action, quiz)
            check_etag(quiz, request.etag)
            quiz.status = rules.moved("quiz", action, quiz.status)
            if quiz.status == rules.PUBLISHED:
                rules.check_asks(quiz.question_count)
                # It depends on the bank alone, and not on what is drawn, whether there are enough.
                asked(quiz.id, await queries.list_slots(session, quiz.id, quiz.id), shuffle=False)
            audit.record(session, action, quiz)
            items = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, items)


async def insert_quiz(session: WriteSession, quiz: models.Quiz, items: Sequence[Composed]) -> None:
    """Adds the quiz with its items, and records that."""
    await queries.check_questions(session, items)
    quiz.question_count, quiz.max_score = total(items)
    session.add(quiz)
    audit.record(session, Action.CREATE, quiz)
    await session.flush()
    await queries.replace_quiz_items(session, quiz.id, items)


async def _change_items(session: WriteSession, quiz: models.Quiz, items: Sequence[Composed]) -> None:
    before = await _all_items(session, quiz.id)
    if items != before:
        rules.check_items_change(quiz.status)
        await queries.check_questions(session, items)
        await queries.replace_quiz_items(session, quiz.id, items)
    quiz.question_count, quiz.max_score = total(items)


async def _all_items(session: ReadSession, quiz_id: UUID) -> list[Composed]:
    """The items of the quiz, for those who may read all questions that it names."""
    items = await queries.list_quiz_items(session, quiz_id)
    ids = {one for item in items for one in item.question_ids}
    if await queries.list_readable(session, ids) != ids:
        raise denied("question", "read")
    return items


async def _items_to_show(session: ReadSession, quiz: Any) -> list[Composed]:
    """The items of the quiz, without the questions that the caller may not read."""
    items = await queries.list_quiz_items(session, quiz.id)
    readable = await queries.list_readable(session, {one for item in items for one in item.question_ids})
    shown = [replace(item, question_ids=tuple(one for one in item.question_ids if one in readable)) for item in items]
    # What is drawn from the whole bank names no question, but tells of the bank.
    some = queries.may_read_some()
    return [new for new, old in zip(shown, items, strict=True) if new.question_ids or (some and not old.question_ids)]


def _items(quiz: Quiz) -> list[Composed]:
    items = [_composed(item) for item in quiz.items]
    check_items(items)
    return items


def _composed(item: QuizItem) -> Composed:
    points = Decimal(item.points or "1")
    if not item.HasField("draw"):
        return Composed(points, question_ids=(UUID(item.question_id),))
    draw = item.draw
    kind = stored_type(draw.type) if draw.type else ""
    return Composed(points, tuple(map(UUID, draw.question_ids)), draw.count, tuple(draw.tags), kind, drawn=True)


def _stored(quiz: Quiz, names: Collection[str]) -> dict[str, Any]:
    """These settings as the table has them."""
    convert: dict[str, Any] = {
        "lesson_id": lambda: UUID(quiz.lesson_id) if quiz.lesson_id else None,
        "time_limit": lambda: quiz.time_limit.ToTimedelta() if quiz.HasField("time_limit") else None,
        "pass_mark": lambda: Decimal(quiz.pass_mark or DEFAULT_PASS_MARK),
        "review_policy": lambda: {
            name: stored_name(ReviewTime, time)
            for name in rules.REVIEW
            if (time := getattr(quiz.review_policy, name))
        },
        "open_time": lambda: quiz.open_time.ToDatetime(tzinfo=UTC) if quiz.HasField("open_time") else None,
        "close_time": lambda: quiz.close_time.ToDatetime(tzinfo=UTC) if quiz.HasField("close_time") else None,
    }
    return {name: convert[name]() if name in convert else getattr(quiz, name) for name in names}


def _item_to_proto(item: Composed) -> QuizItem:
    points, ids = rules.plain(item.points), list(map(str, item.question_ids))
    if not item.drawn:
        return QuizItem(question_id=ids[0], points=points)
    draw = QuizDraw(count=item.count, question_ids=ids, tags=item.tags)
    if item.type:
        draw.MergeFrom(QuizDraw(type=type_to_proto(item.type)))
    return QuizItem(points=points, draw=draw)


def quiz_to_proto(quiz: Any, items: Sequence[Composed] = ()) -> Quiz:
    """Of an entity or a row, and its items where they are shown."""
    message = Quiz(
        id=str(quiz.id),
        title=quiz.title,
        lesson_id=str(quiz.lesson_id or ""),
        items=map(_item_to_proto, items),
        attempts_allowed=quiz.attempts_allowed,
        pass_mark=rules.plain(quiz.pass_mark),
        shuffle=quiz.shuffle,
        status=f"QUIZ_STATUS_{quiz.status.upper()}",
        author_id=str(quiz.author_id),
        question_count=quiz.question_count,
        max_score=rules.plain(quiz.max_score),
        etag=str(quiz.revision),
        review_policy=ReviewPolicy(
            **{
                name: f"REVIEW_TIME_{quiz.review_policy.get(name, default).upper()}"
                for name, default in rules.REVIEW.items()
            }
        ),
    )
    set_times(message, quiz)
    for name, value in (("open_time", quiz.open_time), ("close_time", quiz.close_time)):
        if value:
            getattr(message, name).FromDatetime(value)
    if quiz.time_limit:
        message.time_limit.FromTimedelta(quiz.time_limit)
    return message
