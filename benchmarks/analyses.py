"""`python -m benchmarks.analyses`: how long the analysis of a quiz with a hundred thousand responses takes, and
a regrade of one of its questions; on a PostgreSQL of its own, made for it and thrown away."""

import asyncio
import json
import secrets
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from statistics import median
from typing import Any
from uuid import UUID

from benchmarks.report import table, verdict
from benchmarks.trees import Server, own_server
from kit.access import Access, Snapshot
from kit.auth import Principal
from kit.call import Call, enter
from kit.ids import new_id
from kit.outbox import Routes
from kit.pagination import Sealer
from services.assessment import policies, rules
from services.assessment.analyses import AnalysisService
from services.assessment.regrades import RegradeService
from services.assessment.rules import Item
from storyloom.assessment.v1.analyses_pb2 import Analysis, GetAnalysisRequest
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.assessment.v1.regrades_pb2 import CreateRegradeRequest, PreviewRegradeRequest, Regrade

ATTEMPTS, QUESTIONS, CHOICES = 5_000, 20, 4
ROUNDS = 5
ANALYSIS_LIMIT = 1.0
PASS_MARK, ONE = Decimal(50), Decimal(1)


def body_of(number: int) -> dict[str, Any]:
    choices = [
        {"id": str(new_id()), "text": f"choice {n}", "correct": n == 0, "feedback": "", "percent": ""}
        for n in range(CHOICES)
    ]
    common = {"prompt": f"question {number}", "explanation": "", "scoring": "partial"}
    return {"type": "multiple_choice", "choices": choices, "multiple": False, **common}


async def quiz_of(server: Server, tenant_id: UUID) -> tuple[UUID, list[Item]]:
    """A quiz that was published, and its questions."""
    quiz_id, author, items = new_id(), new_id(), []
    await server.superuser.execute(
        "INSERT INTO assessment.quizzes (tenant_id, id, title, attempts_allowed, pass_mark, shuffle, status, author_id,"
        " question_count, max_score) VALUES ($1, $2, 'bench', 0, 50, false, 'published', $3, $4, $4::int)",
        tenant_id, quiz_id, author, QUESTIONS,
    )  # fmt: skip
    for number in range(QUESTIONS):
        item = Item(new_id(), new_id(), 1, body_of(number), ONE)
        values = tenant_id, item.question_id, item.version_id, quiz_id, author
        for statement, count in (
            ("questions (tenant_id, id, type, prompt, version, author_id) VALUES ($1, $2, 'multiple_choice', 'x', 1,"
             " $3)", (0, 1, 4)),
            ("quiz_questions (tenant_id, quiz_id, question_id, points, position) VALUES ($1, $2, $3, 1, 1)", (0, 3, 1)),
        ):  # fmt: skip
            await server.superuser.execute(f"INSERT INTO assessment.{statement}", *(values[n] for n in count))
        await server.superuser.execute(
            "INSERT INTO assessment.question_versions (tenant_id, id, question_id, version, body)"
            " VALUES ($1, $2, $3, 1, $4)",
            tenant_id, item.version_id, item.question_id, json.dumps(item.body),
        )  # fmt: skip
        items.append(item)
    return quiz_id, items


async def attempts_at(server: Server, tenant_id: UUID, quiz_id: UUID, items: list[Item]) -> None:
    """Many learners, each as able as chance has it, who answer all questions but a few."""
    chance, at = Random(7), datetime.now(UTC)
    attempts, responses, results = [], [], []
    for _ in range(ATTEMPTS):
        attempt_id, able, taken = new_id(), chance.gauss(0, 1), []
        for number, item in enumerate(items):
            right = chance.random() < 1 / (1 + 2.7 ** (number / 5 - 2 - able))
            picked = item.body["choices"][0 if right else chance.randrange(1, CHOICES)]["id"]
            taken.append(item._replace(answer=[picked]))
            responses.append((tenant_id, attempt_id, item.version_id, json.dumps([picked])))
        outcome = rules.graded(taken, PASS_MARK)
        figures = outcome.score, outcome.max_score, outcome.percent, outcome.passed, json.dumps(outcome.detail)
        results.append((tenant_id, attempt_id, *figures, PASS_MARK))
        version_ids, points = [one.version_id for one in items], [one.points for one in items]
        attempts.append((tenant_id, attempt_id, quiz_id, new_id(), 1, "graded", version_ids, points, False, at))
    for name, rows, columns in (
        ("attempts", attempts, "quiz_id user_id number state version_ids points shuffled submit_time"),
        ("responses", responses, "version_id answer"),
        ("quiz_results", results, "score max_score percent passed detail pass_mark"),
    ):
        first = ["tenant_id", "id" if name == "attempts" else "attempt_id"]
        await server.superuser.copy_records_to_table(
            name, schema_name="assessment", records=rows, columns=[*first, *columns.split()]
        )
    await server.superuser.execute("VACUUM ANALYZE")


def call_of(tenant_id: UUID) -> Call:
    grants = frozenset({("quiz", "regrade"), ("quiz", "analyze"), ("attempt", "list")})
    user_id, sealer = new_id(), Sealer(secrets.token_bytes(32))
    snapshot = Snapshot(tenant_id=tenant_id, user_id=user_id, roles=frozenset(), permissions=grants)
    principal = Principal(tenant_id=tenant_id, home_tenant_id=tenant_id, user_id=user_id, snapshot=snapshot)
    return Call(rpc="/x", request_id="x", access=Access(policies.RULES), sealer=sealer, principal=principal)


async def timed(server: Server, work: Callable[[], Awaitable[Any]]) -> tuple[Any, float, float]:
    """What came of it, seconds by the clock, and seconds of processor time here and in the database."""
    began, used = time.perf_counter(), server.used()
    found = await work()
    return found, time.perf_counter() - began, (server.used() - used) / 1e6


async def most_held(work: Callable[[], Awaitable[Any]]) -> float:
    """The most memory that Python held for it at one time, in MB."""
    tracemalloc.start()
    await work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


async def measure(server: Server) -> list[tuple[str, ...]]:
    tenant_id = new_id()
    server.db.routes = Routes("assessment", {AttemptGraded: ("learning",)})
    quiz_id, items = await quiz_of(server, tenant_id)
    print(f"Making {ATTEMPTS:,} attempts with {ATTEMPTS * QUESTIONS:,} responses", flush=True)
    await attempts_at(server, tenant_id, quiz_id, items)
    enter(call_of(tenant_id))
    analyses, regrades = AnalysisService(server.db), RegradeService(server.db)
    asked = GetAnalysisRequest(quiz_id=str(quiz_id))
    held = await most_held(lambda: analyses.GetAnalysis(asked, None))
    runs = [await timed(server, lambda: analyses.GetAnalysis(asked, None)) for _ in range(ROUNDS)]
    analysis: Analysis = runs[0][0]
    print(f"alpha {analysis.reliability}, mean {analysis.mean}, {held:.0f} MB held at most", flush=True)
    wall, spent = (median(run[place] for run in runs) for place in (1, 2))
    rows: list[tuple[str, ...]] = [
        ("analysis", f"{wall:.2f}", f"{spent:.2f}", f"{ANALYSIS_LIMIT:g}", verdict(spent, ANALYSIS_LIMIT))
    ]
    regrade = Regrade(quiz_id=str(quiz_id), question_id=str(items[-1].question_id), kind="REGRADE_KIND_FULL_MARKS")
    for name, work in (
        ("regrade, foreseen", lambda: regrades.PreviewRegrade(PreviewRegradeRequest(regrade=regrade), None)),
        ("regrade, made", lambda: regrades.CreateRegrade(CreateRegradeRequest(regrade=regrade), None)),
    ):
        found, wall, spent = await timed(server, work)
        rows.append((f"{name} ({found.effect.changed:,} change)", f"{wall:.2f}", f"{spent:.2f}", "", ""))
    return rows


async def main() -> int:
    async with own_server("assessment") as server:
        rows = await measure(server)
    head = (f"{ATTEMPTS:,} attempts of {QUESTIONS} questions", "seconds", "CPU seconds", "limit", "verdict")
    print("\n".join(table([head, *rows])))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
