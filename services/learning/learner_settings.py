"""How learners want to review words."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, ReadSession, WriteSession
from kit.errors import InvalidArgument, NotFound
from kit.ids import NIL
from kit.models import check_etag, now
from services.learning.models import LearnerSettings
from services.learning.queries import learners as queries
from services.learning.queries.daily_activity import recount
from services.learning.scheduling import DEFAULT_MAXIMUM_INTERVAL_DAYS, DEFAULT_RETENTION, last_change
from storyloom.learning.v1 import learner_settings_pb2
from storyloom.learning.v1.learner_settings_pb2 import LearnerSettings as SettingsMessage

WRITABLE = ("desired_retention", "maximum_interval_days", "new_words_per_day", "time_zone")
CONVERT = {
    "desired_retention": lambda text: Decimal(text) if text else None,
    "maximum_interval_days": lambda days: days or DEFAULT_MAXIMUM_INTERVAL_DAYS,
    "time_zone": lambda name: name or "UTC",
}


class LearnerSettingsService:
    SERVICE = learner_settings_pb2.DESCRIPTOR.services_by_name["LearnerSettingsService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetLearnerSettings(
        self, request: learner_settings_pb2.GetLearnerSettingsRequest, context: Any
    ) -> SettingsMessage:
        user_id = UUID(request.user_id)
        require("read", LearnerSettings(user_id=user_id))
        async with self.db.read() as session:
            row = await queries.find_settings(session, user_id)
            common = await _of_tenant(session)
        if row is None and user_id != current().subject:
            raise NotFound("learner_settings")
        return settings_to_proto(row or LearnerSettings(user_id=user_id, revision=0), common)

    async def UpdateLearnerSettings(
        self, request: learner_settings_pb2.UpdateLearnerSettingsRequest, context: Any
    ) -> SettingsMessage:
        wanted = request.learner_settings
        user_id = UUID(wanted.user_id)
        async with self.db.write() as session:
            require("update", LearnerSettings(user_id=user_id))
            if user_id != current().subject:
                raise NotFound("learner_settings")
            await _check_time_zone(session, wanted.time_zone)
            await queries.lock_learner(session, user_id)
            chosen = await _to_change(session, user_id, wanted.etag)
            fresh, zone = chosen.revision is None, chosen.time_zone
            fieldmask.apply(chosen, wanted, request.update_mask, WRITABLE, CONVERT)
            retention, interval = chosen.desired_retention, chosen.maximum_interval_days
            await queries.insert_retention_change(session, user_id, now(), retention, interval)
            audit.record(session, Action.CREATE if fresh else Action.UPDATE, chosen)
            await session.flush()
            if chosen.time_zone != zone:
                await recount(session, user_id)
            common = await _of_tenant(session)
        return settings_to_proto(chosen, common)


async def _to_change(session: WriteSession, user_id: UUID, etag: str) -> LearnerSettings:
    found = await queries.find_settings_to_change(session, user_id)
    if found is None:
        found = LearnerSettings(user_id=user_id)
        session.add(found)
    check_etag(found, etag)
    return found


async def _check_time_zone(session: ReadSession, name: str) -> None:
    if name and not await queries.has_time_zone(session, name):
        raise InvalidArgument.fields([("learner_settings.time_zone", "is no name of a time zone")])


async def _of_tenant(session: ReadSession) -> float:
    at = now()
    _, common = await queries.list_retention_changes(session, NIL, at)
    return last_change(common, at).desired_retention or DEFAULT_RETENTION


def settings_to_proto(row: Any, tenant_desired_retention: float) -> SettingsMessage:
    message = SettingsMessage(
        user_id=str(row.user_id),
        desired_retention="" if row.desired_retention is None else f"{row.desired_retention.normalize()}",
        maximum_interval_days=row.maximum_interval_days,
        new_words_per_day=row.new_words_per_day,
        time_zone=row.time_zone,
        tenant_desired_retention=f"{tenant_desired_retention}",
        etag=str(row.revision or ""),
    )
    if row.revision:
        message.update_time.FromDatetime(row.updated_at)
    return message
