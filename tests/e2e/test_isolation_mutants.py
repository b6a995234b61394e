"""Two layers keep tenants apart, the queries' own predicate and row-level security: either alone is enough, and what
these tests ask sees when both are gone, table by table."""

import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from google.protobuf.descriptor import MethodDescriptor
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

from kit.call import current_call
from kit.settings import SERVICES
from tests.contract.answers import answer
from tests.contract.population import Population, fresh
from tests.e2e.test_isolation import LISTS, READS, Attempts, aimed, filled, secrets
from tests.profile import PROOF
from tests.stack import Stack

GETS: list[MethodDescriptor] = [param.values[0] for param in READS]
ALL: list[MethodDescriptor] = [param.values[0] for param in LISTS]
# Found in lists of the platform's, which are no tenant's, all but the log: of that and its checkpoints, everybody
# sees the newest.
ELSEWHERE = {"GetTenant", "ListTenants", "ListAuditLogs", "ListCheckpoints", "ListParkedEvents"}
# Tables that are always read together with another one, whose tenant the statement or the one before it says too; or
# that hold nothing that could be recognised.
BESIDES = {
    "approval_decisions": "approvals",
    "cohort_members": "cohorts",
    "course_access": "the caller's own courses",
    "daily_activity": "figures, by the ids of learners that another statement found",
    "invitations": "users",
    "past_results": "attempts",
    "question_versions": "questions",
    "quiz_results": "attempts",
    "resource_policy_versions": "resource_policies",
    "responses": "attempts",
    "retention_changes": "a number alone",
    "role_permissions": "roles",
    "search_documents": "what is found by them",
    "stories": "story_versions",
    "story_words": "figures, by the ids of stories that another statement found",
    "subject_keys": "audit_logs",
    "tenant_listings": "the platform's own list",
    "user_roles": "users",
}
POLICIES = """
SELECT c.oid::regclass::text AS table FROM pg_class c
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND c.relrowsecurity
"""
# The condition of the policies, as functions that run as the tables' owner apply it themselves.
IN_FUNCTIONS = re.compile(r"\w+\.tenant_id = current_setting\('app\.tenant_id'\)::uuid")
FUNCTIONS = """
SELECT pg_get_functiondef(p.oid) FROM pg_proc p
WHERE p.pronamespace::regnamespace::text = ANY ($1) AND p.prosecdef AND p.prosrc LIKE '%app.tenant_id%'
"""
PREDICATE = re.compile(r'(?<![\w.])((?:\w+\.)?(\w+)\.)?tenant_id = (\$\d+)(::UUID)?(?![\w.])')
# A table of ours in a statement, and what the statement calls it; a keyword, where it has no other name.
NAMED = re.compile(rf"\b(?:{'|'.join(SERVICES)})\.(\w+)(?:\s+(?:AS\s+)?(\w+))?")
# What services know of who calls, and of the policies that bind them, stays right: without, nobody gets to ask.
OF_CALLERS = re.compile(r"AS tenant_status|SELECT (?!.*revision).*FROM identity\.resource_policies", re.DOTALL)

# On one worker, whose services they share.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mutants")]


@asynccontextmanager
async def without_policies(stack: Stack) -> AsyncIterator[None]:
    """Row-level security is off, as for a table that was forgotten."""
    superuser = await asyncpg.connect(stack.cluster.superuser_url)
    tables = [row["table"] for row in await superuser.fetch(POLICIES, list(SERVICES))]
    try:
        for table in tables:
            await superuser.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        yield
    finally:
        for table in tables:
            await superuser.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        await superuser.close()


@asynccontextmanager
async def without_conditions(stack: Stack) -> AsyncIterator[None]:
    """What runs as the tables' owner, which policies do not bind, has forgotten to ask for the tenant itself."""
    superuser = await asyncpg.connect(stack.cluster.superuser_url)
    functions = [row[0] for row in await superuser.fetch(FUNCTIONS, list(SERVICES))]
    try:
        for function in functions:
            changed, count = IN_FUNCTIONS.subn("true", function)
            assert count, function
            await superuser.execute(changed)
        yield
    finally:
        for function in functions:
            await superuser.execute(function)
        await superuser.close()


def tables_by_name(query: str) -> dict[str, str]:
    """The tables of a statement by what it calls them; a statement about one table alone need not name it."""
    named = NAMED.findall(query)
    names = {alias or table: table for table, alias in named}
    return names | {"": named[0][0]} if len({table for table, _ in named}) == 1 else names


@contextmanager
def without_predicates(
    population: Population, monkeypatch: pytest.MonkeyPatch, table: str = ""
) -> Iterator[list[str]]:
    """What services ask for the other tenant's people says no tenant any more: none of it, or what is about one table.

    What they do meanwhile of their own accord stays as it is: an erasure without a tenant would erase everybody."""
    changed: list[str] = []
    asking = UUID(population.theirs.admin.tenant_id)
    # Where SQLAlchemy looks for what it has prepared, and where the driver does.
    doors = ((AsyncAdapt_asyncpg_connection, "_prepare"), (asyncpg.Connection, "_get_statement"))

    def strip(names: dict[str, str], found: re.Match[str]) -> str:
        about = names.get(found[2] or "", found[2] or "")
        if table and about != table:
            return found[0]
        changed.append(about)
        # The parameter stays, and with it the number of all the others.
        return f"({found[3]}::uuid IS NOT NULL)"

    def changed_text(query: str) -> str:
        call = current_call()
        if call is None or call.principal is None or call.principal.tenant_id != asking or OF_CALLERS.search(query):
            return query
        return PREDICATE.sub(partial(strip, tables_by_name(query)), query)

    def mutated(original: Any) -> Any:
        return lambda self, query, *args, **kwargs: original(self, changed_text(query), *args, **kwargs)

    with monkeypatch.context() as patch:
        for owner, name in doors:
            patch.setattr(owner, name, mutated(getattr(owner, name)))
        yield changed


async def leaks(population: Population) -> dict[str, list[str]]:
    """By RPC, what the other tenant's administrator learns of ours by asking for it.

    The tenants are new for each test: others write ids of ours into rows of theirs, which tell of them rightly."""
    ours, theirs = population.ours, population.theirs
    found: dict[str, list[str]] = {}
    for rpc in GETS:
        attempts = Attempts(secrets(ours))
        for foreign, absent in aimed(rpc, ours, theirs):
            await attempts.compare(theirs.admin, rpc, foreign, absent)
        if attempts.findings:
            found[rpc.name] = attempts.findings
    for rpc in ALL:
        for whose in (theirs, ours):
            shown = await answer(theirs.admin, rpc, filled(rpc, whose, page_size=100))
            # Their own audit log tells of the questions asked here.
            if rpc.name != "ListAuditLogs" and (told := shown.holds(secrets(ours))):
                found[rpc.name] = told
    return found


class TestEitherLayer:
    async def test_alone_tells_nothing(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        population = await fresh(stack)
        assert await leaks(population) == {}, "with both"
        async with without_policies(stack), without_conditions(stack):
            assert await leaks(population) == {}, "by predicates alone"
        with without_predicates(population, monkeypatch) as changed:
            assert await leaks(population) == {}, "by policies alone"
            async with without_conditions(stack):
                assert await leaks(population) == {}, "by the tables' policies alone"
        assert len(set(changed)) > 20, "they were not taken out"

    async def test_is_missed_everywhere_when_both_are_gone(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        population = await fresh(stack)
        asked = {rpc.name for rpc in (*GETS, *ALL)} - ELSEWHERE
        with without_predicates(population, monkeypatch):
            async with without_policies(stack), without_conditions(stack):
                found = await leaks(population)
        sys.stdout.write(f"{len(asked & found.keys())} of {len(asked)} RPCs tell all when both layers are gone\n")
        assert asked - found.keys() == set()

    async def test_is_missed_on_each_table(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        """One predicate forgotten: what policies would still catch, the same questions find without them."""
        population = await fresh(stack)
        with without_predicates(population, monkeypatch) as every:
            await leaks(population)
        tables = sorted(set(every) - BESIDES.keys() - {""})
        survivors = []
        for table in tables if PROOF else tables[:: len(tables) // 3]:
            with without_predicates(population, monkeypatch, table):
                async with without_policies(stack):
                    if not await leaks(population):
                        survivors.append(table)
        sys.stdout.write(f"{len(tables)} tables' predicates can be forgotten: {', '.join(tables)}\n")
        assert not survivors, ", ".join(survivors)
