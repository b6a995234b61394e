"""Analyses: how well a quiz and its questions measure, by what attempts earned."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from kit.access import require
from kit.auth import current
from kit.db import Database, ReadSession
from kit.ids import NIL
from kit.limiter import Limiter
from kit.models import now
from kit.sheets import record
from kit.turns import in_turn
from services.assessment.analysis import Figures, ItemFigures, Sheet, analyse
from services.assessment.bodies import MULTIPLE_CHOICE, Body
from services.assessment.queries import analyses as queries
from services.assessment.queries import quizzes
from services.assessment.queries.regrades import list_changes
from services.assessment.queries.versions import REMEMBERED, Version
from services.assessment.regrading import Change, in_force, said
from services.assessment.rules import plain
from storyloom.assessment.v1 import analyses_pb2
from storyloom.assessment.v1.analyses_pb2 import (
    Analysis,
    AnalyzedAttempts,
    ChoiceAnalysis,
    ExportAnalysisRequest,
    ExportAnalysisResponse,
    GetAnalysisRequest,
    ItemAnalysis,
)

# Some three megabytes.
ATTEMPTS_AT_ONCE = 2500
# It takes a processor for a second: one has it at a time.
AT_ONCE, LONGEST_WAIT_SECONDS = 1, 10.0
PLACES = Decimal("0.000001")
NUMBER = re.compile(r"(-?[0-9]+(\.[0-9]+)?)?")
CSV_TYPE = "text/csv; charset=utf-8; header=present"
FIGURES = ("mean", "median", "standard_deviation", "reliability", "standard_error")
ITEM_FIGURES = ("facility", "standard_deviation", "point_biserial", "discrimination")
COLUMNS = (
    *("level", "question_id", "choice_id", "text", "attempts", "omitted", "mean", "median", "standard_deviation"),
    *("reliability", "standard_error", "facility", "point_biserial", "discrimination"),
    *("correct", "picked", "picked_by_upper", "picked_by_lower"),
)


class AnalysisService:
    SERVICE = analyses_pb2.DESCRIPTOR.services_by_name["AnalysisService"]

    def __init__(self, db: Database) -> None:
        self.db, self.turns = db, Limiter(AT_ONCE, LONGEST_WAIT_SECONDS)

    async def GetAnalysis(self, request: GetAnalysisRequest, context: Any) -> Analysis:
        return await self._analysis(request)

    async def ExportAnalysis(
        self, request: ExportAnalysisRequest, context: Any
    ) -> AsyncIterator[ExportAnalysisResponse]:
        analysis = await self._analysis(request)
        for piece in (record(COLUMNS), b"".join(map(_row, _lines(analysis)))):
            yield ExportAnalysisResponse(body=HttpBody(content_type=CSV_TYPE, data=piece))

    async def _analysis(self, request: GetAnalysisRequest | ExportAnalysisRequest) -> Analysis:
        first = request.attempts != AnalyzedAttempts.ANALYZED_ATTEMPTS_ALL
        async with in_turn(self.turns, current().tenant_id):
            async with self.db.read() as session:
                quiz = await quizzes.get_quiz_row(session, request.quiz_id)
                require("analyze", quiz, resource="quiz")
                work = await _read(session, quiz, first=first)
                figures = await asyncio.to_thread(analyse, work.sheet)
                await _look_closer(session, work, figures)
                asked = {one.question_id for one in work.versions.values()}
                work.readable = await quizzes.list_readable(session, asked)
            if first and work.complete and figures.items:
                async with self.db.write() as writing:
                    found = {UUID(one): _rounded(item.facility) for one, item in figures.items.items()}
                    await queries.note_facilities(writing, found)
        kind = AnalyzedAttempts.ANALYZED_ATTEMPTS_FIRST if first else AnalyzedAttempts.ANALYZED_ATTEMPTS_ALL
        return analysis_to_proto(quiz.id, kind, work, figures)


@dataclass(slots=True)
class _Work:
    """What an analysis knows; counts are by question, and by choice. Ids are texts, which are looked up faster."""

    sheet: Sheet = field(default_factory=Sheet)
    attempt_ids: list[UUID] = field(default_factory=list)
    user_ids: set[UUID] = field(default_factory=set)
    versions: dict[UUID, Version] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    # Questions that the caller may read: of others, nothing that they say.
    readable: set[UUID] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    # Whether these are all attempts, and not only those that the caller may list.
    complete: bool = True
    answered: Counter[str] = field(default_factory=Counter)
    picked: Counter[str] = field(default_factory=Counter)
    upper: Counter[str] = field(default_factory=Counter)
    lower: Counter[str] = field(default_factory=Counter)

    def newest(self) -> dict[str, Body]:
        """What the newest version of each question says, by the question; of a regraded one, what says so now."""
        ordered = sorted(self.versions.values(), key=lambda one: one.version)
        return {str(one.question_id): said(in_force(self.changes, *one), one.body) for one in ordered}


async def _read(session: ReadSession, quiz: Any, *, first: bool) -> _Work:
    """The points of all attempts. Most attempts have the same versions and maxima: their texts are read once."""
    work, after, more = _Work(), NIL, True
    pins: dict[str, list[str]] = {}
    maxima: dict[str, list[float]] = {}
    work.positions.update(await queries.list_positions(session, quiz.id))
    work.changes = await list_changes(session, quiz.id, quiz.regrade_count) if quiz.regrade_count else []
    while more:
        rows = await queries.list_results(session, quiz.id, first=first, after=after, limit=ATTEMPTS_AT_ONCE)
        for text in {row.version_ids for row in rows} - pins.keys():
            ids = [UUID(one) for one in text.strip("{}").split(",") if one]
            work.versions.update(await REMEMBERED.get(session, ids))
            pins[text] = [str(work.versions[one].question_id) for one in ids]
        for row in rows:
            if row.maxima not in maxima:
                maxima[row.maxima] = _numbers(row.maxima)
            if row.shown:
                work.sheet.add(pins[row.version_ids], _numbers(row.scores), maxima[row.maxima])
                work.attempt_ids.append(row.id)
                work.user_ids.add(row.user_id)
            work.complete &= bool(row.shown)
        more, after = len(rows) == ATTEMPTS_AT_ONCE, rows[-1].id if rows else after
    return work


def _numbers(text: str) -> list[float]:
    return [float(one) for one in json.loads(text)]


async def _look_closer(session: ReadSession, work: _Work, figures: Figures) -> None:
    """Counts who answered, and who picked what."""
    parts = [0] * len(work.attempt_ids)
    for numbers, part in ((figures.upper, 1), (figures.lower, -1)):
        for number in numbers:
            parts[number] = part
    for row in await queries.list_answered(session, work.attempt_ids, parts):
        work.answered[str(work.versions[row.version_id].question_id)] += row.answered
    choices = [one for one, version in work.versions.items() if version.body["type"] == MULTIPLE_CHOICE]
    for row in await queries.list_picked(session, work.attempt_ids, parts, choices):
        work.picked[row.choice] += row.picked
        work.upper[row.choice] += row.upper
        work.lower[row.choice] += row.lower


def _rounded(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(value).quantize(PLACES, ROUND_HALF_EVEN)


def _told(value: float | None) -> str:
    rounded = _rounded(value)
    # A mean of nothing but zeros may come out as -0.
    return "" if rounded is None else plain(rounded + 0)


def analysis_to_proto(quiz_id: UUID, attempts: AnalyzedAttempts, work: _Work, figures: Figures) -> Analysis:
    """Questions without a place in the quiz, which were drawn from the bank, come last, by their ids."""
    newest, last = work.newest(), len(work.positions) + 1
    ordered = sorted(work.sheet.columns, key=lambda one: (work.positions.get(one, last), one))
    message = Analysis(
        quiz_id=str(quiz_id),
        attempts=attempts,
        attempt_count=len(work.attempt_ids),
        learner_count=len(work.user_ids),
        distribution=figures.distribution,
        mean=_told(figures.mean),
        median=_told(figures.median),
        standard_deviation=_told(figures.deviation),
        reliability=_told(figures.reliability),
        standard_error=_told(figures.standard_error),
        items=[_item_to_proto(work, one, figures.items[one], newest[one]) for one in ordered],
    )
    message.compute_time.FromDatetime(now())
    return message


def _item_to_proto(work: _Work, question_id: str, figures: ItemFigures, body: Body) -> ItemAnalysis:
    attempts, told = len(work.sheet.columns[question_id].rows), UUID(question_id) in work.readable
    choices = body["choices"] if told and body["type"] == MULTIPLE_CHOICE else ()
    return ItemAnalysis(
        question_id=question_id,
        prompt=body["prompt"] if told else "",
        attempts=attempts,
        omitted=attempts - work.answered[question_id],
        facility=_told(figures.facility),
        standard_deviation=_told(figures.deviation),
        point_biserial=_told(figures.point_biserial),
        discrimination=_told(figures.discrimination),
        choices=[
            ChoiceAnalysis(
                choice_id=one["id"],
                text=one["text"],
                correct=one["correct"],
                picked=work.picked[one["id"]],
                picked_by_upper=work.upper[one["id"]],
                picked_by_lower=work.lower[one["id"]],
            )
            for one in choices
        ],
    )


def _lines(analysis: Analysis) -> Iterator[Iterable[str]]:
    """The lines of the file, each with a cell for every column."""
    figures = {name: getattr(analysis, name) for name in FIGURES}
    yield _line(level="quiz", attempts=analysis.attempt_count, **figures)
    for item in analysis.items:
        figures = {name: getattr(item, name) for name in ITEM_FIGURES}
        about = {"question_id": item.question_id, "text": item.prompt}
        yield _line(level="question", **about, attempts=item.attempts, omitted=item.omitted, **figures)
        for choice in item.choices:
            counts = {name: getattr(choice, name) for name in ("picked", "picked_by_upper", "picked_by_lower")}
            about = {"question_id": item.question_id, "choice_id": choice.choice_id, "text": choice.text}
            yield _line(level="choice", **about, correct=str(choice.correct).lower(), **counts)


def _row(cells: Iterable[str]) -> bytes:
    """A record in which numbers are numbers, also those below 0."""
    return b",".join(one.encode() if NUMBER.fullmatch(one) else record([one])[:-2] for one in cells) + b"\r\n"


def _line(**cells: object) -> list[str]:
    return [str(cells.get(name, "")) for name in COLUMNS]
