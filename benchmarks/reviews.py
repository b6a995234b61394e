"""`python -m benchmarks.reviews`: what a review queue costs a learner with a hundred words and one with ten thousand,
and what adding five hundred reviews costs; on a PostgreSQL of its own, made for it and thrown away."""

import asyncio
import secrets
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from uuid import UUID

from benchmarks.report import table, verdict
from benchmarks.trees import Server, own_server
from kit.access import Access, Snapshot
from kit.auth import Principal
from kit.call import Call, enter
from kit.ids import new_id
from kit.pagination import Sealer
from services.learning import policies
from services.learning.projections import Words
from services.learning.queries.vocabulary_progress import NewReview
from services.learning.queries.vocabulary_reviews import append_reviews
from services.learning.vocabulary_progress import VocabularyProgressService
from storyloom.learning.v1.vocabulary_progress_pb2 import GetReviewQueueRequest

FEW, MANY, BATCH = 100, 10_000, 500
# Of both learners as many are due, or else it would be two sizes of answers that are compared.
DUE = 60
ROUNDS, QUEUES = 9, 30
RATIO_LIMIT, BATCH_LIMIT_MS = 1.2, 100.0
NOW = datetime.now(UTC)


def reviews_of(words: list[UUID], at: datetime, rating: str = "good") -> list[NewReview]:
    return [
        NewReview(event_id=new_id(), vocabulary_id=word, rating=rating, review_time=at, source="offline")
        for word in words
    ]


async def send(server: Server, tenant_id: UUID, user_id: UUID, reviews: list[NewReview]) -> None:
    async with server.db.write(tenant_id) as session:
        await append_reviews(session, user_id, reviews)


async def learn(server: Server, tenant_id: UUID, count: int) -> UUID:
    """A learner with so many words, of which `DUE` are due."""
    user_id, words = new_id(), [new_id() for _ in range(count)]
    for start in range(0, count, BATCH):
        part = words[start : start + BATCH]
        await send(server, tenant_id, user_id, reviews_of(part, NOW - timedelta(days=1), "easy"))
    await send(server, tenant_id, user_id, reviews_of(words[:DUE], NOW - timedelta(hours=1)))
    await server.superuser.execute(
        "UPDATE learning.user_vocabulary_progress SET due_time = $2 WHERE user_id = $1 AND vocabulary_id = ANY ($3)",
        user_id, NOW - timedelta(minutes=5), words[:DUE],
    )  # fmt: skip
    return user_id


def call_of(tenant_id: UUID, user_id: UUID) -> Call:
    snapshot = Snapshot(tenant_id=tenant_id, user_id=user_id, roles=frozenset({"student"}), permissions=frozenset())
    principal = Principal(tenant_id=tenant_id, home_tenant_id=tenant_id, user_id=user_id, snapshot=snapshot)
    access, sealer = Access(policies.RULES), Sealer(secrets.token_bytes(32))
    return Call(rpc="/bench", request_id="bench", access=access, sealer=sealer, principal=principal)


async def queues(server: Server, calls: tuple[Call, ...]) -> tuple[float, ...]:
    """Microseconds of processor time of each learner's queue, here and in the database, taken by turns."""
    servicer = VocabularyProgressService(server.db, Words(server.db, None))
    spent: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for place, call in enumerate(calls):
            enter(call)
            before = server.used()
            for _ in range(QUEUES):
                queue = await servicer.GetReviewQueue(GetReviewQueueRequest(), None)
                assert (len(queue.vocabulary_progress), queue.due_count) == (20, DUE)
            spent[place].append((server.used() - before) / QUEUES)
    return tuple(map(median, spent))


async def batches(server: Server, tenant_id: UUID) -> list[tuple[str, float]]:
    """Milliseconds of processor time of five hundred reviews that are new, that follow, that come late, and again."""
    spent: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        user_id, words = new_id(), [new_id() for _ in range(BATCH)]
        sent = {day: reviews_of(words, NOW - timedelta(days=100 - day)) for day in (0, 20, 40, 60, 80)}
        mixed = [replace(one, event_id=new_id(), vocabulary_id=words[at % 50]) for at, one in enumerate(sent[40])]
        for name, reviews in (
            ("of words never met", sent[20]),
            ("of words met before", sent[60]),
            ("once more", sent[60]),
            ("before two others of their words", sent[0]),
            ("ten each of fifty words", mixed),
        ):
            before = server.used()
            await send(server, tenant_id, user_id, reviews)
            spent.setdefault(name, []).append((server.used() - before) / 1e3)
    return [(name, median(found)) for name, found in spent.items()]


async def main() -> int:
    async with own_server("learning") as server:
        tenant_id = new_id()
        print(f"Making a learner with {MANY:,} words", flush=True)
        people = [await learn(server, tenant_id, count) for count in (FEW, MANY)]
        await server.superuser.execute("VACUUM ANALYZE")
        found = await queues(server, tuple(call_of(tenant_id, one) for one in people))
        rows = await batches(server, tenant_id)
    few, many = found
    head = ("CPU µs, service and PostgreSQL", f"at {FEW:,}", f"at {MANY:,}", "ratio", "limit", "verdict")
    ratio = many / few
    line = ("review queue", f"{few:.0f}", f"{many:.0f}", f"{ratio:.2f}", f"{RATIO_LIMIT}", verdict(ratio, RATIO_LIMIT))
    print("\n".join(table([head, line])) + "\n")
    told = [(name, f"{spent:.0f}", f"{BATCH_LIMIT_MS:.0f}", verdict(spent, BATCH_LIMIT_MS)) for name, spent in rows]
    print("\n".join(table([(f"{BATCH} reviews, CPU ms", "found", "limit", "verdict"), *told])))
    return 0



if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
