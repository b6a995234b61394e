"""`python -m benchmarks.searches`: how long searches take in a tenant of a hundred thousand stories; on a PostgreSQL of
its own, made for it and thrown away."""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from uuid import UUID

import uvloop

from benchmarks.drivers import percentile
from benchmarks.report import table, verdict
from benchmarks.trees import Server, own_server
from deploy.demo.data import story
from kit.access import Access, Snapshot
from kit.auth import Principal
from kit.call import Call, enter
from kit.ids import new_id
from kit.pagination import Sealer
from services.content import policies
from services.content.search import SearchService
from storyloom.content.v1.search_pb2 import SearchRequest, SearchResponse

STORIES, WORDS, QUERIES = 100_000, 300, 60
LIMIT_MS = 50.0
TEXTS = ("bi-mat-trong-thu-vien", "canh-dieu-cua-ba-ngoai", "tau-la-dua-tren-cho-noi")
INITIALS = (
    *("b", "c", "ch", "d", "đ", "g", "gh", "gi", "h", "k", "kh", "l", "m", "n", "ng", "ngh", "nh"),
    *("p", "ph", "qu", "r", "s", "t", "th", "tr", "v", "x"),
)
RIMES = (
    *("a", "ả", "ai", "ái", "am", "ăng", "ắc", "ân", "ầm", "ao", "áy", "e", "én", "ê", "ềm", "ết", "i", "ịnh", "iếc"),
    *("iều", "o", "ỏng", "ôn", "ốc", "ổi", "ơ", "ớp", "u", "ụt", "ung", "uyên", "ưa", "ừng", "ượng", "ươi", "y"),
)
PARAGRAPHS = """
INSERT INTO paragraphs SELECT n, body, content.lexemes('', body) FROM unnest($1::text[]) WITH ORDINALITY p (body, n)
"""
TITLES = """
INSERT INTO titles SELECT n, title, content.folded(title), content.lexemes(title, '')
FROM unnest($1::text[]) WITH ORDINALITY t (title, n)
"""
MADE = """
CREATE TEMP TABLE made AS SELECT n, uuidv7(make_interval(secs => n - $2::int)) AS id, uuidv7() AS version_id,
  ceil(random() * $3)::int AS a, ceil(random() * $3)::int AS b, ceil(random() * $3)::int AS c,
  ceil(random() * $4)::int AS t, $1::uuid AS tenant_id FROM generate_series(1, $2::int) n
"""
ROWS = (
    """INSERT INTO content.stories (tenant_id, id, title, language, learning_language, vocabulary_ids, author_id,
         status, current_version_id, published_version_id)
       SELECT tenant_id, id, title, 'vi', 'en', '{}', uuidv7(),
         CASE WHEN made.n % 10 = 0 THEN 'draft' ELSE 'published' END, version_id, version_id
       FROM made JOIN titles ON titles.n = t""",
    """INSERT INTO content.story_versions (tenant_id, id, story_id, number, title, text, annotations, paragraphs,
         pinned_vocabulary_ids, banned_vocabulary_ids, content_hash, author_id, summary, body)
       SELECT tenant_id, version_id, id, 1, title, concat_ws(E'\\n\\n', p.body, q.body, r.body), '[]', '{}', '{}', '{}',
         '', uuidv7(), '', '' FROM made JOIN titles ON titles.n = t
       JOIN paragraphs p ON p.n = a JOIN paragraphs q ON q.n = b JOIN paragraphs r ON r.n = c""",
    """INSERT INTO content.search_documents (tenant_id, id, kind, title_key, words)
       SELECT tenant_id, id, 'story', key, titles.words || p.words || q.words || r.words
       FROM made JOIN titles ON titles.n = t
       JOIN paragraphs p ON p.n = a JOIN paragraphs q ON q.n = b JOIN paragraphs r ON r.n = c""",
)
INDEXES = "SELECT indexdef, indexname FROM pg_indexes WHERE tablename = 'search_documents' AND indexdef LIKE '% gin %'"


class Language:
    """Words as often as in a language: the n-th most frequent about 1 / n as often as the first (Zipf)."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        known = [word.strip(".,“”!?:").lower() for text in TEXTS for word in story(text).text.split()]
        made = [first + rest for first in INITIALS for rest in RIMES]
        self.random.shuffle(made)
        self.words = [one for one in dict.fromkeys((*known, *made)) if one.isalpha()]
        self._weights = [1 / (place + 5) for place in range(len(self.words))]

    def text(self, length: int) -> str:
        return " ".join(self.random.choices(self.words, self._weights, k=length))

    def word(self, first: int, last: int) -> str:
        """One between these places in the order of frequency."""
        return self.words[self.random.randrange(first, min(last, len(self.words)))]


async def load(server: Server, language: Language) -> UUID:
    """A tenant with so many stories of three paragraphs each."""
    tenant_id, run = new_id(), server.superuser.execute
    paragraphs = [language.text(WORDS // 3) for _ in range(3_000)]
    titles = [language.text(language.random.randint(2, 6)).capitalize() for _ in range(STORIES)]
    await run("SET session_replication_role = replica; SET maintenance_work_mem = '128MB'")
    await run("CREATE TEMP TABLE paragraphs (n int PRIMARY KEY, body text, words tsvector)")
    await run("CREATE TEMP TABLE titles (n int PRIMARY KEY, title text, key text, words tsvector)")
    await run(PARAGRAPHS, paragraphs)
    await run(TITLES, titles)
    indexes = await server.superuser.fetch(INDEXES)
    for index in indexes:
        await run(f"DROP INDEX content.{index['indexname']}")
    await run(MADE, tenant_id, STORIES, len(paragraphs), len(titles))
    await run("ANALYZE made, paragraphs, titles")
    for statement in (*ROWS, *(index["indexdef"] for index in indexes)):
        await run(statement)
    return tenant_id


def queries(language: Language) -> dict[str, Callable[[], str]]:
    """What people type, by kind."""
    def frequent() -> str:
        return language.word(0, 50)

    def usual() -> str:
        return language.word(50, 500)

    def rare() -> str:
        return language.word(500, 5_000)

    return {
        "a frequent word": frequent,
        "a usual word": usual,
        "a rare word": rare,
        "two frequent words": lambda: f"{frequent()} {frequent()}",
        "a usual and a rare word": lambda: f"{usual()} {rare()}",
        "four words": lambda: " ".join((frequent(), usual(), usual(), rare())),
        "the beginning of a word": lambda: f"{usual()} {usual()[:2]}",
        "a word misspelled": lambda: f"{rare()}q{rare()}",
    }


async def measured(server: Server, tenant_id: UUID, language: Language) -> list[tuple[str, ...]]:
    """The table of what was found. A student searches, who sees nine of ten stories."""
    enter(student_of(tenant_id))
    service, everything = SearchService(server.db), list[float]()
    rows: list[tuple[str, ...]] = [("search, ms", "p50", "p95", "slowest", "CPU", "results", "limit", "verdict")]
    for name, make in queries(language).items():
        before = server.used()
        found = [await _timed(service, make()) for _ in range(QUERIES)]
        spent = (server.used() - before) / QUERIES / 1e3
        times, results = sorted(one for one, _ in found), sum(count for _, count in found) / QUERIES
        everything += times
        rows.append((name, *_cells(times, f"{spent:.1f}", f"{results:.0f}")))
    rows.append(("all", *_cells(sorted(everything), "", "")))
    # By the loop that opened its connections.
    await server.db.close()
    return rows


def student_of(tenant_id: UUID) -> Call:
    user_id = new_id()
    permissions = frozenset({("vocabulary", "read"), ("vocabulary", "list")})
    snapshot = Snapshot(
        tenant_id=tenant_id, user_id=user_id, roles=frozenset({"student"}), permissions=permissions
    )
    who = Principal(tenant_id=tenant_id, home_tenant_id=tenant_id, user_id=user_id, snapshot=snapshot)
    access, sealer = Access(policies.RULES), Sealer(secrets.token_bytes(32))
    return Call(rpc="/bench", request_id="bench", access=access, sealer=sealer, principal=who)


async def _timed(service: SearchService, query: str) -> tuple[float, int]:
    request: Any = SearchRequest(query=query)
    before = time.perf_counter()
    answer: SearchResponse = await service.Search(request, None)
    return (time.perf_counter() - before) * 1e3, len(answer.results)


def _cells(times: list[float], *more: str) -> Iterator[str]:
    yield from (f"{percentile(times, share):.1f}" for share in (50, 95, 100))
    yield from (*more, f"{LIMIT_MS:.0f}", verdict(percentile(times, 95), LIMIT_MS))


async def main() -> int:
    language = Language(seed=1)
    async with own_server("content") as server:
        print(f"Loading {STORIES:,} stories of {WORDS} words, of {len(language.words):,} different ones", flush=True)
        tenant_id = await load(server, language)
        await server.superuser.execute("VACUUM ANALYZE")
        await server.superuser.execute("CHECKPOINT")
        rows = await asyncio.to_thread(uvloop.run, measured(server, tenant_id, language))
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
