"""What other services' events leave here, in whatever order they come."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kit.ids import new_id
from services.content import projections
from storyloom.audit.v1.approvals_pb2 import ApprovalState
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.event.v1.events_pb2 import Event
from storyloom.identity.v1.events_pb2 import TenantChanged
from storyloom.identity.v1.tenants_pb2 import TenantSettings
from storyloom.learning.v1.events_pb2 import EnrollmentChanged
from tests.content.conftest import Author
from tests.stack import School

APPROVED, REJECTED = ApprovalState.APPROVAL_STATE_APPROVED, ApprovalState.APPROVAL_STATE_REJECTED


async def project(school: School, handler: Any, payload: Any, tenant_id: str = "") -> None:
    """Has the handler take in the payload, in a transaction of the school's tenant or of the one given."""
    db = school.stack.services["content"].db
    async with db.open_write(UUID(tenant_id or school.teacher.tenant_id)) as session:
        await handler(session, Event(), payload)
        await db.commit(session)


class TestEnrollmentChanged:
    @pytest.mark.parametrize("ended_last", [True, False])
    async def test_a_second_enrolment_counts_whenever_the_end_of_the_first_is_told(
        self, school: School, tables: "asyncpg.Connection[asyncpg.Record]", ended_last: bool
    ) -> None:
        user, course, first, second = (str(new_id()) for _ in range(4))
        events = [
            EnrollmentChanged(enrollment_id=first, user_id=user, course_id=course, active=False),
            EnrollmentChanged(enrollment_id=second, user_id=user, course_id=course, active=True),
        ]
        for event in reversed(events) if ended_last else events:
            await project(school, projections.on_enrollment_changed, event)
        count = "SELECT count(*) FROM content.course_access WHERE user_id = $1 AND course_id = $2 AND active"
        assert await tables.fetchval(count, user, course) == 1

    async def test_told_twice_it_is_there_once(
        self, school: School, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        enrollment, user, course = (str(new_id()) for _ in range(3))
        event = EnrollmentChanged(enrollment_id=enrollment, user_id=user, course_id=course, active=True)
        for _ in range(2):
            await project(school, projections.on_enrollment_changed, event)
        assert await tables.fetchval("SELECT count(*) FROM content.course_access WHERE user_id = $1", user) == 1


class TestTenantChanged:
    async def test_new_settings_take_the_place_of_old_ones(
        self, school: School, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        tenant = str(new_id())
        for required, language in ((True, "vi"), (False, "fr")):
            settings = TenantSettings(story_language=language, learning_language="en", approval_required=required)
            await project(school, projections.on_tenant_changed, TenantChanged(settings=settings), tenant)
        (row,) = await tables.fetch("SELECT * FROM content.tenant_settings WHERE tenant_id = $1", tenant)
        assert (str(row["id"]), row["approval_required"], row["story_language"]) == (tenant, False, "fr")


class TestApprovalDecided:
    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({}, True),
            ({"content_hash": "0" * 64}, False),
            ({"state": REJECTED}, False),
            ({"entity_type": "quiz_version"}, False),
            ({"entity_id": str(new_id())}, False),
        ],
    )
    async def test_binds_what_was_granted_to_the_content_it_was_granted_for(
        self, school: School, teacher: Author, changes: dict[str, Any], wanted: bool
    ) -> None:
        story = await teacher.story()
        approval = {
            "approval_id": str(new_id()),
            "entity_type": "story_version",
            "entity_id": story.current_version.id,
            "content_hash": story.current_version.content_hash,
            "state": APPROVED,
        }
        await project(school, projections.on_approval_decided, ApprovalDecided(**(approval | changes)))
        version = (await teacher.read(story.id)).current_version
        assert version.approved is wanted
        assert version.approval_id == (approval["approval_id"] if wanted else "")

    async def test_of_another_tenant_changes_nothing_here(self, school: School, teacher: Author) -> None:
        version = (await teacher.story()).current_version
        decided = ApprovalDecided(
            approval_id=str(new_id()),
            entity_type="story_version",
            entity_id=version.id,
            content_hash=version.content_hash,
            state=APPROVED,
        )
        await project(school, projections.on_approval_decided, decided, school.outsider.tenant_id)
        assert not (await teacher.read(version.story_id)).current_version.approved
