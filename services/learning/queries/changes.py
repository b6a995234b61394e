"""What has changed for a learner since they were last told, a part at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, tuple_

from kit.access import visible
from kit.db import ReadSession
from kit.ids import NIL
from services.learning.models import LearningSession, VocabularyProgress
from services.learning.models import Progress as LessonProgress
from services.learning.queries.learners import get_changes
from services.learning.queries.learning_sessions import SESSION
from services.learning.queries.progress import PROGRESS
from services.learning.queries.vocabulary_progress import PROGRESS as WORD

LAST = UUID(int=2**128 - 1)
# The order of the kinds within one change.
KINDS: tuple[tuple[Any, tuple[Any, ...]], ...] = (
    (VocabularyProgress, (*WORD, VocabularyProgress.change)),
    (LessonProgress, (*PROGRESS, LessonProgress.change)),
    (LearningSession, (*SESSION, LearningSession.change)),
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row that the learner was told of: the number of its change, its kind's place in `KINDS`, its id."""

    change: int = -1
    kind: int = 0
    id: UUID = NIL


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows by kind, as they are now; where to go on, and whether there are more already."""

    rows: tuple[list[Any], ...]
    next: Cursor
    more: bool


async def list_changes(session: ReadSession, user_id: UUID, since: Cursor, most: int) -> Changes:
    """The next rows of the learner's, as far as the caller may list them, in the order of their changes.

    Changes are committed in the order of their numbers, so what is there up to the latest is complete.
    """
    latest = await get_changes(session, user_id)
    if since.change > latest:
        # Of a time before the database was restored: the learner is told of everything.
        since = Cursor()
    found: list[tuple[int, int, UUID, Any]] = []
    for kind, (model, columns) in enumerate(KINDS):
        statement = _since(session, model, columns, user_id, kind, since, latest)
        rows = (await session.execute(statement.limit(most + 1))).all()
        found += [(row.change, kind, row.id, row) for row in rows]
    found.sort(key=lambda one: one[:3])
    shown, more = found[:most], len(found) > most
    rows_by_kind = tuple([one[3] for one in shown if one[1] == kind] for kind in range(len(KINDS)))
    return Changes(rows_by_kind, Cursor(*shown[-1][:3]) if more else Cursor(latest, len(KINDS), NIL), more)


def _since(
    session: ReadSession, model: Any, columns: Sequence[Any], user_id: UUID, kind: int, since: Cursor, latest: int
) -> Select[Any]:
    after = LAST if kind < since.kind else since.id if kind == since.kind else NIL
    return (
        select(*columns)
        .where(
            model.tenant_id == session.tenant_id,
            model.user_id == user_id,
            tuple_(model.change, model.id) > (since.change, after),
            model.change <= latest,
            visible("list", model),
        )
        .order_by(model.change, model.id)
    )
