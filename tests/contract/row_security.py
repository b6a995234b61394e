"""A lint of the catalog: what would let one tenant reach another's rows. Each finding is one line of text."""

from typing import Any

import asyncpg

from kit.migrations import INFRASTRUCTURE, OWNER, role_of
from kit.settings import SERVICES

# Read across tenants by design: they tell that something changed, never what.
ACROSS_TENANTS = {(name, table) for name in SERVICES for table in INFRASTRUCTURE} | {("identity", "access_revisions")}
POLICY = "(tenant_id = (current_setting('app.tenant_id'::text))::uuid)"
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
EXCESSIVE_RIGHTS = ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")

TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.oid, c.relrowsecurity, c.relforcerowsecurity, c.relispartition,
       r.rolname AS owner,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull) AS scoped,
       EXISTS (SELECT FROM aclexplode(c.relacl) g WHERE g.grantee = 0) AS open_to_all
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY ($1) ORDER BY 1, 2
"""
POLICIES = """
SELECT p.polname, p.polcmd::text AS command, p.polpermissive, p.polroles = '{0}' AS for_all_roles,
       pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS with_check
FROM pg_policy p WHERE p.polrelid = $1
"""
INDEXES = """
SELECT i.indexrelid::regclass::text AS name, i.indisunique, a.attname = 'tenant_id' AS leads
FROM pg_index i LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE i.indrelid = $1
"""
# Also exclusion constraints, which are as unseen by policies as unique ones.
FOREIGN_KEYS = """
SELECT o.conname, pg_get_constraintdef(o.oid) AS definition, o.conkey, o.confdeltype::text AS on_delete, o.confdelsetcols,
       o.confrelid::regclass::text AS parent,
       EXISTS (SELECT FROM generate_subscripts(o.conkey, 1) i
               JOIN pg_attribute mine ON mine.attrelid = o.conrelid AND mine.attnum = o.conkey[i]
               JOIN pg_attribute theirs ON theirs.attrelid = o.confrelid AND theirs.attnum = o.confkey[i]
               WHERE mine.attname = 'tenant_id' AND theirs.attname = 'tenant_id') AS carries_tenant,
       (SELECT relnamespace FROM pg_class WHERE oid = o.confrelid)
         = (SELECT relnamespace FROM pg_class WHERE oid = o.conrelid) AS same_schema,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.conrelid AND i.indpred IS NULL
               AND (SELECT array_agg(k ORDER BY k) FROM unnest((i.indkey::int2[])[0:cardinality(o.conkey) - 1]) k)
                 = (SELECT array_agg(k ORDER BY k) FROM unnest(o.conkey) k)) AS indexed
FROM pg_constraint o WHERE o.conrelid = $1 AND o.contype = 'f'
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
UNION ALL
SELECT 'view that runs as its owner: ' || c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1) AND (c.relkind = 'm' OR c.relkind = 'v'
  AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false))
UNION ALL
SELECT 'object in the public schema: ' || c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
"""


async def lint(database: asyncpg.Connection) -> list[str]:
    """Every hole, as the superuser sees the catalog; empty when there is none."""
    found = [row[0] for row in await database.fetch(OTHER_OBJECTS, list(SERVICES))]
    for table in await database.fetch(TABLES, list(SERVICES)):
        name = f"{table['schema']}.{table['name']}"
        found += [f"{name}: {what}" for what in await _table_findings(database, table)]
    found += await _role_findings(database)
    return found


async def _table_findings(database: asyncpg.Connection, table: Any) -> list[str]:
    found = await _right_findings(database, table)
    if (table["schema"], table["name"]) in ACROSS_TENANTS:
        return found
    if not table["scoped"]:
        return [*found, "has no tenant_id"]
    found += [] if table["relrowsecurity"] else ["row-level security is off"]
    found += [] if table["relforcerowsecurity"] else ["row-level security is not forced"]
    found += _policy_findings(await database.fetch(POLICIES, table["oid"]))
    for index in await database.fetch(INDEXES, table["oid"]):
        if not index["leads"]:
            found.append(f"index {index['name']} does not lead with tenant_id")
    for key in await database.fetch(FOREIGN_KEYS, table["oid"]):
        found += [f"foreign key {key['conname']} {what}" for what in _key_findings(key)]
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


async def _right_findings(database: asyncpg.Connection, table: Any) -> list[str]:
    found = [] if table["owner"] == OWNER else [f"is owned by {table['owner']}"]
    found += ["is open to every role"] if table["open_to_all"] else []
    name = f"{table['schema']}.{table['name']}"
    for service in SERVICES:
        held = await database.fetchval(
            "SELECT array_agg(r) FROM unnest($3::text[]) r WHERE has_table_privilege($1, $2::regclass, r)"
            " OR r = ANY ('{SELECT,INSERT,UPDATE,REFERENCES}') AND has_any_column_privilege($1, $2::regclass, r)",
            role_of(service), name, [*RIGHTS, *EXCESSIVE_RIGHTS],
        )  # fmt: skip
        own = service == table["schema"] and not table["relispartition"] and table["name"] != "alembic_version"
        if extra := set(held or ()) - (set(RIGHTS) if own else set()):
            found.append(f"{role_of(service)} may {', '.join(sorted(extra))}")
    return found


async def _role_findings(database: asyncpg.Connection) -> list[str]:
    roles = [role_of(service) for service in SERVICES]
    rows = await database.fetch(ROLES, roles)
    found = [f"role {row['rolname']}: {what}" for row in rows for what, bad in row.items() if bad is True]
    found += [f"role {role} is missing" for role in roles if role not in {row["rolname"] for row in rows}]
    for service in SERVICES:
        for schema in (*SERVICES, "public"):
            rights = ("CREATE",) if schema == service else ("CREATE", "USAGE")
            for right in rights:
                if await database.fetchval("SELECT has_schema_privilege($1, $2, $3)", role_of(service), schema, right):
                    found.append(f"role {role_of(service)} has {right} on schema {schema}")
    return found
