"""Refuses migrations that keep others waiting or break the release before: `python -m tools.lint_migrations`."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from kit import migrations
from kit.settings import SERVICES

# The newest migrations that no installation with people in it was ever without. What comes after them is looked at.
SETTLED = {
    "identity": "202611221430",
    "content": "202611221600",
    "learning": "202611221630",
    "assessment": "202611221540",
    "audit": "202611221430",
}
SQUAWK = Path(sys.executable).with_name("squawk")
# Integers are as wide as what they count; helpers that leave the transaction see for themselves what is there already.
UNASKED = ("prefer-bigint-over-int", "prefer-bigint-over-smallint", "prefer-text-field", "prefer-robust-stmts")
# A migration is taken back after the release that came with it: nobody uses what it made.
THINGS = ("column", "constraint", "default", "function", "not-null", "policy", "sequence", "table", "trigger")
UNASKED_ON_THE_WAY_BACK = tuple(f"ban-drop-{one}" for one in THINGS)
# Of statements that are no change of a table; everything else is about rows, and that is a job.
VERBS = {"ALTER", "BEGIN", "COMMENT", "COMMIT", "CREATE", "DROP", "GRANT", "RESET", "REVOKE", "SET"}
COMMENT = re.compile(r"\A(\s*--[^\n]*\n?)*\s*")
OWN_BOOKS = re.compile(r"(UPDATE|INSERT INTO|DELETE FROM) \w+\.alembic_version ")


def problems(service: str, after: str, *, also: Path | None = None) -> Iterator[str]:
    """What is wrong with the service's migrations after this one, as text to be read."""
    script = ScriptDirectory.from_config(migrations.config(service, "", also=also))
    for revision in script.iterate_revisions("head", after):
        for down in (False, True):
            yield from _problems(service, revision, down=down, also=also)


def _problems(service: str, revision: Script, *, down: bool, also: Path | None) -> Iterator[str]:
    name = f"{service}.{Path(revision.path).stem}.{'downgrade' if down else 'upgrade'}"
    between = (str(revision.down_revision or "base"), revision.revision)
    try:
        sql = migrations.statements(service, ":".join(reversed(between) if down else between), down=down, also=also)
    except (AttributeError, CommandError) as error:
        yield f"{name}: it cannot be shown as SQL, because it looks at the database: {error}\n"
        return
    for statement in sql.split(";\n\n"):
        bare = COMMENT.sub("", statement)
        if bare and bare.split()[0].upper() not in VERBS and not OWN_BOOKS.match(bare):
            yield f"{name}: changes rows; that is the business of a job, not of a migration\n  {bare}\n"
    lines = sql.splitlines()
    for one in _squawk(sql, UNASKED + UNASKED_ON_THE_WAY_BACK * down):
        advice = f"  {one['help']}\n" if one["help"] else ""
        yield f"{name}: {one['rule_name']}: {one['message']}\n  {lines[one['line']].strip()}\n{advice}"


def _squawk(sql: str, unasked: tuple[str, ...]) -> list[dict[str, Any]]:
    command = [str(SQUAWK), "--pg-version=18.0", "--reporter=json", f"--exclude={','.join(unasked)}"]
    told = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
    # It fails when it has found something; with anything else it has nothing to say.
    found: list[dict[str, Any]] = json.loads(told.stdout)
    return found


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = [problem for service in SERVICES for problem in problems(service, SETTLED[service])]
    sys.stdout.write("".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
