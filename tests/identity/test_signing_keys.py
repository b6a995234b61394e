"""SigningKeyService: the next key, brought forward by those who run the platform."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kit.models import now
from services.identity import rules
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1.signing_keys_pb2 import RotateSigningKeyRequest, SigningKey
from storyloom.identity.v1.signing_keys_pb2_grpc import SigningKeyServiceStub
from storyloom.identity.v1.users_pb2 import GetMeRequest
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.stack import PLATFORM_EMAIL, Person, School, refused

STATE = "SELECT state FROM identity.signing_keys WHERE id = $1"


async def rotate(person: Person) -> SigningKey:
    return await person.stub(SigningKeyServiceStub, "identity").RotateSigningKey(RotateSigningKeyRequest())


@pytest.fixture
async def table(school: School) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    await connection.execute("DELETE FROM identity.signing_keys WHERE state = 'published'")
    yield connection
    await connection.close()


class TestRotateSigningKey:
    async def test_publishes_a_key_that_signs_once_everybody_knows_it(self, school: School, table: Any) -> None:
        key = await rotate(school.root)
        assert await table.fetchval(STATE, UUID(key.id)) == "published"
        waits = key.sign_time.ToDatetime() - key.create_time.ToDatetime()
        assert waits == rules.PUBLISHED_BEFORE_USE
        keyring = school.stack.services["identity"].keyring  # type: ignore[attr-defined]
        await keyring.load()
        assert key.id in {one["kid"] for one in (await keyring.jwks())["keys"]}

    async def test_is_followed_by_tokens_of_that_key_while_those_before_stay_good(
        self, school: School, table: Any
    ) -> None:
        key = await rotate(school.root)
        earlier = "UPDATE identity.signing_keys SET created_at = created_at - $2::interval WHERE id = $1"
        await table.execute(earlier, UUID(key.id), rules.PUBLISHED_BEFORE_USE)
        keyring = school.stack.services["identity"].keyring  # type: ignore[attr-defined]
        await keyring.step(now())
        await keyring.load()
        assert await table.fetchval(STATE, UUID(key.id)) == "active"
        for person in (school.root, await school.stack.sign_in("platform", PLATFORM_EMAIL)):
            await person.stub(UserServiceStub, "identity").GetMe(GetMeRequest())

    async def test_asked_for_twice_is_one_rotation(self, school: School, table: Any) -> None:
        assert await rotate(school.root) == await rotate(school.root)

    async def test_is_in_the_log_of_the_platform(self, school: School, table: Any) -> None:
        key = await rotate(school.root)
        await school.settle()
        stub = school.root.stub(AuditLogServiceStub, "audit")
        (entry,) = (await stub.ListAuditLogs(ListAuditLogsRequest(entity_id=key.id))).audit_logs
        assert (entry.action, entry.entity_type, entry.user_id) == ("rotate", "signing_key", school.root.user_id)

    async def test_is_for_super_administrators_of_the_platform_only(self, school: School) -> None:
        for person in (school.admin, school.teacher, school.auditor, school.student):
            async with refused("PERMISSION_REQUIRED"):
                await rotate(person)
