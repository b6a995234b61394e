"""Questions that were there before there were more types than two."""

import asyncio
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

from alembic import command

from kit import migrations
from services.assessment.answering import given_to_grade, to_grade
from services.assessment.bodies import check_body
from tests.contract import databases
from tests.postgres import Cluster

BEFORE, AFTER = "202611221320", "202611221500"
INSERT = """
WITH question AS (
  INSERT INTO assessment.questions (tenant_id, id, type, prompt, version, author_id)
  VALUES ($1, $1, $2::json ->> 'type', $2::json ->> 'prompt', 1, $1)
)
INSERT INTO assessment.question_versions (tenant_id, id, question_id, version, body) VALUES ($1, $1, $1, 1, $2::jsonb)
"""
BODIES = "SELECT id, body FROM assessment.question_versions ORDER BY id"
KEYS = "SELECT search_key FROM assessment.questions ORDER BY id"
LEFT = {"choices": [], "multiple": False, "blanks": [], "case_sensitive": False, "ignore_accents": False}
A, B, C = (str(UUID(int=number, version=4)) for number in range(3))
CHOICE: dict[str, Any] = {
    **LEFT,
    "type": "multiple_choice",
    "prompt": "Đâu là đúng?",
    "explanation": "why",
    "multiple": True,
    "choices": [
        {"id": B, "text": "b", "correct": False, "feedback": "no"},
        {"id": A, "text": "a", "correct": True, "feedback": ""},
        {"id": C, "text": "c", "correct": True, "feedback": ""},
    ],
}
BLANK: dict[str, Any] = {
    **LEFT,
    "type": "fill_blank",
    "prompt": "___ and ___",
    "explanation": "",
    "case_sensitive": True,
    "ignore_accents": True,
    "blanks": [["river", "the \"river\""], ["sea"]],
}


async def bodies(scratch: databases.Scratch) -> list[dict[str, Any]]:
    async with scratch.connected() as database:
        return [json.loads(row["body"]) for row in await database.fetch(BODIES)]


class TestBodies:
    async def test_are_graded_as_they_were_and_can_go_back(self, cluster: Cluster) -> None:
        scratch = await databases.create(cluster, "widened_bodies")
        await asyncio.to_thread(migrations.upgrade, "assessment", scratch.owner_url, BEFORE)
        async with scratch.connected() as database:
            for number, body in enumerate((CHOICE, BLANK), start=1):
                await database.execute(INSERT, UUID(int=number), json.dumps(body))
        await asyncio.to_thread(migrations.upgrade, "assessment", scratch.owner_url, AFTER)
        choice, blank = await bodies(scratch)
        for body in (choice, blank):
            check_body(body)
        assert [one["id"] for one in choice["choices"]] == [B, A, C]
        assert self.score(choice, [A, B]) == 0
        assert self.score(choice, [A]) == 2
        assert self.score(blank, ["the \"river\"", "Sea"]) == 2
        assert self.score(blank, ["ríver", "sea"]) == 4
        async with scratch.connected() as database:
            assert [row["search_key"] for row in await database.fetch(KEYS)] == [" dau la dung", " and"]
        await asyncio.to_thread(command.downgrade, migrations.config("assessment", scratch.owner_url), BEFORE)
        assert await bodies(scratch) == [CHOICE, BLANK]

    def score(self, body: dict[str, Any], answer: list[str]) -> Decimal:
        return to_grade(body, "question", Decimal(4)).grade(given_to_grade(body, answer)).score
