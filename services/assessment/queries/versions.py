"""Versions of questions, remembered: they never change, and every learner of a quiz needs the same ones."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from kit.db import ReadSession
from services.assessment.bodies import Body

# Of all texts together; parsed they take some three times as much memory.
MOST_CHARACTERS = 4_000_000
VERSIONS = """
SELECT id, question_id, version, body::text AS body FROM assessment.question_versions
WHERE tenant_id = $1 AND id = ANY($2)
"""


class Version(NamedTuple):
    question_id: UUID
    version: int
    body: Body


class Remembered:
    """The versions that were used last, by tenant and id."""

    def __init__(self) -> None:
        self._characters = 0
        self._known: OrderedDict[tuple[UUID, UUID], tuple[Version, int]] = OrderedDict()

    async def get(self, session: ReadSession, version_ids: Iterable[UUID]) -> dict[UUID, Version]:
        """These versions of the session's tenant, in one statement at most."""
        tenant_id, found, missing = session.tenant_id, {}, []
        for one in version_ids:
            if known := self._known.get((tenant_id, one)):
                self._known.move_to_end((tenant_id, one))
                found[one] = known[0]
            else:
                missing.append(one)
        for row in await session.fetch(VERSIONS, missing) if missing else ():
            found[row.id] = Version(row.question_id, row.version, json.loads(row.body))
            self._keep((tenant_id, row.id), found[row.id], len(row.body))
        return found

    def _keep(self, key: tuple[UUID, UUID], version: Version, size: int) -> None:
        self._known[key] = version, size
        self._characters += size
        while self._characters > MOST_CHARACTERS:
            _, (_, gone) = self._known.popitem(last=False)
            self._characters -= gone


REMEMBERED = Remembered()
