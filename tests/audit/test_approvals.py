"""Approvals, requested for real story versions."""

from typing import Any
from uuid import uuid4

import pytest
from buf.validate import validate_pb2

from services.audit.approvals import approvables
from storyloom.audit.v1.approvals_pb2 import (
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_PENDING,
    APPROVAL_STATE_WITHDRAWN,
    Approval,
    CreateApprovalRequest,
    ListApprovalsRequest,
)
from tests.audit.calls import (
    approvals,
    approve,
    entries,
    got,
    listed,
    outcomes,
    pending,
    reject,
    requested,
    withdraw,
    write_story,
)
from tests.stack import School, refused


class TestCreateApproval:
    async def test_is_bound_to_what_the_version_says(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id, "Xin xem giúp")
        assert approval.content_hash == story.current_version.content_hash
        assert approval.state == APPROVAL_STATE_PENDING
        assert (approval.requester_id, approval.comment, approval.quorum) == (school.teacher.user_id, "Xin xem giúp", 1)
        assert await got(school.teacher, approval) == approval

    async def test_takes_nothing_but_entity_and_comment_from_the_client(self, school: School) -> None:
        story = await write_story(school.teacher)
        forged = Approval(
            entity_type="story_version",
            entity_id=story.current_version.id,
            state=APPROVAL_STATE_APPROVED,
            requester_id=school.student.user_id,
            content_hash="f" * 64,
            quorum=9,
        )
        approval = await approvals(school.teacher).CreateApproval(CreateApprovalRequest(approval=forged))
        assert (approval.state, approval.quorum) == (APPROVAL_STATE_PENDING, 1)
        assert approval.requester_id == school.teacher.user_id
        assert approval.content_hash == story.current_version.content_hash

    async def test_is_recorded(self, school: School) -> None:
        approval = await pending(school)
        (entry,) = await entries(school, approval)
        assert (entry.action, entry.user_id) == ("create", school.teacher.user_id)
        assert entry.new_values["content_hash"] == approval.content_hash
        assert entry.new_values["state"] == "pending"

    async def test_refuses_a_second_one_while_the_first_is_pending_or_granted(self, school: School) -> None:
        approval = await pending(school)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await requested(school.teacher2, approval.entity_id)
        await approve(school.teacher2, approval)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await requested(school.teacher, approval.entity_id)

    async def test_may_be_asked_again_after_a_rejection(self, school: School) -> None:
        approval = await pending(school)
        await reject(school.teacher2, approval)
        again = await requested(school.teacher, approval.entity_id)
        assert (again.state, again.content_hash) == (APPROVAL_STATE_PENDING, approval.content_hash)

    async def test_of_two_at_once_one_is_made(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        people = (school.teacher, school.teacher2, school.admin)
        assert await outcomes(*(requested(one, version_id) for one in people)) == ["", *["ALREADY_EXISTS"] * 2]

    async def test_is_made_once_for_an_idempotency_key(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        key = (("idempotency-key", str(uuid4())),)
        first = await requested(school.teacher, version_id, metadata=key)
        assert await requested(school.teacher, version_id, metadata=key) == first

    async def test_refuses_a_version_that_the_caller_cannot_see(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        async with refused("RESOURCE_NOT_FOUND"):
            await requested(school.outsider_teacher, version_id)
        async with refused("RESOURCE_NOT_FOUND"):
            await requested(school.teacher, str(uuid4()))

    async def test_refuses_who_may_not_ask(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        for person in (school.student, school.auditor):
            async with refused("PERMISSION_REQUIRED"):
                await requested(person, version_id)

    def test_knows_every_kind_that_the_contract_admits(self, school: School) -> None:
        options: Any = Approval.DESCRIPTOR.fields_by_name["entity_type"].GetOptions().Extensions[validate_pb2.field]
        admitted = getattr(options.string, "in")
        assert sorted(approvables(school.stack.services["audit"].clients)) == sorted(admitted)

    @pytest.mark.parametrize(
        ("field", "value"), [("entity_type", "story"), ("entity_type", ""), ("entity_id", "1"), ("comment", "a\0b")]
    )
    async def test_refuses_wrong_values(self, school: School, field: str, value: str) -> None:
        values = {"entity_type": "story_version", "entity_id": str(uuid4())} | {field: value}
        async with refused("INVALID_FIELD"):
            await approvals(school.teacher).CreateApproval(CreateApprovalRequest(approval=Approval(**values)))


class TestGetApproval:
    async def test_refuses_who_neither_asked_nor_may_read_all(self, school: School) -> None:
        approval = await pending(school)
        async with refused("PERMISSION_REQUIRED"):
            await got(school.student, approval)

    async def test_does_not_know_that_of_another_tenant(self, school: School) -> None:
        approval = await pending(school)
        async with refused("RESOURCE_NOT_FOUND") as foreign:
            await got(school.outsider_admin, approval)
        async with refused("RESOURCE_NOT_FOUND") as absent:
            await got(school.outsider_admin, Approval(id=str(uuid4())))
        assert foreign.status == absent.status


class TestListApprovals:
    async def test_filters_and_gives_the_decisions(self, school: School) -> None:
        one, two = await pending(school), await pending(school)
        two = await reject(school.teacher2, two, comment="Chưa được")
        assert await listed(school.teacher2, entity_id=two.entity_id) == [two]
        waiting = await listed(school.teacher2, state=APPROVAL_STATE_PENDING, requester_id=school.teacher.user_id)
        assert one in waiting
        assert two not in waiting
        assert await listed(school.teacher2, requester_id=school.teacher2.user_id, entity_id=one.entity_id) == []
        assert (await listed(school.teacher2, entity_type="story_version", page_size=2)) == [two, one]

    async def test_pages(self, school: School) -> None:
        made = [await pending(school) for _ in range(3)]
        stub = approvals(school.teacher)
        first = await stub.ListApprovals(ListApprovalsRequest(page_size=2))
        second = await stub.ListApprovals(ListApprovalsRequest(page_size=1, page_token=first.next_page_token))
        assert [*first.approvals, *second.approvals] == [*reversed(made)]

    async def test_shows_learners_none_of_others(self, school: School) -> None:
        await pending(school)
        assert await listed(school.student) == []

    async def test_shows_nothing_of_another_tenant(self, school: School) -> None:
        approval = await pending(school)
        assert await listed(school.outsider_admin, entity_id=approval.entity_id) == []


class TestWithdrawApproval:
    async def test_takes_it_back(self, school: School) -> None:
        approval = await withdraw(school.teacher, await pending(school), comment="Còn sửa")
        assert (approval.state, approval.withdrawal_comment) == (APPROVAL_STATE_WITHDRAWN, "Còn sửa")
        assert await got(school.teacher, approval) == approval
        assert [entry.action for entry in await entries(school, approval)] == ["create", "withdraw"]
        async with refused("WRONG_STATE"):
            await approve(school.teacher2, approval)

    async def test_only_by_the_requester(self, school: School) -> None:
        approval = await pending(school)
        for person in (school.teacher2, school.admin, school.student):
            async with refused("PERMISSION_REQUIRED"):
                await withdraw(person, approval)

    async def test_refuses_one_that_is_decided_or_changed(self, school: School) -> None:
        approval = await pending(school)
        async with refused("STALE_ETAG"):
            await withdraw(school.teacher, approval, etag="0")
        await approve(school.teacher2, approval)
        async with refused("WRONG_STATE"):
            await withdraw(school.teacher, approval)
