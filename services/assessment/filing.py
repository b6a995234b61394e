"""What is between files of questions and the bank: drafts that are checked, and the reports that people get."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import uuid4

from services.assessment.bodies import violations
from services.assessment.exchange.drafts import LIMITS, Draft, Imported, Unreadable, Written, identified, numbered
from services.assessment.exchange.formats import FORMATS, recognise
from services.assessment.exchange.report import Kind, Report

# As the table has it, with room for what it puts between the parts.
MOST_PRESERVED_BYTES = 60_000
MOST_KINDS_OF_FINDINGS = 10_000
LONGEST_ELEMENT = 200

Group = tuple[Kind, str, str, str, list[int]]


@dataclass(slots=True)
class Filed:
    """A question of a file: its content as it is stored, or what is wrong with it. `digest` is that of the content."""

    draft: Draft
    body: dict[str, Any]
    preserved: dict[str, Any]
    digest: str
    problem: str


@dataclass(slots=True)
class File:
    """A file that was read."""

    format: str
    title: str
    filed: list[Filed]
    findings: list[Group]
    sha256: str


def read_file(data: bytes, name: str) -> File:
    """The file in this format, or in the one that it seems to be in. Raises `Unreadable`."""
    name = name or recognise(data)
    if not name:
        raise Unreadable("it is in no format that is known here")
    read = FORMATS[name].read(data, LIMITS)
    filed = [_filed(draft, name) for draft in read.drafts]
    return File(name, read.title, filed, _findings(read, filed), sha256(data).hexdigest())


def _filed(draft: Draft, name: str) -> Filed:
    wrong = next(violations(draft.body), None)
    problem = f"{wrong[0]} {wrong[1]}" if wrong else ""
    preserved = {"name": draft.name} | {"points": draft.points} | draft.preserved
    preserved = {key: value for key, value in preserved.items() if value}
    if len(json.dumps(preserved, ensure_ascii=False).encode()) > MOST_PRESERVED_BYTES:
        draft.report = draft.report.lost("there is too much to keep it", Kind.PRESERVED)
        draft.preserved.pop(name, None)
        return _filed(draft, name) if name in preserved else Filed(draft, {}, {}, "", "name is too long")
    content = json.dumps([draft.body, draft.tags, preserved], ensure_ascii=False, sort_keys=True)
    body = draft.body if problem else identified(draft.body, lambda: str(uuid4()))
    return Filed(draft, body, preserved, sha256(content.encode()).hexdigest(), problem)


def _findings(read: Imported, filed: Sequence[Filed]) -> list[Group]:
    """All that became of the file, as people read it."""
    whole = Report([*read.report.findings])
    for one in filed:
        whole.extend(one.draft.report.lost(one.problem) if one.problem else one.draft.report)
    whole.findings.sort(key=lambda found: found.place)
    return grouped(whole)


def grouped(report: Report) -> list[Group]:
    """The findings by kind, element, message and file, with their lines; of what is mapped nobody looks for the file,
    and an archive has one for each question. Raises `Unreadable` when they are too many for anybody to read."""
    found: dict[tuple[Kind, str, str, str], list[int]] = {}
    for one in report.findings:
        file = "" if one.kind is Kind.MAPPED else one.place.file
        key = one.kind, one.element[:LONGEST_ELEMENT], one.message, file
        found.setdefault(key, []).append(one.place.line)
    if len(found) > MOST_KINDS_OF_FINDINGS:
        raise Unreadable(f"it has more than {MOST_KINDS_OF_FINDINGS:,} kinds of elements")
    return [(*key, lines) for key, lines in found.items()]


def draft_of(body: Mapping[str, Any], preserved: Mapping[str, Any], tags: Sequence[str], points: str) -> Draft:
    """A question of the bank on its way out. `points` are those of a quiz; without one, those that it came with."""
    kept = {name: value for name, value in preserved.items() if name not in ("name", "points")}
    return Draft(
        body=numbered(body),
        name=preserved.get("name", ""),
        tags=tuple(tags),
        points=points or preserved.get("points", ""),
        preserved=kept,
    )


def write_file(drafts: Sequence[Draft], name: str, title: str) -> tuple[Written, list[Group]]:
    """The file in this format, and what is not in it."""
    written = FORMATS[name].write(drafts, title)
    return written, grouped(written.report)
