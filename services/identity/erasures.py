"""ErasureService: all about a user exported; users and tenants erased from every service, with receipts."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from kit import audit
from kit.access import denied, require
from kit.auth import current
from kit.clients import Clients
from kit.db import Database, WriteSession, in_tenant
from kit.enums import stored_name
from kit.errors import StoryloomError
from kit.ids import SYSTEM_TENANT
from kit.models import now
from kit.pagination import Page
from kit.settings import SERVICES
from kit.subjects import SubjectService
from services.identity import queries, rules
from services.identity.models import Erasure
from services.identity.users import check_rights
from storyloom.identity.v1 import erasures_pb2
from storyloom.subject.v1 import subjects_pb2
from storyloom.subject.v1.subjects_pb2_grpc import SubjectServiceStub

log = logging.getLogger(__name__)

SELF = "identity"
OTHERS = tuple(name for name in SERVICES if name != SELF)
# By then every service refuses the tokens of whoever is deleted or suspended.
FIRST_AFTER = timedelta(seconds=2)
POLL_SECONDS = 0.5
ASKING_SECONDS = 10.0
# Longer than asking and writing down the answers take together: nobody else asks meanwhile.
LEASE = timedelta(seconds=45)


class ErasureService:
    SERVICE = erasures_pb2.DESCRIPTOR.services_by_name["ErasureService"]

    def __init__(self, db: Database, clients: Clients, own: SubjectService) -> None:
        self.db, self.own = db, own
        self.services: dict[str, Any] = {name: clients.stub(SubjectServiceStub, name) for name in OTHERS}

    async def PurgeUser(self, request: erasures_pb2.PurgeUserRequest, context: Any) -> erasures_pb2.Erasure:
        async with self.db.write() as session:
            user = await queries.get_user(session, UUID(request.user_id), also_deleted=True)
            require("purge", user)
            rules.check_not_self(user.id, current().subject)
            await check_rights(session, user)
            rules.check_deleted(user.status, user.deleted_at)
            return erasure_to_proto(await _begin(session, "user", user.id))

    async def PurgeTenant(self, request: erasures_pb2.PurgeTenantRequest, context: Any) -> erasures_pb2.Erasure:
        if current().home_tenant_id != SYSTEM_TENANT:
            raise denied("tenant", "purge")
        tenant_id = UUID(request.id)
        async with self.db.write(SYSTEM_TENANT) as session:
            async with in_tenant(session, tenant_id):
                tenant = await queries.get_tenant(session)
                rules.check_suspended(tenant.status)
            return erasure_to_proto(await _begin(session, "tenant", tenant_id))

    async def GetErasure(self, request: erasures_pb2.GetErasureRequest, context: Any) -> erasures_pb2.Erasure:
        async with self.db.read() as session:
            row = await queries.get_erasure_row(session, UUID(request.id))
        require("read", row, resource="erasure")
        return erasure_to_proto(row)

    async def ListErasures(
        self, request: erasures_pb2.ListErasuresRequest, context: Any
    ) -> erasures_pb2.ListErasuresResponse:
        page = Page.of(request)
        state = stored_name(erasures_pb2.ErasureState, request.state)
        async with self.db.read() as session:
            rows = await queries.list_erasures(session, page, state=state)
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return erasures_pb2.ListErasuresResponse(erasures=map(erasure_to_proto, rows), next_page_token=token)

    async def ExportUser(
        self, request: erasures_pb2.ExportUserRequest, context: Any
    ) -> AsyncIterator[erasures_pb2.ExportUserResponse]:
        async with self.own.turns.slot(current().tenant_id), self.db.write() as session:
            user = await queries.get_user_row(session, UUID(request.user_id), also_deleted=True)
            require("export", user, resource="user")
            audit.write(session, "export", "user", user.id)
        asked = subjects_pb2.ExportUserRequest(tenant_id=str(current().tenant_id), user_id=request.user_id)
        async for record in self.own.ExportUser(asked, context):
            yield _exported(SELF, record)
        for name, subjects in self.services.items():
            async for record in subjects.ExportUser(asked):
                yield _exported(name, record)


class Eraser:
    """Asks the services to erase until each has given its receipt. Any number of processes may do so at once."""

    def __init__(self, db: Database, clients: Clients, own: SubjectService) -> None:
        self._db, self._own = db, own
        self._services: dict[str, Any] = {name: clients.stub(SubjectServiceStub, name) for name in OTHERS}

    async def run(self) -> None:
        """Looks for what is due, for ever."""
        while True:
            if not await self._carry_on_safely():
                await asyncio.sleep(POLL_SECONDS)

    async def _carry_on_safely(self) -> bool:
        try:
            return await self.carry_on()
        except Exception:
            # Whatever it was, the task is due again when its lease ends.
            log.exception("an erasure did not get further")
            return False

    async def carry_on(self) -> bool:
        """Does the next step of the erasure that is due longest; False when none is due."""
        async with self._db.write(SYSTEM_TENANT) as session:
            task = await queries.claim_task(session, LEASE)
        if task is None:
            return False
        async with self._db.write(task.home_tenant_id) as session:
            erasure = await queries.find_erasure(session, task.id)
            if erasure is None or erasure.state == "done":
                # Its tenant is gone, and it with it.
                await queries.delete_task(session, task.id)
                return True
        progress, done = await self._step(erasure)
        if not done:
            async with self._db.write(SYSTEM_TENANT) as session:
                delay = rules.erasure_delay(task.attempts, progress=progress)
                await queries.put_off(session, task.id, delay, attempts=0 if progress else task.attempts)
        return True

    async def _step(self, erasure: Erasure) -> tuple[bool, bool]:
        """Whether something was achieved, and whether all is done."""
        number, names = rules.to_ask(erasure.receipts, OTHERS)
        if number > 1 and await self._own.is_waiting(*_subject(erasure)):
            return False, False
        if not names:
            receipt = await self._ask(SELF, erasure)
            if receipt is None or not receipt.complete:
                return receipt is not None, False
            await self._finish(erasure, _kept(receipt, number))
            return True, True
        receipts = await asyncio.gather(*(self._ask(name, erasure) for name in names))
        finished = {one.service: _kept(one, number) for one in receipts if one is not None and one.complete}
        if finished:
            async with self._db.write(erasure.tenant_id) as session:
                await _keep(session, erasure.id, finished)
        return None not in receipts, False

    async def _ask(self, name: str, erasure: Erasure) -> subjects_pb2.Receipt | None:
        """The service's receipt; None when it does not answer."""
        tenant_id, user_id = _subject(erasure)
        ids = {"tenant_id": str(tenant_id), "erasure_id": str(erasure.id)}
        verb, request = (
            ("PurgeTenant", subjects_pb2.PurgeTenantRequest(**ids))
            if user_id is None
            else ("EraseUser", subjects_pb2.EraseUserRequest(**ids, user_id=str(user_id)))
        )
        try:
            if name == SELF:
                receipt = await getattr(self._own, verb)(request, None)
            else:
                receipt = await getattr(self._services[name], verb)(request, timeout=ASKING_SECONDS)
        except StoryloomError as error:
            log.warning("a service did not erase", extra={"asked": name, "error": error.message})
            return None
        return cast("subjects_pb2.Receipt", receipt)

    async def _finish(self, erasure: Erasure, own: Mapping[str, Any]) -> None:
        async with self._db.write(erasure.tenant_id) as session:
            kept = await _keep(session, erasure.id, {SELF: own})
            if kept is None:
                return
            kept.state, kept.complete_time = "done", now()
            tenant_id, user_id = _subject(kept)
            async with in_tenant(session, tenant_id):
                await queries.change_access(session, user_id)
            if user_id is None:
                await queries.forget_tenant(session, tenant_id)
            await queries.delete_task(session, kept.id)
            audit.write(session, "erase", kept.subject_type, kept.subject_id, new={"erasure_id": kept.id})


async def _begin(session: WriteSession, subject_type: str, subject_id: UUID) -> Erasure:
    """The erasure under way, or a new one."""
    found = await queries.find_pending_erasure(session, subject_type, subject_id)
    if found is not None:
        return found
    erasure = Erasure(subject_type=subject_type, subject_id=subject_id, requester_id=current().subject)
    await queries.insert_erasure(session, erasure, after=FIRST_AFTER)
    audit.write(session, "purge", subject_type, subject_id, new={"erasure_id": erasure.id})
    await session.flush()
    return erasure


async def _keep(session: WriteSession, erasure_id: UUID, receipts: Mapping[str, Any]) -> Erasure | None:
    erasure = await queries.find_erasure(session, erasure_id)
    if erasure is not None:
        erasure.receipts = {**erasure.receipts, **receipts}
    return erasure


def _subject(erasure: Erasure) -> tuple[UUID, UUID | None]:
    """The tenant, and the user unless all of the tenant is meant: which only the platform's own rows can say."""
    if erasure.subject_type == "tenant" and erasure.tenant_id == SYSTEM_TENANT:
        return erasure.subject_id, None
    return erasure.tenant_id, erasure.subject_id


def _kept(receipt: subjects_pb2.Receipt, number: int) -> dict[str, Any]:
    """A receipt as an erasure keeps it."""
    counts = [{"table": one.table, "action": one.action, "rows": one.rows} for one in receipt.counts]
    return {"round": number, "complete_time": receipt.complete_time.ToJsonString(), "counts": counts}


def _exported(service: str, record: subjects_pb2.ExportedRecord) -> erasures_pb2.ExportUserResponse:
    return erasures_pb2.ExportUserResponse(service=service, kind=record.kind, values=record.values)


def erasure_to_proto(row: Any) -> erasures_pb2.Erasure:
    """Of an erasure or its row. A receipt is shown when its service has finished all rounds."""
    message = erasures_pb2.Erasure(
        id=str(row.id),
        subject_type=f"ERASURE_SUBJECT_{row.subject_type.upper()}",
        subject_id=str(row.subject_id),
        state=f"ERASURE_STATE_{row.state.upper()}",
        requester_id=str(row.requester_id),
        etag=str(row.revision),
        receipts=(
            receipt_to_proto(name, receipt)
            for name, receipt in sorted(row.receipts.items())
            if receipt["round"] >= rules.ERASURE_ROUNDS
        ),
    )
    message.create_time.FromDatetime(row.created_at)
    message.update_time.FromDatetime(row.updated_at)
    if row.complete_time is not None:
        message.complete_time.FromDatetime(row.complete_time)
    return message


def receipt_to_proto(service: str, receipt: Mapping[str, Any]) -> erasures_pb2.ErasureReceipt:
    message = erasures_pb2.ErasureReceipt(service=service, counts=map(_rows_to_proto, receipt["counts"]))
    message.complete_time.FromJsonString(receipt["complete_time"])
    return message


def _rows_to_proto(counted: Mapping[str, Any]) -> erasures_pb2.ErasedRows:
    return erasures_pb2.ErasedRows(**counted)
