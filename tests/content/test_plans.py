"""Every list and search of stories uses an index that narrows it: read off the plans of the very statements sent."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kit.migrations import role_of
from storyloom.content.v1 import search_pb2, stories_pb2, tags_pb2
from storyloom.content.v1.search_pb2_grpc import SearchServiceStub
from storyloom.content.v1.tags_pb2_grpc import TagServiceStub
from tests.content.conftest import Author
from tests.stack import School

# So many that reading all of them is never the cheapest way to some of them.
ROWS = 3_000
LESSON, TAG, OTHER_TAG, VERSION = (UUID(int=n + 0xB0B0) for n in range(4))
STORIES = """
INSERT INTO content.stories (tenant_id, id, title, language, learning_language, lesson_id, position, vocabulary_ids,
  author_id, status, current_version_id, published_version_id)
SELECT $1, uuidv7(make_interval(secs => n - $2::int)), md5(n::text), 'vi', 'en',
  CASE WHEN n % 100 = 0 THEN $3::uuid END,
  CASE WHEN n % 100 = 0 THEN n END, '{}', uuidv7(), 'published', $4, $4
FROM generate_series(1, $2::int) n
"""
VERSIONS = """
INSERT INTO content.story_versions (tenant_id, id, story_id, number, title, text, annotations, paragraphs,
  pinned_vocabulary_ids, banned_vocabulary_ids, content_hash, author_id, summary, body)
VALUES ($1, $2, $2, 1, '', '', '[]', '{}', '{}', '{}', '', $2, '', '')
"""
TAGS = "INSERT INTO content.tags (tenant_id, id, name, name_key) VALUES ($1, $2, 'plan', 'plan')"
TAGGED = """
INSERT INTO content.story_tags (tenant_id, story_id, tag_id)
SELECT $1, id, tag FROM content.stories, unnest($2::uuid[]) WITH ORDINALITY t (tag, n)
WHERE tenant_id = $1 AND current_version_id = $3 AND (n > 1 OR title < '05')
"""
DOCUMENTS = """
INSERT INTO content.search_documents (tenant_id, id, kind, title_key, words)
SELECT tenant_id, id, 'story', title, content.lexemes(title, '') FROM content.stories
WHERE tenant_id = $1 AND current_version_id = $2
"""
TABLES = "content.stories, content.story_versions, content.story_tags, content.tags, content.search_documents"
OURS = f"SELECT id FROM content.stories WHERE current_version_id = '{VERSION}'"
REMOVE = (
    f"DELETE FROM content.story_tags WHERE tag_id IN ('{TAG}', '{OTHER_TAG}')",
    f"DELETE FROM content.tags WHERE id = '{TAG}'",
    f"DELETE FROM content.search_documents WHERE id IN ({OURS})",
    f"DELETE FROM content.stories WHERE current_version_id = '{VERSION}'",
    f"DELETE FROM content.story_versions WHERE id = '{VERSION}'",
)
EXPLAIN = """
CREATE FUNCTION pg_temp.plan_of(statement text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE found json;
BEGIN
  EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || statement INTO found;
  RETURN found;
END $$
"""


@pytest.fixture(scope="module")
async def plan_of(school: School) -> AsyncIterator[Any]:
    """Makes a plan for whatever values a statement has, as the service's role, over many rows of the school's."""
    cluster, tenant = school.stack.cluster, UUID(school.teacher.tenant_id)
    superuser = await asyncpg.connect(cluster.superuser_url)
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute(VERSIONS, tenant, VERSION)
    await superuser.execute(STORIES, tenant, ROWS, LESSON, VERSION)
    await superuser.execute(TAGS, tenant, TAG)
    await superuser.execute(TAGGED, tenant, [TAG, OTHER_TAG], VERSION)
    await superuser.execute(DOCUMENTS, tenant, VERSION)
    await superuser.execute(f"ANALYZE {TABLES}")
    role = await asyncpg.connect(cluster.url(role_of("content")))
    # Tables of a few rows are read whole, unless that is out of the question.
    await role.execute(f"SET app.tenant_id = '{tenant}'; SET enable_seqscan = off; {EXPLAIN}")

    async def plan(statement: str) -> Any:
        (whole,) = json.loads(await role.fetchval("SELECT pg_temp.plan_of($1)", statement))
        return whole["Plan"]

    yield plan
    await role.close()
    for statement in (*REMOVE, f"ANALYZE {TABLES}"):
        await superuser.execute(statement)
    await superuser.close()


def nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def steps(plan: Any) -> list[str]:
    """How tables are read: by which index, and on what conditions."""
    found = []
    for node in nodes(plan):
        if "Scan" in node["Node Type"] and node["Node Type"] not in {"Bitmap Heap Scan", "Function Scan", "CTE Scan"}:
            where = node.get("Index Name") or f"all of {node.get('Relation Name')}"
            found.append(f"{where}: {node.get('Index Cond', '')}")
    return found


def request(**wanted: Any) -> stories_pb2.ListStoriesRequest:
    return stories_pb2.ListStoriesRequest(**wanted)


TITLES = "ix_stories_tenant_id_title_key_id"
LISTS = {
    "newest": (request(), "pk_stories", ""),
    "oldest": (request(order_by="create_time"), "pk_stories", ""),
    "by title": (request(order_by="title"), TITLES, ""),
    "beginning so": (request(query="ab"), TITLES, "title_key >="),
    "beginning so, by title": (request(query="a", order_by="title"), TITLES, "title_key >="),
    "of a lesson": (request(lesson_id=str(LESSON)), "ix_stories_tenant_id_lesson_id", "lesson_id ="),
    "with a tag": (request(tag_id=str(TAG)), "ix_story_tags_tenant_id_tag_id_story_id", "tag_id ="),
    "published": (request(status="STORY_STATUS_PUBLISHED"), "pk_stories", ""),
}


class TestLists:
    @pytest.mark.parametrize("name", LISTS)
    async def test_go_through_an_index(self, name: str, teacher: Author, statements: Any, plan_of: Any) -> None:
        wanted, index, condition = LISTS[name]
        with statements() as sent:
            await teacher.stories.ListStories(wanted)
        found = steps(await plan_of(sent[0]))
        assert any(one.startswith(index) and condition in one for one in found), found
        assert not [one for one in found if one.startswith("all of")], found

    @pytest.mark.parametrize("name", ["newest", "oldest", "by title"])
    async def test_go_on_where_the_page_before_ended(
        self, name: str, teacher: Author, statements: Any, plan_of: Any
    ) -> None:
        wanted, index, _ = LISTS[name]
        first = await teacher.stories.ListStories(wanted)
        after = request()
        after.CopyFrom(wanted)
        after.page_token = first.next_page_token
        with statements() as sent:
            await teacher.stories.ListStories(after)
        plan = await plan_of(sent[0])
        (found,) = [one for one in steps(plan) if one.startswith(index)]
        assert "ROW(" in found or "id <" in found or "id >" in found, found
        assert "Sort" not in {node["Node Type"] for node in nodes(plan)}

    async def test_of_tags_go_through_an_index(self, teacher: Author, statements: Any, plan_of: Any) -> None:
        with statements() as sent:
            await teacher.person.stub(TagServiceStub, "content").ListTags(tags_pb2.ListTagsRequest())
        assert steps(await plan_of(sent[0]))


class TestSearches:
    async def test_find_candidates_by_words_and_look_at_those_alone(
        self, teacher: Author, statements: Any, plan_of: Any
    ) -> None:
        stub = teacher.person.stub(SearchServiceStub, "content")
        types = [search_pb2.SearchType.SEARCH_TYPE_STORY]
        with statements() as sent:
            await stub.Search(search_pb2.SearchRequest(query="c4ca4238a0b923820dcc509a6f75849b", types=types))
        tables = [one for one in sent if "content.stories" in one]
        assert tables
        for statement in tables:
            found = steps(await plan_of(statement))
            assert any("ANY" in one for one in found), found
            assert not [one for one in found if one.startswith("all of")], found

    async def test_need_operators_that_row_level_security_keeps_from_indexes(self, tables: Any, plan_of: Any) -> None:
        """Why functions of the owner look for the candidates: should this fail, they can go."""
        operators = ("pg_catalog.ts_match_vq", "extensions.word_similarity_op")
        for name in operators:
            assert not await tables.fetchval("SELECT proleakproof FROM pg_proc WHERE oid = $1::regproc", name)
        for condition in ("words @@ 'abc'", "'abcd' OPERATOR(extensions.<%) title_key"):
            statement = f"SELECT id FROM content.search_documents WHERE tenant_id = '{TAG}' AND {condition}"
            assert not [one for one in steps(await plan_of(statement)) if "abc" in one]

    async def test_ask_functions_for_no_more_than_ids_of_their_own_tenant(self, school: School, plan_of: Any) -> None:
        role = await asyncpg.connect(school.stack.cluster.url(role_of("content")))
        kinds = ["story", "course", "lesson", "vocabulary"]
        finds = "SELECT ids FROM content.find_documents($1::text::tsquery, $2, 100000)"
        for tenant, some in ((school.teacher.tenant_id, True), (str(VERSION), False)):
            await role.execute(f"SET app.tenant_id = '{tenant}'")
            assert bool(await role.fetch(finds, "c:*", kinds)) is some
        await role.execute("RESET app.tenant_id")
        with pytest.raises(asyncpg.PostgresError, match=r"app\.tenant_id|invalid input syntax"):
            await role.fetch(finds, "c:*", kinds)
        await role.close()
