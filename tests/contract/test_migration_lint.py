"""Migrations that would keep others waiting, or break the release before, are refused."""

from pathlib import Path

from tests.contract.tree import ROOT, nothing
from tools.lint_migrations import SETTLED, problems, split

FILE = '''
"""A change."""
from alembic import op
from kit.altering import build_index, drop_index, enforce
revision, down_revision, branch_labels, depends_on = "202701010000", "{before}", None, None
def upgrade():
    {up}
def downgrade():
    {down}
'''
TABLE = "content.vocabularies"
NEW_TABLE = "CREATE TABLE content.shelves (tenant_id uuid NOT NULL, id uuid NOT NULL, size integer NOT NULL)"
# By the rule that refuses it.
REFUSED = {
    f"ALTER TABLE {TABLE} ADD COLUMN rank smallint NOT NULL": "adding-required-field",
    f"ALTER TABLE {TABLE} ADD COLUMN rank uuid NOT NULL DEFAULT uuidv7()": "adding-field-with-default",
    f"ALTER TABLE {TABLE} ADD COLUMN size integer GENERATED ALWAYS AS (1) STORED": "adding-field-with-default",
    f"ALTER TABLE {TABLE} ALTER COLUMN term SET NOT NULL": "adding-not-nullable-field",
    f"ALTER TABLE {TABLE} ADD CONSTRAINT ck CHECK (sense > 0)": "constraint-missing-not-valid",
    f"ALTER TABLE {TABLE} ADD FOREIGN KEY (tenant_id, id) REFERENCES content.stories": "adding-foreign-key-constraint",
    f"ALTER TABLE {TABLE} ADD CONSTRAINT uq UNIQUE (tenant_id, term)": "disallowed-unique-constraint",
    f"CREATE INDEX ix ON {TABLE} (tenant_id, level)": "require-concurrent-index-creation",
    f"CREATE INDEX CONCURRENTLY ix ON {TABLE} (tenant_id, level)": "ban-concurrent-index-creation-in-transaction",
    "DROP INDEX content.ix_vocabularies_one_sense": "require-concurrent-index-deletion",
    f"ALTER TABLE {TABLE} ALTER COLUMN sense TYPE bigint": "changing-column-type",
    f"ALTER TABLE {TABLE} DROP COLUMN sense": "ban-drop-column",
    f"ALTER TABLE {TABLE} RENAME COLUMN sense TO meaning": "renaming-column",
    f"ALTER TABLE {TABLE} RENAME TO words": "renaming-table",
    f"DROP TABLE {TABLE}": "ban-drop-table",
    f"UPDATE {TABLE} SET level = 'A1'": "changes rows",
    f"-- In the hope that nobody looks.\nDELETE FROM {TABLE}": "changes rows",
    f"DO $$ BEGIN DELETE FROM {TABLE}; END $$": "changes rows",
    "SELECT content.fill_in()": "changes rows",
    f"LOCK TABLE {TABLE}": "changes rows",
}
PERMITTED = (
    f"ALTER TABLE {TABLE} ADD COLUMN rank smallint",
    f"ALTER TABLE {TABLE} ADD COLUMN rank smallint NOT NULL DEFAULT 0",
    f"ALTER TABLE {TABLE} ADD CONSTRAINT ck CHECK (sense > 0) NOT VALID",
    f"-- squawk-ignore ban-drop-column\nALTER TABLE {TABLE} DROP COLUMN sense",
)

# Each is one, whatever it holds.
STATEMENTS = (
    "DO $$ BEGIN PERFORM 1; PERFORM 2; END $$",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN x := '$$'; RETURN new; END $body$",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT (2); SELECT 3)",
    "COMMENT ON TABLE t IS 'it''s; --'",
    r"COMMENT ON TABLE t IS E'it\'s; here'",
    'ALTER TABLE "a;""b" ADD COLUMN a$b$c int',
    "-- first; this\nALTER TABLE t /* a; /* b; */ c; */ ADD COLUMN x int",
)


def executed(*statements: str) -> str:
    return "; ".join(f"op.execute({one!r})" for one in statements)


def found(folder: Path, up: str, down: str = "pass") -> list[str]:
    """What is said of a migration that comes after content's own."""
    text = FILE.format(before=max(path.name for path in folders("content"))[:15].replace("_", ""), up=up, down=down)
    (folder / "2027_01_01_0000_change.py").write_text(text)
    return [one for one in problems("content", SETTLED["content"], also=folder) if "2027_01_01" in one]


def folders(service: str) -> list[Path]:
    return list((ROOT / "services" / service / "migrations").glob("*.py"))


class TestStatements:
    def test_that_hold_up_or_break_others_are_refused(self, tmp_path: Path) -> None:
        told = found(tmp_path, executed(*REFUSED))
        for statement, rule in REFUSED.items():
            last = statement.split("\n")[-1]
            assert [one for one in told if f"upgrade: {rule}" in one and last in one], statement

    def test_that_take_a_moment_are_permitted(self, tmp_path: Path) -> None:
        nothing(found(tmp_path, executed(*PERMITTED)))

    def test_about_a_table_that_is_made_with_them_are_permitted(self, tmp_path: Path) -> None:
        index = "CREATE INDEX ix_shelves ON content.shelves (tenant_id, size)"
        key = "ALTER TABLE content.shelves ADD CONSTRAINT pk_shelves PRIMARY KEY (tenant_id, id)"
        nothing(found(tmp_path, executed(NEW_TABLE, key, index), executed("DROP TABLE content.shelves")))

    def test_that_validate_beside_what_adds_them_are_refused(self, tmp_path: Path) -> None:
        both = executed(
            f"ALTER TABLE {TABLE} ADD CONSTRAINT ck CHECK (sense > 0) NOT VALID",
            f"ALTER TABLE {TABLE} VALIDATE CONSTRAINT ck",
        )
        assert "in the same transaction" in found(tmp_path, both)[0]

    def test_that_share_a_text_are_refused(self, tmp_path: Path) -> None:
        both = f"ALTER TABLE {TABLE} ADD COLUMN rank smallint;\n\nALTER TABLE {TABLE} ADD COLUMN place smallint;"
        (one,) = found(tmp_path, executed(both))
        assert one.startswith("content.2027_01_01_0000_change.upgrade: a second statement in one text")
        assert one.endswith("ADD COLUMN place smallint\n")

    def test_are_told_apart_as_postgresql_does(self) -> None:
        for one in STATEMENTS:
            assert split(one) == split(f"{one};\n; -- no more;\n") == [one]
        assert split("; ".join(STATEMENTS)) == list(STATEMENTS)

    def test_of_the_kit_are_permitted(self, tmp_path: Path) -> None:
        up = 'build_index("content", "ix", "vocabularies (tenant_id, level)");'
        up += ' enforce("content", "vocabularies", "ck", "CHECK (sense > 0)")'
        nothing(found(tmp_path, up, 'drop_index("content", "ix")'))

    def test_on_the_way_back_may_drop_what_was_made_but_keep_nobody_waiting(self, tmp_path: Path) -> None:
        nothing(found(tmp_path, "pass", executed(f"ALTER TABLE {TABLE} DROP COLUMN rank")))
        (one,) = found(tmp_path, "pass", executed("DROP INDEX content.ix_vocabularies_one_sense"))
        assert one.startswith("content.2027_01_01_0000_change.downgrade: require-concurrent-index-deletion")

    def test_that_depend_on_what_the_database_holds_are_refused(self, tmp_path: Path) -> None:
        (one, *_) = found(tmp_path, 'op.get_bind().scalar("SELECT 1")')
        assert "cannot be shown as SQL" in one


class TestOurOwn:
    def test_that_are_settled_are_there(self) -> None:
        for service, revision in SETTLED.items():
            assert revision in {path.name[:15].replace("_", "") for path in folders(service)}
