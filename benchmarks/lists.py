"""`python -m benchmarks.lists`: what a page of twenty stories costs the service beside what reading it with nothing but
asyncpg costs, and whether it costs more in a tenant of a million; on a PostgreSQL of its own, made and thrown away."""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from statistics import median
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import uvloop
from joserfc import jwt
from joserfc.jwk import OKPKey

from benchmarks.report import table, verdict
from benchmarks.trees import Server, own_server
from kit.access import Access, Snapshot, SnapshotCache
from kit.access.policies import Policy
from kit.access.snapshots import Change
from kit.auth import USER_ALGORITHM, USER_TOKEN, TokenVerifier
from kit.call import Call, new_call
from kit.ids import new_id
from kit.limiter import Limiter
from kit.pagination import Sealer
from kit.pipeline import Method, Pipeline, grpc_handler
from kit.settings import Settings
from kit.telemetry import Telemetry
from services.content import policies, versioning
from services.content.stories import StoryService
from services.content.story_versions import make_version
from storyloom.content.v1.stories_pb2 import ListStoriesRequest, ListStoriesResponse

SMALL, LARGE, PAGE = 1_000, 1_000_000, 20
FLOOR_LIMIT, FLAT_LIMIT = 1.2, 1.2
ROUNDS, PAGES = 15, 30
LESSONS, TAGGED = 100, 10
STORIES = """
INSERT INTO content.stories (tenant_id, id, title, language, learning_language, lesson_id, position, vocabulary_ids,
  author_id, status, current_version_id, published_version_id)
SELECT $1, uuidv7(make_interval(secs => n - $2::int)), 'Chuyện số ' || md5(n::text), 'vi', 'en',
  CASE WHEN n % 2 = 0 THEN ($3::uuid[])[1 + n / 2 % $4::int] END, CASE WHEN n % 2 = 0 THEN n END, '{}', $5,
  CASE WHEN n % 10 = 3 THEN 'draft' ELSE 'published' END, $6, $6
FROM generate_series(1, $2::int) n
"""
# Those that are on pages have versions of their own.
VERSIONS = """
WITH newest AS (
  UPDATE content.stories SET current_version_id = uuidv7()
  WHERE tenant_id = $1 AND id IN (SELECT id FROM content.stories WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1000)
  RETURNING id, current_version_id
), pointed AS (
  INSERT INTO content.story_versions
  SELECT (jsonb_populate_record(v, jsonb_build_object('id', n.current_version_id, 'story_id', n.id))).*
  FROM newest n, content.story_versions v WHERE v.tenant_id = $1 AND v.id = $2
) SELECT count(*) FROM newest
"""
PUBLISH = """
UPDATE content.stories SET published_version_id = current_version_id WHERE tenant_id = $1 AND current_version_id <> $2
"""
TAGS = """
INSERT INTO content.story_tags (tenant_id, story_id, tag_id)
SELECT $1, id, $2 FROM (SELECT id, row_number() OVER (ORDER BY id) n FROM content.stories WHERE tenant_id = $1) s
WHERE n % $3 = 0
"""
# A page as it is read with nothing in between: every column that is shown of stories and of their versions.
FLOOR = """
SELECT s.*, c.summary, c.approval_id, p.summary, p.approval_id
FROM content.stories s
JOIN content.story_versions c ON c.tenant_id = s.tenant_id AND c.id = s.current_version_id
LEFT JOIN content.story_versions p ON p.tenant_id = s.tenant_id AND p.id = s.published_version_id
  AND p.id <> s.current_version_id
WHERE s.tenant_id = $1 AND c.tenant_id = $1 AND s.deleted_at IS NULL AND (s.status = 'published' OR s.author_id = $2)
ORDER BY s.id DESC LIMIT $3
"""
LISTS = {
    "newest": {},
    "oldest": {"order_by": "create_time"},
    "by title": {"order_by": "title"},
    "titles that begin so": {"query": "chuyện số a", "order_by": "title"},
    "published": {"status": "STORY_STATUS_PUBLISHED"},
    "of a lesson": {"lesson_id": "lesson"},
    "with a tag": {"tag_id": "tag"},
}


class Reader:
    """A student of a tenant, and the whole pipeline of calls but for gRPC itself."""

    def __init__(self, server: Server, tenant_id: UUID, lesson_id: UUID, tag_id: UUID) -> None:
        self.tenant_id, self.user_id, self.ids = tenant_id, new_id(), {"lesson": str(lesson_id), "tag": str(tag_id)}
        self._key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench"})
        claims = {"iss": "bench", "aud": "bench", "exp": int(time.time()) + 600, "sid": str(new_id())}
        claims |= {"sub": str(self.user_id), "tid": str(tenant_id)}
        header = {"alg": USER_ALGORITHM, "typ": USER_TOKEN, "kid": "bench"}
        token = jwt.encode(header, claims, self._key, algorithms=[USER_ALGORITHM])
        # As the gateway asks, of calls that are not traced.
        traced = ("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00")
        metadata = (("authorization", f"Bearer {token}"), traced, ("x-request-id", "bench"))
        self._context: Any = SimpleNamespace(
            invocation_metadata=lambda: metadata,
            time_remaining=lambda: 10.0,
            peer=lambda: "ipv4:127.0.0.1:1",
            set_trailing_metadata=lambda metadata: None,
        )
        self._access, self._sealer = Access(policies.RULES), Sealer(secrets.token_bytes(32))
        self.snapshots = SnapshotCache(self._snapshot, self._changes, self._policies, max_stale=60)
        self._serve = self._composed(server)

    def _composed(self, server: Server) -> Callable[[bytes, Any], Awaitable[Any]]:
        settings = Settings(service="content", database_url="", secret_key="", service_credential="", service_keys="")
        unused: Any = None
        pipeline = Pipeline(
            telemetry=Telemetry(settings),
            db=server.db,
            tokens=TokenVerifier(self._keys, issuer="bench", audience="bench"),
            services=unused,
            snapshots=self.snapshots,
            access=self._access,
            sealer=self._sealer,
            limiter=Limiter(4, 1.0),
            internal_limiter=unused,
            notes=unused,
            callers=lambda service, caller: False,
            mutual_tls=False,
            default_deadline=10.0,
        )
        servicer = StoryService(server.db)
        method = Method.of(servicer.SERVICE.methods_by_name["ListStories"])
        handler = pipeline.compose(method, servicer.ListStories)

        def make_call(path: str, context: Any) -> Call:
            return new_call(path, context, self._access, self._sealer, "")

        return grpc_handler(method, handler, make_call).unary_unary  # type: ignore[no-any-return]

    async def _keys(self) -> dict[str, Any]:
        return {"keys": [self._key.as_dict(private=False)]}

    async def _snapshot(self, tenant_id: UUID, user_id: UUID) -> Snapshot:
        permissions = frozenset({("vocabulary", "read"), ("vocabulary", "list")})
        return Snapshot(tenant_id=tenant_id, user_id=user_id, roles=frozenset({"student"}), permissions=permissions)

    async def _changes(self) -> AsyncIterator[Change | None]:
        while True:
            yield None
            await asyncio.sleep(0.5)

    async def _policies(self, tenant_id: UUID) -> tuple[Policy, ...]:
        return ()

    async def read(self, request: bytes) -> bytes:
        """The answer as it goes out."""
        response = await self._serve(request, self._context)
        return bytes(response.SerializeToString())

    def request(self, wanted: dict[str, str]) -> bytes:
        filled: Any = {name: self.ids.get(value, value) for name, value in wanted.items()}
        return ListStoriesRequest(page_size=PAGE, **filled).SerializeToString()


async def load(server: Server, size: int) -> tuple[UUID, UUID, UUID]:
    """A tenant with so many stories; its id, a lesson's and a tag's."""
    tenant_id, lessons, tag_id, run = new_id(), [new_id() for _ in range(LESSONS)], new_id(), server.superuser.execute
    draft = versioning.plain("Chuyện trong vườn", "Ngày xưa có con mèo. " * 60, "vi")
    version = make_version(new_id(), 1, new_id(), draft)
    await run("SET session_replication_role = replica")
    await run(
        "INSERT INTO content.story_versions (tenant_id, id, story_id, number, title, text, annotations, paragraphs,"
        " pinned_vocabulary_ids, banned_vocabulary_ids, content_hash, author_id, summary, body)"
        " VALUES ($1, $2, $3, 1, $4, $5, '[]', '{}', '{}', '{}', $6, $7, $8, '')",
        *(tenant_id, version.id, version.story_id, version.title, "", version.content_hash, version.author_id),
        version.summary,
    )  # fmt: skip
    await run(STORIES, tenant_id, size, lessons, LESSONS, new_id(), version.id)
    await run(VERSIONS, tenant_id, version.id)
    await run(PUBLISH, tenant_id, version.id)
    await run("INSERT INTO content.tags (tenant_id, id, name, name_key) VALUES ($1, $2, 'x', 'x')", tenant_id, tag_id)
    await run(TAGS, tenant_id, tag_id, TAGGED)
    return tenant_id, lessons[0], tag_id


async def spent(work: Callable[[], Awaitable[Any]], clock: Callable[[], float]) -> float:
    """Of one of many, in microseconds."""
    before = clock()
    for _ in range(PAGES):
        await work()
    return (clock() - before) / PAGES


async def beside_the_floor(server: Server, reader: Reader) -> tuple[float, float]:
    """Microseconds of this process's processor time for a page, and of reading its rows alone, by turns."""
    role = server.db.engine.url.render_as_string(hide_password=False).replace("+asyncpg", "", 1)
    raw = await asyncpg.connect(role)
    request = reader.request({})

    async def floor() -> None:
        await raw.execute(f"BEGIN READ ONLY; SET LOCAL app.tenant_id = '{reader.tenant_id}'")
        assert len(await raw.fetch(FLOOR, reader.tenant_id, reader.user_id, PAGE + 1)) == PAGE + 1
        await raw.execute("COMMIT")

    found: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        found.append((await spent(lambda: reader.read(request), _here), await spent(floor, _here)))
    await raw.close()
    own, least = (median(one) for one in zip(*found, strict=True))
    return own, least


def _here() -> float:
    return time.process_time() * 1e6


async def flatness(server: Server, readers: tuple[Reader, Reader], wanted: dict[str, str]) -> tuple[float, float]:
    """Microseconds of processor time of a page in each tenant, the database's too, by turns."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for reader, costs in zip(readers, found, strict=True):
            request = reader.request(wanted)
            costs.append(await spent(lambda reader=reader, request=request: reader.read(request), server.used))  # type: ignore[misc]
    return median(found[0]), median(found[1])


async def main() -> int:
    async with own_server("content") as server:
        print(f"Loading {LARGE:,} stories", flush=True)
        tenants = [await load(server, size) for size in (SMALL, LARGE)]
        await server.superuser.execute("VACUUM ANALYZE")
        await server.superuser.execute("CHECKPOINT")
        # On the loop that services run on; it starts no programs as other users, which PostgreSQL needs.
        tables = await asyncio.to_thread(uvloop.run, measured(server, tenants))
    print("\n\n".join("\n".join(table(rows)) for rows in tables))
    return 0


async def measured(server: Server, tenants: Iterable[tuple[UUID, UUID, UUID]]) -> list[list[tuple[str, ...]]]:
    """The tables of what was found."""
    small, large = (Reader(server, *tenant) for tenant in tenants)
    watching = [asyncio.create_task(one.snapshots.watch()) for one in (small, large)]
    for reader in (small, large):
        page = ListStoriesResponse.FromString(await reader.read(reader.request({})))
        assert len(page.stories) == PAGE
    own, least = await beside_the_floor(server, large)
    cells = compared(own, least, FLOOR_LIMIT)
    floor = [("CPU µs, service", f"page of {PAGE}", "asyncpg", "ratio", "limit", "verdict"), ("without gRPC", *cells)]
    flat: list[tuple[str, ...]] = [
        ("CPU µs, service and PostgreSQL", f"of {SMALL:,}", f"of {LARGE:,}", "ratio", "limit", "verdict")
    ]
    for name, wanted in LISTS.items():
        few, many = await flatness(server, (small, large), wanted)
        flat.append((name, *compared(many, few, FLAT_LIMIT, turned=True)))
    for task in watching:
        task.cancel()
    # By the loop that opened its connections.
    await server.db.close()
    return [floor, flat]


def compared(one: float, other: float, limit: float, *, turned: bool = False) -> tuple[str, ...]:
    """Cells of a row: the two, the other way round if `turned`, and how many times the other the one is."""
    ratio = one / other
    pair = (other, one) if turned else (one, other)
    return *(f"{cost:.0f}" for cost in pair), f"{ratio:.2f}", f"{limit}", verdict(ratio, limit)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
