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
# As PostgreSQL reads a text: what is quoted, remarks within remarks, words, which may have a dollar within.
TOKEN = re.compile(
    r"--[^\n]*|(?P<remark>/\*)|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
    r"|(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)|(?P<word>[^\W\d][\w$]*)|\s+|.",
    re.DOTALL,
)
REMARK = re.compile(r"/\*|\*/")
DEEPER = {"(": 1, ")": -1, "case": 1, "end": -1}
OWN_BOOKS = re.compile(r"(UPDATE|INSERT INTO|DELETE FROM) \w+\.alembic_version ")


def problems(service: str, after: str, *, also: Path | None = None) -> Iterator[str]:
    """What is wrong with the service's migrations after this one, as text to be read."""
    script = ScriptDirectory.from_config(migrations.config(service, "", also=also))
    for revision in script.iterate_revisions("head", after):
        for down in (False, True):
            yield from _problems(service, revision, down=down, also=also)


def _problems(service: str, revision: Script, *, down: bool, also: Path | None) -> Iterator[str]:
    name = f"{service}.{Path(revision.path).stem}.{'downgrade' if down else 'upgrade'}"
    between = [str(revision.down_revision or "base"), revision.revision]
    try:
        executed = migrations.statements(service, ":".join(between[:: -1 if down else 1]), down=down, also=also)
    except (AttributeError, CommandError) as error:
        yield f"{name}: it cannot be shown as SQL, because it looks at the database: {error}\n"
        return
    for text in executed:
        first, *others = split(text) or [""]
        yield from (f"{name}: a second statement in one text: execute each for itself\n  {one}\n" for one in others)
        for bare in filter(None, (COMMENT.sub("", one) for one in (first, *others))):
            if bare.split()[0].upper() not in VERBS and not OWN_BOOKS.match(bare):
                yield f"{name}: changes rows; that is the business of a job, not of a migration\n  {bare}\n"
    sql = "".join(executed)
    lines = sql.splitlines()
    for one in _squawk(sql, UNASKED + UNASKED_ON_THE_WAY_BACK * down):
        advice = f"  {one['help']}\n" if one["help"] else ""
        yield f"{name}: {one['rule_name']}: {one['message']}\n  {lines[one['line']].strip()}\n{advice}"


def split(sql: str) -> list[str]:
    """The statements of a text, without the semicolons between them; remarks alone are none."""
    found, start, at, depth, before = [], 0, 0, 0, ""
    while token := TOKEN.match(sql, at):
        text, at = token[0].lower(), token.end()
        if token["remark"]:
            at = _after_remark(sql, at)
        elif text == ";" and not depth:
            found += [sql[start : at - 1].strip()] if before else []
            start, before = at, ""
        elif not text.isspace() and not text.startswith("--"):
            # In parentheses (of a rule) and in BEGIN ATOMIC … END (of a function) semicolons end no statement.
            depth += DEEPER.get(text, 0) if depth or text == "(" else (before, text) == ("begin", "atomic")
            before = text
    return [*found, sql[start:].strip()] if before else found


def _after_remark(sql: str, at: int) -> int:
    """Where a remark ends that began before."""
    open_ones = 1
    while open_ones and (mark := REMARK.search(sql, at)):
        open_ones, at = open_ones + (1 if mark[0] == "/*" else -1), mark.end()
    return at if not open_ones else len(sql)


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
