"""What a regrade does to results: every attempt is graded again on what it keeps, before and after."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from services.assessment import rules
from services.assessment.regrading import Change, Tally, fits, in_force
from services.assessment.rules import Item, Outcome


class Grader:
    """Grades what attempts keep with these regrades, and these versions of questions by id."""

    def __init__(self, changes: Collection[Change], versions: Mapping[UUID, Any]) -> None:
        self.changes, self.versions = changes, versions
        self._known: dict[UUID, Change | None] = {}

    def change(self, version_id: UUID) -> Change | None:
        """The regrade that counts for the version."""
        if version_id not in self._known:
            self._known[version_id] = in_force(self.changes, *self.versions[version_id])
        return self._known[version_id]

    def item(self, version_id: UUID, points: Decimal, answer: Sequence[str] | None) -> Item:
        """The item of an attempt, with the regrade that counts for it."""
        question_id, version, body = self.versions[version_id]
        return Item(question_id, version_id, version, body, points, answer, self.change(version_id))

    def outcome(self, row: Any) -> Outcome:
        """The outcome of an attempt by what it keeps. `answers` are JSON text, by version."""
        answers = json.loads(row.answers) if row.answers else {}
        pins = zip(row.version_ids, row.points, strict=True)
        items = [self.item(version_id, points, answers.get(str(version_id))) for version_id, points in pins]
        return rules.graded(items, row.pass_mark)


class Effect:
    """What one regrade does to attempts, after those before it; `pinned` are the versions of its question that attempts
    keep, by id, each with the question, its number and what it says."""

    def __init__(self, change: Change, others: Iterable[Change], pinned: Mapping[UUID, Any]) -> None:
        earlier = [one for one in others if one.number < change.number]
        self.change, self.tally = change, Tally()
        self.versions = dict(pinned)
        self.before, self.after = Grader(earlier, self.versions), Grader([*earlier, change], self.versions)
        self.version_ids = [one for one, (_, version, _) in pinned.items() if version <= change.version]
        self.unfitting = {one for one in self.version_ids if not self._fits(one)}

    def _fits(self, version_id: UUID) -> bool:
        return self.change.key is None or fits(self.versions[version_id][2], self.change.key)

    def of(self, rows: Iterable[Any]) -> list[tuple[Any, Outcome]]:
        """Those of the attempts whose results change, with the new ones. Counts all of them."""
        changed = []
        for row in rows:
            self.tally.attempts += 1
            if outcome := self._changed(row):
                self.tally.count(row, outcome)
                changed.append((row, outcome))
        return changed

    def _changed(self, row: Any) -> Outcome | None:
        at = next(at for at, one in enumerate(row.version_ids) if one in self.version_ids)
        version_id, points = row.version_ids[at], row.points[at]
        if version_id in self.unfitting:
            self.tally.unfitting += 1
            return None
        answer = json.loads(row.answers).get(str(version_id)) if row.answers else None
        items = (one.item(version_id, points, answer) for one in (self.before, self.after))
        before, after = (rules.graded([item], row.pass_mark).detail for item in items)
        return None if before == after else self.after.outcome(row)
