"""A lint of the catalog: what would let one tenant reach another's rows. Each finding is one line of text."""

from typing import Any

import asyncpg

from kit.migrations import INFRASTRUCTURE, OWNER, REPLICATION, role_of
from kit.settings import SERVICES

# Read across tenants by design: they tell that something changed, never what.
ACROSS_TENANTS = {(name, table) for name in SERVICES for table in INFRASTRUCTURE} | {
    ("identity", "access_revisions"),
    ("content", "stored_files"),
    ("audit", "tree_queue"),
    ("audit", "trees"),
    *((name, "jobs") for name in ("content", "learning", "assessment")),
}
# Run as the owner of the tables, because the service that calls them owns none: they make months of the audit log, and
# drop one when every tenant's proofs and holds allow it; or tell jobs which tenant is next. They return no tenant's
# values, and take no text.
AS_OWNER = ["audit.make_months(integer)", "audit.drop_month(date,integer)", "content.next_tenant(uuid)"]
AS_OWNER += ["learning.next_tenant(uuid)", "learning.next_pending_tenant(uuid)", "assessment.next_tenant(uuid)"]
# They look for words by indexes that row-level security keeps from the service: of the setting's tenant, ids alone.
SEARCHED = (("find_documents", "tsquery"), ("find_similar_documents", "text"))
AS_OWNER += [f"content.{name}({what},text[],integer)" for name, what in SEARCHED]
AS_OWNER += ["assessment.find_questions(text[],text[],integer)"]
POLICY = "(tenant_id = (current_setting('app.tenant_id'::text))::uuid)"
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
EXCESSIVE_RIGHTS = ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")

TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.oid, c.relrowsecurity, c.relforcerowsecurity, r.rolname AS owner,
       EXISTS (SELECT FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull) AS scoped,
       EXISTS (SELECT FROM aclexplode(c.relacl) g WHERE g.grantee = 0) AS open_to_all
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY ($1) ORDER BY 1, 2
"""
POLICIES = """
SELECT p.polrelid AS table, p.polcmd::text AS command, p.polpermissive, p.polroles = '{0}' AS for_all_roles,
       pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS with_check
FROM pg_policy p
"""
INDEXES = """
SELECT i.indrelid AS table, i.indexrelid::regclass::text AS name FROM pg_index i
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE a.attname IS DISTINCT FROM 'tenant_id'
"""
# An index serves a key when it begins with the key's columns, or when some of these are already a unique key.
FOREIGN_KEYS = """
SELECT o.conrelid AS table, o.conname, o.confdeltype::text AS on_delete, o.confdelsetcols,
       EXISTS (SELECT FROM generate_subscripts(o.conkey, 1) i
               JOIN pg_attribute mine ON mine.attrelid = o.conrelid AND mine.attnum = o.conkey[i]
               JOIN pg_attribute theirs ON theirs.attrelid = o.confrelid AND theirs.attnum = o.confkey[i]
               WHERE mine.attname = 'tenant_id' AND theirs.attname = 'tenant_id') AS carries_tenant,
       (SELECT relnamespace FROM pg_class WHERE oid = o.confrelid)
         = (SELECT relnamespace FROM pg_class WHERE oid = o.conrelid) AS same_schema,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.conrelid AND i.indpred IS NULL
               AND ((i.indkey::int2[])[0:cardinality(o.conkey) - 1] @> o.conkey
                    OR i.indisunique AND i.indkey::int2[] <@ o.conkey)) AS indexed
FROM pg_constraint o WHERE o.contype = 'f'
"""
RIGHTS_HELD = """
SELECT c.oid::regclass::text AS table, role, array_agg(held ORDER BY held) AS rights
FROM pg_class c, unnest($2::text[]) role, unnest($3::text[]) held
WHERE c.relkind IN ('r', 'p') AND c.relnamespace::regnamespace::text = ANY ($1)
  AND (has_table_privilege(role, c.oid, held)
       OR held IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(role, c.oid, held))
  AND NOT (role = 'storyloom_' || c.relnamespace::regnamespace AND held = ANY ($4) AND NOT c.relispartition
           AND c.relname <> 'alembic_version')
GROUP BY 1, 2
"""
SCHEMA_RIGHTS = """
SELECT format('role %s has %s on schema %s', role, held, s) FROM unnest($1::text[]) role, unnest($2::text[]) s,
       unnest('{CREATE,USAGE}'::text[]) held
WHERE has_schema_privilege(role, s, held) AND NOT (role = 'storyloom_' || s AND held = 'USAGE')
"""
ROLES = """
SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
       EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) AS is_member,
       EXISTS (SELECT FROM pg_shdepend d WHERE d.refobjid = r.oid AND d.refclassid = 'pg_authid'::regclass
               AND d.deptype = 'o') AS owns
FROM pg_roles r WHERE rolname = ANY ($1)
"""
OTHER_OBJECTS = """
SELECT 'native enum type ' || t.oid::regtype FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype = 'e' AND n.nspname = ANY ($1)
UNION ALL
SELECT 'function without its own search_path: ' || p.oid::regprocedure FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = ANY ($1) AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search\\_path=%')
UNION ALL
SELECT 'function that runs as its owner: ' || p.oid::regprocedure FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY ($1) AND p.prosecdef
  AND (p.oid::regprocedure::text <> ALL ($2) OR NOT 'search_path=pg_catalog, pg_temp' = ANY (p.proconfig)
       OR EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g WHERE g.grantee = 0))
UNION ALL
SELECT 'view that runs as its owner: ' || c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1) AND (c.relkind = 'm' OR c.relkind = 'v'
  AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false))
UNION ALL
SELECT 'object in the public schema: ' || c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
"""


async def lint(database: asyncpg.Connection) -> list[str]:
    """Every hole, as the superuser sees the catalog; empty when there is none."""
    found = [row[0] for row in await database.fetch(OTHER_OBJECTS, list(SERVICES), AS_OWNER)]
    details = {query: await _by_table(database, query) for query in (POLICIES, INDEXES, FOREIGN_KEYS)}
    for table in await database.fetch(TABLES, list(SERVICES)):
        findings = _table_findings(table, *(rows.get(table["oid"], []) for rows in details.values()))
        found += [f"{table['schema']}.{table['name']}: {what}" for what in findings]
    return [*found, *await _right_findings(database), *await _role_findings(database)]


async def _by_table(database: asyncpg.Connection, query: str) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in await database.fetch(query):
        found.setdefault(row["table"], []).append(row)
    return found


def _table_findings(table: Any, policies: list[Any], indexes: list[Any], keys: list[Any]) -> list[str]:
    found = [] if table["owner"] == OWNER else [f"is owned by {table['owner']}"]
    found += ["is open to every role"] if table["open_to_all"] else []
    if (table["schema"], table["name"]) in ACROSS_TENANTS:
        return found
    if not table["scoped"]:
        return [*found, "has no tenant_id"]
    found += [] if table["relrowsecurity"] else ["row-level security is off"]
    found += [] if table["relforcerowsecurity"] else ["row-level security is not forced"]
    found += _policy_findings(policies)
    found += [f"index {index['name']} does not lead with tenant_id" for index in indexes]
    found += [f"foreign key {key['conname']} {what}" for key in keys for what in _key_findings(key)]
    return found


def _policy_findings(policies: list[Any]) -> list[str]:
    if len(policies) != 1:
        return [f"has {len(policies)} policies instead of one"]
    policy = policies[0]
    wanted = {"command": "*", "polpermissive": True, "for_all_roles": True, "using": POLICY, "with_check": POLICY}
    return [f"policy {name} is {policy[name]!r}" for name, value in wanted.items() if policy[name] != value]


def _key_findings(key: Any) -> list[str]:
    found = [] if key["carries_tenant"] else ["does not carry the tenant"]
    found += [] if key["same_schema"] else ["leads into another service's schema"]
    found += [] if key["indexed"] else ["has no index"]
    if key["on_delete"] in {"n", "d"} and not key["confdelsetcols"]:
        found.append("would set the tenant to null on delete")
    return found


async def _right_findings(database: asyncpg.Connection) -> list[str]:
    roles = [*(role_of(service) for service in SERVICES), REPLICATION]
    rows = await database.fetch(RIGHTS_HELD, list(SERVICES), roles, [*RIGHTS, *EXCESSIVE_RIGHTS], list(RIGHTS))
    found = [f"role {row['role']} may {', '.join(row['rights'])} on {row['table']}" for row in rows]
    return found + [row[0] for row in await database.fetch(SCHEMA_RIGHTS, roles, [*SERVICES, "public"])]


async def _role_findings(database: asyncpg.Connection) -> list[str]:
    roles = [*(role_of(service) for service in SERVICES), REPLICATION]
    rows = await database.fetch(ROLES, roles)
    found = [
        f"role {row['rolname']}: {what}"
        for row in rows
        for what, bad in row.items()
        if bad is True and (row["rolname"], what) != (REPLICATION, "rolreplication")
    ]
    return found + [f"role {role} is missing" for role in roles if role not in {row["rolname"] for row in rows}]
