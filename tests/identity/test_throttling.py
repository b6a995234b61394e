"""Guessing passwords is slow, and locks nobody out."""

from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2

from storyloom.identity.v1 import sessions_pb2
from tests.stack import PASSWORD, from_address, refused

pytestmark = pytest.mark.usefixtures("forget_failures")


def sign_in(sessions, tenant, email, password, address):
    request = sessions_pb2.CreateSessionRequest(tenant=tenant, email=email, password=password)
    return sessions.CreateSession(request, metadata=from_address(address))


async def refresh(sessions, token):
    return await sessions.RefreshSession(sessions_pb2.RefreshSessionRequest(refresh_token=token))


class TestBackoff:
    async def fail(self, sessions, tenant, email, times, address):
        for _ in range(times):
            async with refused("INVALID_CREDENTIALS"):
                await sign_in(sessions, tenant, email, "wrong", address)

    async def fail_five_times(self, sessions, tenant, email, address, database):
        """The first and the fifth time for real: each costs the time of a hash."""
        await self.fail(sessions, tenant, email, 1, address)
        await database.execute("UPDATE identity.sign_in_failures SET failures = 4")
        await self.fail(sessions, tenant, email, 1, address)

    async def test_the_sixth_attempt_has_to_wait(self, shared, sessions, database):
        user = await shared.user("student", password=PASSWORD)
        await self.fail(sessions, shared.slug, user.email, 5, "192.0.2.1")
        async with refused("TOO_MANY_ATTEMPTS", code=grpc.StatusCode.RESOURCE_EXHAUSTED) as refusal:
            await sign_in(sessions, shared.slug, user.email, PASSWORD, "192.0.2.1")
        delay = refusal.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
        assert 0 < delay <= 1000
        moved = "last_failed_at = last_failed_at - $1::interval, blocked_until = blocked_until - $1::interval"
        await database.execute(f"UPDATE identity.sign_in_failures SET {moved}", timedelta(milliseconds=delay))
        await sign_in(sessions, shared.slug, user.email, PASSWORD, "192.0.2.1")

    async def test_an_attacker_does_not_lock_the_victim_out(self, shared, sessions, database):
        victim = await shared.person("student")
        await self.fail_five_times(sessions, shared.slug, victim.email, "192.0.2.66", database)
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, victim.email, "wrong", "192.0.2.66")
        at_home = await sign_in(sessions, shared.slug, victim.email, PASSWORD, "198.51.100.7")
        assert at_home.user.id == victim.user_id
        await refresh(sessions, victim.refresh_token)

    async def test_neighbours_in_a_slash_64_count_as_one(self, shared, sessions):
        user = await shared.user("student", password=PASSWORD)
        for number in range(5):
            await self.fail(sessions, shared.slug, user.email, 1, f"2001:db8::{number:x}")
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, user.email, PASSWORD, "2001:db8::ffff")
        await sign_in(sessions, shared.slug, user.email, PASSWORD, "2001:db8:0:1::1")

    async def test_an_unknown_account_is_slowed_like_a_known_one(self, shared, sessions, database):
        await self.fail_five_times(sessions, shared.slug, "nobody@example.org", "192.0.2.2", database)
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, "nobody@example.org", "wrong", "192.0.2.2")

    async def attack(self, sessions, tenant, address, database):
        """As though the address had failed for hundreds of accounts."""
        await self.fail(sessions, tenant, "first@example.org", 1, address)
        await database.execute("UPDATE identity.sign_in_failures SET failures = 200")
        await self.fail(sessions, tenant, "second@example.org", 1, address)

    async def test_at_an_address_that_tries_many_accounts_the_first_failure_costs(self, shared, sessions, database):
        await self.attack(sessions, shared.slug, "192.0.2.3", database)
        await self.fail(sessions, shared.slug, "third@example.org", 1, "192.0.2.3")
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, "third@example.org", "wrong", "192.0.2.3")

    async def test_an_attacker_does_not_lock_out_who_shares_the_address(self, shared, sessions, database):
        victim = await shared.user("student", password=PASSWORD)
        await self.attack(sessions, shared.slug, "192.0.2.5", database)
        session = await sign_in(sessions, shared.slug, victim.email, PASSWORD, "192.0.2.5")
        assert session.user.id == victim.id

    async def test_a_success_forgives_the_account(self, shared, sessions, database):
        user = await shared.user("student", password=PASSWORD)
        await self.fail(sessions, shared.slug, user.email, 4, "192.0.2.6")
        await sign_in(sessions, shared.slug, user.email, PASSWORD, "192.0.2.6")
        assert await database.fetchval("SELECT count(*) FROM identity.sign_in_failures WHERE failures = 4") == 1
        await self.fail(sessions, shared.slug, user.email, 4, "192.0.2.6")

    @pytest.mark.parametrize("proof", [(), (("x-gateway-secret", ""),), (("x-gateway-secret", "guess"),)])
    async def test_an_address_is_believed_of_the_gateway_alone(self, shared, sessions, proof):
        request = sessions_pb2.CreateSessionRequest(tenant=shared.slug, email="x@example.org", password="wrong")
        for number in range(5):
            async with refused("INVALID_CREDENTIALS"):
                claimed = ("x-envoy-external-address", f"203.0.113.{number}")
                await sessions.CreateSession(request, metadata=(claimed, *proof))
        async with refused("TOO_MANY_ATTEMPTS"):
            await sessions.CreateSession(request, metadata=(("x-envoy-external-address", "203.0.113.9"), *proof))

    async def test_neither_accounts_nor_addresses_can_be_read_from_the_table(self, shared, sessions, database):
        await self.fail(sessions, shared.slug, "somebody@example.org", 1, "192.0.2.4")
        rows = await database.fetch("SELECT sign_in_failures::text AS row FROM identity.sign_in_failures")
        assert len(rows) == 2
        assert not [row for row in rows if "somebody" in row["row"] or "192.0.2.4" in row["row"]]
