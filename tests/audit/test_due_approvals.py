"""Approvals with a due date: what is not decided on in time has expired, and makes room for another request."""

import asyncio
from datetime import UTC, datetime, timedelta

from storyloom.audit.v1.approvals_pb2 import (
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_EXPIRED,
    APPROVAL_STATE_PENDING,
    APPROVAL_STATE_VOIDED,
    Approval,
)
from tests.audit.calls import (
    approve,
    edit_story,
    entries,
    got,
    in_tables,
    listed,
    pending,
    reject,
    requested,
    withdraw,
    write_story,
)
from tests.stack import School, refused

SOON = timedelta(seconds=1)


async def expired(school: School) -> Approval:
    """An approval whose due date has passed, and nothing has looked at it since."""
    approval = await pending(school)
    await overdue(school, approval)
    return approval


async def overdue(school: School, approval: Approval) -> None:
    statement = "UPDATE audit.approvals SET due_time = now() - interval '1 second' WHERE id = $1::text::uuid"
    await in_tables(school, statement, approval.id)


class TestDueTime:
    async def test_is_kept_and_recorded(self, school: School) -> None:
        due = datetime.now(UTC) + timedelta(days=3)
        version_id = (await write_story(school.teacher)).current_version.id
        approval = await requested(school.teacher, version_id, due=due)
        assert approval.due_time.ToDatetime(tzinfo=UTC) == due
        assert await got(school.teacher, approval) == approval
        (entry,) = await entries(school, approval)
        assert entry.new_values["due_time"] == due.isoformat()

    async def test_lies_in_the_future(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        async with refused("INVALID_FIELD", field="approval.due_time"):
            await requested(school.teacher, version_id, due=datetime.now(UTC) - timedelta(seconds=1))

    async def test_leaves_time_to_decide_until_then(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        approval = await requested(school.teacher, version_id, due=datetime.now(UTC) + SOON)
        assert approval.state == APPROVAL_STATE_PENDING
        await asyncio.sleep(SOON.total_seconds())
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_EXPIRED
        async with refused("WRONG_STATE") as refusal:
            await approve(school.teacher2, approval)
        assert refusal.metadata["state"] == "expired"

    async def test_means_nothing_once_it_is_decided(self, school: School) -> None:
        approval = await approve(school.teacher2, await pending(school))
        await overdue(school, approval)
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_APPROVED


class TestExpired:
    async def test_takes_no_decision_and_no_withdrawal(self, school: School) -> None:
        approval = await expired(school)
        for call in (approve(school.teacher2, approval), reject(school.admin, approval)):
            async with refused("WRONG_STATE"):
                await call
        async with refused("WRONG_STATE"):
            await withdraw(school.teacher, approval)

    async def test_is_found_as_such_and_no_longer_as_pending(self, school: School) -> None:
        approval = await expired(school)
        for state, count in ((APPROVAL_STATE_EXPIRED, 1), (APPROVAL_STATE_PENDING, 0), (APPROVAL_STATE_VOIDED, 0)):
            assert len(await listed(school.teacher2, entity_id=approval.entity_id, state=state)) == count

    async def test_is_found_among_what_falls_due(self, school: School) -> None:
        approval, lasting = await expired(school), await pending(school)
        later = Approval().due_time
        later.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
        soon = await listed(school.teacher2, due_before_time=later, page_size=100)
        assert approval.id in {one.id for one in soon}
        assert lasting.id not in {one.id for one in soon}

    async def test_makes_room_for_another_request(self, school: School) -> None:
        approval = await expired(school)
        again = await requested(school.teacher, approval.entity_id)
        assert again.state == APPROVAL_STATE_PENDING
        assert [entry.action for entry in await entries(school, approval)] == ["create", "expire"]
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_EXPIRED

    async def test_stays_so_when_the_story_is_edited(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        await overdue(school, approval)
        await edit_story(school.teacher, story)
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_EXPIRED
