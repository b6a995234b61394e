"""StatementService: what learners did, for the learning record store of a school."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToDict

from kit import audit
from kit.access import may, require
from kit.auth import current, renew
from kit.db import Database
from kit.ids import NIL
from kit.limiter import Limiter
from kit.models import now
from services.learning import xapi
from services.learning.models import Statement
from services.learning.queries import statements as queries
from services.learning.queries.statements import Deed, Place
from storyloom.learning.v1 import statements_pb2
from storyloom.learning.v1.statements_pb2 import ExportStatementsRequest, ExportStatementsResponse

JSON_TYPE = "application/jsonl"
ROWS_AT_ONCE = 250
# However many exports there are, they leave the connections and the processor to others most of the time.
BATCHES_AT_ONCE, LONGEST_WAIT_SECONDS = 2, 30.0
# What a transaction stores, it stores with a time at which others have not seen it yet. None takes as long as this.
SETTLED = timedelta(seconds=30)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# Behind all sources.
LAST = 9


class StatementService:
    SERVICE = statements_pb2.DESCRIPTOR.services_by_name["StatementService"]

    def __init__(self, db: Database, *, issuer: str) -> None:
        self.db, self.base = db, xapi.home_page(issuer)
        self.turns = Limiter(BATCHES_AT_ONCE, LONGEST_WAIT_SECONDS)

    async def ExportStatements(
        self, request: ExportStatementsRequest, context: Any
    ) -> AsyncIterator[ExportStatementsResponse]:
        user_id = _whose(request)
        require("export", Statement(user_id=user_id))
        place, until, count = _begin(request), _end(request), 0
        async with self.db.write() as session:
            filters = MessageToDict(request, preserving_proto_field_name=True)
            filters |= {"user_id": str(user_id)} if user_id else {}
            audit.write(session, "export", "statement", NIL, new=filters, subject_id=user_id)
        # Not a byte leaves before it is written down that it does.
        more = True
        while more:
            deeds = await self._page(place, until, user_id)
            more = len(deeds) == ROWS_AT_ONCE
            place = deeds[-1].place if more else max(place, Place(until, LAST, NIL), key=_order)
            lines = [xapi.statement(self.base, _told(one)) for one in _exported(deeds)]
            count += len(lines)
            yield _piece(lines, place, count, complete=not more)

    async def _page(self, place: Place, until: datetime, user_id: UUID | None) -> Sequence[Deed]:
        """Each page is a transaction of its own: who reads slowly keeps no connection, and no turn."""
        async with self.turns.slot(current().tenant_id):
            await renew()
            require("export", Statement(user_id=user_id))
            async with self.db.read() as session:
                return await queries.list_deeds(session, place, until, ROWS_AT_ONCE, user_id=user_id)


def _whose(request: ExportStatementsRequest) -> UUID | None:
    """The user whose statements are asked for, or None for those of all; who may not export those means their own."""
    if request.user_id:
        return UUID(request.user_id)
    return None if may("export", Statement(user_id=None)) else current().subject


def _begin(request: ExportStatementsRequest) -> Place:
    if not request.cursor:
        since = request.since.ToDatetime(UTC) if request.HasField("since") else EPOCH
        return Place(since, LAST, NIL)
    stored, source, last = request.cursor.split("-")
    return Place(EPOCH + int(stored) * MICROSECOND, int(source), UUID(last))


def _end(request: ExportStatementsRequest) -> datetime:
    settled = now() - SETTLED
    return min(request.until.ToDatetime(UTC), settled) if request.HasField("until") else settled


def _order(place: Place) -> tuple[datetime, int, UUID]:
    return place.stored, place.source, place.id


def _exported(deeds: Sequence[Deed]) -> Iterable[Deed]:
    """Those that no policy keeps from the caller: neither one of access nor, of results, the review policy of the
    quiz."""
    own = None if may("export", Statement(user_id=None)) else current().subject
    return (
        one for one in deeds if may("export", one, resource="statement") and not (one.hidden and one.user_id == own)
    )


def _told(deed: Deed) -> xapi.Told:
    ids = {name.removesuffix("_id"): value for name, value in deed.said.items() if name.endswith("_id") and value}
    if deed.course_id:
        ids["course"] = str(deed.course_id)
    names = {"lesson": deed.lesson_title or "", "course": deed.course_title or ""}
    return xapi.Told(
        row_id=deed.place.id,
        verb=deed.verb,
        user_id=deed.user_id,
        happened=deed.happened,
        stored=deed.place.stored,
        ids=ids,
        names=names,
        said=deed.said,
    )


def _piece(lines: Iterable[dict[str, Any]], place: Place, count: int, *, complete: bool) -> ExportStatementsResponse:
    cursor = f"{(place.stored - EPOCH) // MICROSECOND}-{place.source}-{place.id.hex}"
    last: dict[str, Any] = {"cursor": cursor}
    if complete:
        last["complete"] = True
    text = "".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n" for one in (*lines, last))
    body = HttpBody(content_type=JSON_TYPE, data=text.encode())
    return ExportStatementsResponse(body=body, cursor=cursor, statement_count=count, complete=complete)
