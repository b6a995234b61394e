"""What services of this process ask their databases, and which of it does not say for which tenant."""

import json
import re
from typing import Any

import asyncpg
import pytest

from kit.settings import SERVICES

# As tests write it that take predicates away to see who notices.
MUTATED = re.compile(r"\(\$\d+::uuid IS NOT NULL\)")
SERVICE = "storyloom-"
CONDITIONS = ("Index Cond", "Filter", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "TID Cond")
PLANNED = ("SELECT", "WITH", "UPDATE", "DELETE", "INSERT", "MERGE")
# Plans that show every condition beside the table it binds. A function, because the driver would want the statement's
# values.
PREPARATION = """
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
CREATE FUNCTION pg_temp.plan(statement text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  found json;
BEGIN
  EXECUTE 'EXPLAIN (GENERIC_PLAN, VERBOSE, FORMAT JSON) ' || statement INTO found;
  RETURN found;
END $$
"""
EQUAL = re.compile(r"tenant_id = (?!ANY)|= (?:\w+\.)?tenant_id\b")
PARTITION = re.compile(r"_(\d{4}_\d\d|default)$")


def record_statements(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The texts of the statements with parameters that services send from now on."""
    found: set[str] = set()
    original = asyncpg.Connection._get_statement

    async def get_statement(self: Any, query: str, *arguments: Any, **named: Any) -> Any:
        name = (self._params.server_settings or {}).get("application_name", "")
        if name.removeprefix(SERVICE) in SERVICES and not MUTATED.search(query):
            found.add(query)
        return await original(self, query, *arguments, **named)

    monkeypatch.setattr(asyncpg.Connection, "_get_statement", get_statement)
    return found


async def without_tenant(superuser: asyncpg.Connection, statement: str) -> list[str]:
    """The tables that the statement reads or changes in no tenant in particular, by PostgreSQL's own plan of it.

    A table's rows are of one tenant when a condition on their tenant_id is part of reading them. The superuser's plans
    have no policies in them.
    """
    if not statement.lstrip().upper().startswith(PLANNED):
        return []
    plan = json.loads(await superuser.fetchval("SELECT pg_temp.plan($1)", statement))
    return sorted(set(_unbound(plan[0]["Plan"])))


def _unbound(node: dict[str, Any]) -> list[str]:
    said = " ".join(str(node[name]) for name in CONDITIONS if name in node)
    below = " ".join(_index_conditions(node))
    found = []
    # What inserts says the tenant, because that is never null and has no default.
    reads = "Relation Name" in node and node["Node Type"] != "ModifyTable" and node["Schema"] != "pg_catalog"
    if reads and not EQUAL.search(f"{said} {below}"):
        found.append(f"{node['Schema']}.{PARTITION.sub('', node['Relation Name'])}")
    for child in node.get("Plans", ()):
        found += _unbound(child)
    return found


def _index_conditions(node: dict[str, Any]) -> list[str]:
    """Those of the bitmaps that a scan of a heap is made of."""
    kinds = {"Bitmap Index Scan", "BitmapAnd", "BitmapOr"}
    children = [child for child in node.get("Plans", ()) if child["Node Type"] in kinds]
    return [str(child.get("Index Cond", "")) for child in children] + [
        one for child in children for one in _index_conditions(child)
    ]
