"""Previews: those who make a quiz see what a learner would."""

from typing import Any
from uuid import UUID

from kit.access import denied, require
from kit.db import Database
from kit.ids import new_id
from kit.models import now
from services.assessment import rules
from services.assessment.composing import asked
from services.assessment.papers import question_to_proto, result_to_proto
from services.assessment.queries.attempts import list_items
from services.assessment.queries.quizzes import get_quiz_row, list_readable, list_slots
from services.assessment.rules import GRADED, Taking
from storyloom.assessment.v1 import previews_pb2
from storyloom.assessment.v1.previews_pb2 import PreviewQuizRequest, PreviewQuizResponse


class PreviewService:
    SERVICE = previews_pb2.DESCRIPTOR.services_by_name["PreviewService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def PreviewQuiz(self, request: PreviewQuizRequest, context: Any) -> PreviewQuizResponse:
        seed = UUID(request.seed) if request.seed else new_id()
        async with self.db.read() as session:
            quiz = await get_quiz_row(session, request.id)
            require("update", quiz, resource="quiz")
            picks = asked(seed, await list_slots(session, quiz.id, seed), shuffle=quiz.shuffle)
            ids = {pick.question_id for pick in picks}
            if await list_readable(session, ids) != ids:
                raise denied("question", "read")
            items = await list_items(session, picks)
        preview = rules.preview(seed, quiz, items, now())
        preview.answer(rules.answered(items, request.responses))
        response = PreviewQuizResponse(
            seed=str(seed), questions=[question_to_proto(seed, item, shuffle=quiz.shuffle) for item in items]
        )
        if request.submit and (seen := _graded(preview) - {"responses"}):
            response.result.CopyFrom(result_to_proto(preview, seen | {"responses"}))
        return response


def _graded(preview: Taking) -> frozenset[str]:
    """Hands the preview in; what a learner would see then of a first attempt."""
    at = now()
    preview.state, preview.result = GRADED, rules.graded(preview.items, preview.pass_mark)
    return rules.shown(preview.review_policy, rules.standing(preview, at))
