"""Calls of people who ask for approvals and decide on them, and what came of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.audit.v1.approvals_pb2 import (
    Approval,
    ApproveApprovalRequest,
    CreateApprovalRequest,
    GetApprovalRequest,
    ListApprovalsRequest,
    RejectApprovalRequest,
    WithdrawApprovalRequest,
)
from storyloom.audit.v1.approvals_pb2_grpc import ApprovalServiceStub
from storyloom.audit.v1.audit_logs_pb2 import AuditLog, ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1.stories_pb2 import CreateStoryRequest, PublishStoryRequest, Story, UpdateStoryRequest
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.content.v1.story_versions_pb2 import GetStoryVersionRequest, StoryVersion
from storyloom.content.v1.story_versions_pb2_grpc import StoryVersionServiceStub
from storyloom.identity.v1.tenants_pb2 import GetMyTenantRequest, Tenant, UpdateTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from tests.stack import Person, School


def approvals(person: Person) -> ApprovalServiceStub:
    return person.stub(ApprovalServiceStub, "audit")


async def write_story(author: Person) -> Story:
    story = Story(title="Con mèo", language="vi", learning_language="en", text=f"Con mèo ngủ. {uuid4()}")
    return await author.stub(StoryServiceStub, "content").CreateStory(CreateStoryRequest(story=story))


async def edit_story(author: Person, story: Story) -> Story:
    edited = Story(id=story.id, text=f"Con mèo thức dậy. {uuid4()}")
    request = UpdateStoryRequest(story=edited, update_mask=FieldMask(paths=["text"]))
    return await author.stub(StoryServiceStub, "content").UpdateStory(request)


async def publish_story(person: Person, story: Story, version_id: str = "") -> Story:
    request = PublishStoryRequest(id=story.id, version_id=version_id)
    return await person.stub(StoryServiceStub, "content").PublishStory(request)


async def version_of(person: Person, version_id: str) -> StoryVersion:
    stub = person.stub(StoryVersionServiceStub, "content")
    return await stub.GetStoryVersion(GetStoryVersionRequest(id=version_id, with_contributors=True))


async def requested(
    person: Person,
    entity_id: str,
    comment: str = "",
    entity_type: str = "story_version",
    due: datetime | None = None,
    **call: Any,
) -> Approval:
    approval = Approval(entity_type=entity_type, entity_id=entity_id, comment=comment)
    if due is not None:
        approval.due_time.FromDatetime(due)
    return await approvals(person).CreateApproval(CreateApprovalRequest(approval=approval), **call)


async def pending(school: School) -> Approval:
    """An approval that the teacher asked for a new story of theirs."""
    story = await write_story(school.teacher)
    return await requested(school.teacher, story.current_version.id)


async def approve(person: Person, approval: Approval, **values: str) -> Approval:
    return await approvals(person).ApproveApproval(ApproveApprovalRequest(id=approval.id, **values))


async def reject(person: Person, approval: Approval, **values: str) -> Approval:
    return await approvals(person).RejectApproval(RejectApprovalRequest(id=approval.id, **values))


async def withdraw(person: Person, approval: Approval, **values: str) -> Approval:
    return await approvals(person).WithdrawApproval(WithdrawApprovalRequest(id=approval.id, **values))


async def got(person: Person, approval: Approval) -> Approval:
    return await approvals(person).GetApproval(GetApprovalRequest(id=approval.id))


async def listed(person: Person, **filters: Any) -> list[Approval]:
    return list((await approvals(person).ListApprovals(ListApprovalsRequest(**filters))).approvals)


async def entries(school: School, approval: Approval, entity_type: str = "approval") -> list[AuditLog]:
    """What the log says of the approval, oldest first."""
    await school.settle()
    stub = school.auditor.stub(AuditLogServiceStub, "audit")
    request = ListAuditLogsRequest(entity_type=entity_type, entity_id=approval.id)
    return list(reversed((await stub.ListAuditLogs(request)).audit_logs))


async def in_tables(school: School, statement: str, *values: Any) -> list[Any]:
    """The rows of a statement of the database's superuser."""
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


async def heard_by_content(school: School) -> int:
    """How many events content has received."""
    await school.settle()
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM content.inbox"))
    finally:
        await connection.close()


async def outcomes(*calls: Awaitable[Any]) -> list[str]:
    """'' for each call that succeeded, the code's name for each other, sorted."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return sorted(one.code().name if isinstance(one, grpc.aio.AioRpcError) else "" for one in results)


@asynccontextmanager
async def quorum(school: School, number: int) -> AsyncIterator[None]:
    """The tenant asks for so many people meanwhile."""
    stub = school.admin.stub(TenantServiceStub, "identity")

    async def change(to: int) -> None:
        tenant = await stub.GetMyTenant(GetMyTenantRequest())
        tenant.settings.approval_quorum = to
        changed = Tenant(id=tenant.id, settings=tenant.settings)
        await stub.UpdateTenant(UpdateTenantRequest(tenant=changed, update_mask=FieldMask(paths=["settings"])))

    await change(number)
    try:
        yield
    finally:
        await change(1)
