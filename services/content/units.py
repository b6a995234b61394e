"""Units."""

from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.db import Database, ReadSession, WriteSession
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.content import rules
from services.content.announcements import announce_lessons, announce_units
from services.content.lessons import lesson_to_proto
from services.content.models import Course, Lesson, Unit
from services.content.queries import batches, courses, hiding, positions, purging, units
from storyloom.content.v1 import units_pb2
from storyloom.content.v1.units_pb2 import Unit as UnitMessage

WRITABLE = ("title", "description", "position")


class UnitService:
    SERVICE = units_pb2.DESCRIPTOR.services_by_name["UnitService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateUnit(self, request: units_pb2.CreateUnitRequest, context: Any) -> UnitMessage:
        sent = request.unit
        unit = Unit(
            course_id=UUID(sent.course_id), title=sent.title, description=sent.description, position=sent.position
        )
        require("create", unit)
        async with self.db.write() as session:
            course = await courses.find_course(session, Course.id == unit.course_id)
            if course is None or course.deleted_at is not None:
                raise rules.missing("course")
            rules.check_open("course", course.status)
            moved = await positions.settle(session, Unit.course_id, unit)
            session.add(unit)
            return await _record(session, Action.CREATE, unit, *moved)

    async def GetUnit(self, request: units_pb2.GetUnitRequest, context: Any) -> UnitMessage:
        async with self.db.read() as session:
            row = await units.get_unit(session, UUID(request.id))
            await _require_as_of_course(session, "read", row, row.course_status)
        return unit_to_proto(row)

    async def BatchGetUnits(
        self, request: units_pb2.BatchGetUnitsRequest, context: Any
    ) -> units_pb2.BatchGetUnitsResponse:
        async with self.db.read() as session:
            rows = await batches.read_units(session, list(map(UUID, request.ids)))
        return units_pb2.BatchGetUnitsResponse(units=map(unit_to_proto, rows))

    async def ListUnits(self, request: units_pb2.ListUnitsRequest, context: Any) -> units_pb2.ListUnitsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            course = await courses.get_course(session, UUID(request.course_id))
            await _require_as_of_course(session, "list", Unit(course_id=course.id), course.status)
            rows = await units.list_units(session, course.id, page)
        rows, token = page.split(rows, lambda row: (row.position, row.id))
        return units_pb2.ListUnitsResponse(units=map(unit_to_proto, rows), next_page_token=token)

    async def UpdateUnit(self, request: units_pb2.UpdateUnitRequest, context: Any) -> UnitMessage:
        async with self.db.write() as session:
            unit, course = await units.lock_unit(session, UUID(request.unit.id))
            require("update", unit)
            check_etag(unit, request.unit.etag)
            rules.check_open("course", course.status)
            before, moved = unit.position, []
            fieldmask.apply(unit, request.unit, request.update_mask, WRITABLE)
            if unit.position != before:
                moved = [unit.id, *await positions.settle(session, Unit.course_id, unit)]
            return await _record(session, Action.UPDATE, unit, *moved)

    async def DeleteUnit(self, request: units_pb2.DeleteUnitRequest, context: Any) -> UnitMessage:
        async with self.db.write() as session:
            unit, _ = await units.lock_unit(session, UUID(request.id))
            require("delete", unit)
            check_etag(unit, request.etag)
            unit.deleted_at = now()
            message = await _record(session, Action.DELETE, unit)
            await hiding.mark_unit(session, unit.id, None, unit.deleted_at)
            return message

    async def UndeleteUnit(self, request: units_pb2.UndeleteUnitRequest, context: Any) -> UnitMessage:
        async with self.db.write() as session:
            unit, course = await units.lock_unit(session, UUID(request.id), deleted=True)
            require("undelete", unit)
            check_etag(unit, request.etag)
            rules.check_deleted("unit", unit.deleted_at, "course", parent_deleted=course.deleted_at is not None)
            await hiding.mark_unit(session, unit.id, unit.deleted_at, None)
            before = unit.position
            await positions.return_to(session, Unit.course_id, unit)
            unit.deleted_at = None
            return await _record(session, Action.UNDELETE, unit, *([unit.id] if unit.position != before else ()))

    async def ReorderLessons(
        self, request: units_pb2.ReorderLessonsRequest, context: Any
    ) -> units_pb2.ReorderLessonsResponse:
        wanted = list(map(UUID, request.lesson_ids))
        async with self.db.write() as session:
            unit, course = await units.lock_unit(session, UUID(request.id))
            require("update", unit)
            check_etag(unit, request.etag)
            rules.check_open("course", course.status)
            await announce_lessons(session, await positions.reorder(session, unit, Lesson.unit_id, wanted))
            rows = await batches.read_lessons(session, wanted)
        return units_pb2.ReorderLessonsResponse(lessons=map(lesson_to_proto, rows), etag=unit.etag)

    async def PurgeUnit(self, request: units_pb2.PurgeUnitRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            unit, _ = await units.lock_unit(session, UUID(request.id), deleted=True)
            await purging.purge(session, unit, request.etag)
        return Empty()


async def _require_as_of_course(session: ReadSession, action: str, unit: Any, course_status: str) -> None:
    """Units are like their course; which courses the caller takes is looked up only where that decides."""
    known: dict[str, Any] = {"course.status": course_status}
    if not may(action, unit, resource="unit", known=known):
        known["user.course_ids"] = await courses.list_taken_courses(session)
    require(action, unit, resource="unit", known=known)


async def _record(session: WriteSession, action: Action, unit: Unit, *moved: UUID) -> UnitMessage:
    """Audits and writes the change, and announces the units that it moved; returns the unit as it is now."""
    audit.record(session, action, unit)
    await session.flush()
    await announce_units(session, unit.course_id, moved)
    return unit_to_proto(unit)


def unit_to_proto(row: Any) -> UnitMessage:
    """Of the entity, or of a row of its columns."""
    message = UnitMessage(
        id=str(row.id),
        course_id=str(row.course_id),
        title=row.title,
        description=row.description,
        position=row.position,
        etag=str(row.revision),
    )
    set_times(message, row)
    return message
