"""Guessing passwords is slow, and locks nobody out."""

import asyncio
import base64
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from kit.call import current_call
from kit.models import now
from services.identity import rules, throttling
from services.identity.throttling import Devices
from storyloom.identity.v1 import sessions_pb2, users_pb2
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.stack import PASSWORD, Person, from_address, refused

pytestmark = pytest.mark.usefixtures("forget_failures")
SCHOOL = "192.0.2.77"


def sign_in(sessions, tenant, email, password, address, device=""):
    request = sessions_pb2.CreateSessionRequest(tenant=tenant, email=email, password=password, device_token=device)
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


async def block(sessions, tenant, email, database, address=SCHOOL):
    """As though somebody at the address had failed for the account without a pause, and will not stop."""
    async with refused("INVALID_CREDENTIALS"):
        await sign_in(sessions, tenant, email, "wrong", address)
    await database.execute(
        "UPDATE identity.sign_in_failures SET failures = 500, blocked_until = now() + interval '30 seconds'"
    )


async def counted(database):
    """Failures by key."""
    rows = await database.fetch("SELECT key, failures FROM identity.sign_in_failures")
    return {row["key"]: row["failures"] for row in rows}


class TestDeviceTokens:
    async def test_who_signed_in_before_gets_in_while_somebody_at_the_address_guesses(self, shared, sessions, database):
        victim = await shared.user("student", password=PASSWORD)
        before = await sign_in(sessions, shared.slug, victim.email, PASSWORD, SCHOOL)
        await block(sessions, shared.slug, victim.email, database)
        for _ in range(3):
            async with refused("TOO_MANY_ATTEMPTS"):
                await sign_in(sessions, shared.slug, victim.email, PASSWORD, SCHOOL)
            session = await sign_in(sessions, shared.slug, victim.email, PASSWORD, SCHOOL, before.device_token)
            assert session.user.id == victim.id
            await database.execute("UPDATE identity.sign_in_failures SET blocked_until = now() + interval '30 seconds'")

    async def test_under_guesses_that_never_pause(self, shared, sessions, database):
        victim = await shared.user("student", password=PASSWORD)
        before = await sign_in(sessions, shared.slug, victim.email, PASSWORD, SCHOOL)
        await block(sessions, shared.slug, victim.email, database)
        over = asyncio.Event()
        answers = []

        async def guess():
            while not over.is_set():
                try:
                    await sign_in(sessions, shared.slug, victim.email, "guess", SCHOOL)
                except grpc.aio.AioRpcError as error:
                    answers.append(error.code())

        guessing = [asyncio.create_task(guess()) for _ in range(2)]
        for _ in range(5):
            await sign_in(sessions, shared.slug, victim.email, PASSWORD, SCHOOL, before.device_token)
        over.set()
        await asyncio.gather(*guessing)
        assert len(answers) > 5

    async def test_its_own_failures_count_against_the_device_alone(self, shared, sessions, database):
        user = await shared.user("student", password=PASSWORD)
        device = (await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL)).device_token
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, shared.slug, user.email, "wrong", SCHOOL, device)
        assert list((await counted(database)).values()) == [1]
        await database.execute("UPDATE identity.sign_in_failures SET failures = 4")
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, shared.slug, user.email, "wrong", "198.51.100.1", device)
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, user.email, PASSWORD, "198.51.100.2", device)
        assert list((await counted(database)).values()) == [5]
        await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL)

    async def test_a_success_forgives_the_device_and_nobody_else(self, shared, sessions, database):
        user = await shared.user("student", password=PASSWORD)
        device = (await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL)).device_token
        await block(sessions, shared.slug, user.email, database)
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, shared.slug, user.email, "wrong", SCHOOL, device)
        assert sorted((await counted(database)).values()) == [1, 500, 500]
        await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL, device)
        assert sorted((await counted(database)).values()) == [500, 500]

    async def test_a_device_stays_the_same_one(self, shared, sessions, database):
        user = await shared.user("student", password=PASSWORD)
        first = (await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL)).device_token
        second = (await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL, first)).device_token
        assert first != second
        for token in (first, second):
            async with refused("INVALID_CREDENTIALS"):
                await sign_in(sessions, shared.slug, user.email, "wrong", SCHOOL, token)
        assert list((await counted(database)).values()) == [2]

    @pytest.mark.parametrize("kind", ["of another user", "of another tenant", "damaged", "garbage", "not ASCII"])
    async def test_any_other_token_counts_as_none(self, shared, own, sessions, database, kind):
        victim = await shared.user("student", password=PASSWORD)
        mine = (await sign_in(sessions, shared.slug, victim.email, PASSWORD, SCHOOL)).device_token
        match kind:
            case "of another user":
                other = await shared.user("student", password=PASSWORD)
                token = (await sign_in(sessions, shared.slug, other.email, PASSWORD, SCHOOL)).device_token
            case "of another tenant":
                token = (await sign_in(sessions, own.slug, own.admin.email, PASSWORD, SCHOOL)).device_token
            case "damaged":
                token = ("A" if mine[0] != "A" else "B") + mine[1:]
            case "garbage":
                token = base64.urlsafe_b64encode(bytes(52)).decode()
            case _:
                token = "é" * 20
        answers = []
        for one in ("", token):
            await database.execute("DELETE FROM identity.sign_in_failures")
            async with refused("INVALID_CREDENTIALS") as refusal:
                await sign_in(sessions, shared.slug, victim.email, "wrong", SCHOOL, one)
            answers.append((await counted(database), refusal.status.SerializeToString()))
        assert answers[0] == answers[1]
        assert len(answers[0][0]) == 2
        await block(sessions, shared.slug, victim.email, database)
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, victim.email, PASSWORD, SCHOOL, token)

    async def test_signs_nobody_in(self, shared, sessions):
        user = await shared.user("student", password=PASSWORD)
        token = (await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL)).device_token
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, shared.slug, user.email, token, SCHOOL, token)
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, token)
        stub = Person(shared.admin.stack, "", "", token).stub(UserServiceStub, "identity")
        async with refused("INVALID_TOKEN"):
            await stub.GetMe(users_pb2.GetMeRequest())

    async def test_is_good_after_signing_out_and_until_the_password_changes(self, shared, sessions, stack, database):
        user = await shared.user("student", password=PASSWORD)
        session = await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL)
        person = Person(stack, user.id, user.email, session.access_token)
        await person.stub(SessionServiceStub, "identity").DeleteSession(sessions_pb2.DeleteSessionRequest())
        await block(sessions, shared.slug, user.email, database)
        again = await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL, session.device_token)
        person = Person(stack, user.id, user.email, again.access_token)
        await person.stub(UserServiceStub, "identity").ChangePassword(
            users_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="an entirely new one")
        )
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, user.email, "an entirely new one", SCHOOL, again.device_token)

    async def test_is_renewed_with_a_hash_that_is(self, shared, sessions, database, stack, monkeypatch):
        user = await shared.user("student", password=PASSWORD)
        old = (await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL)).device_token
        monkeypatch.setattr(stack.services["identity"].passwords, "is_outdated", lambda stored: True)
        new = (await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL, old)).device_token
        monkeypatch.undo()
        await block(sessions, shared.slug, user.email, database)
        async with refused("TOO_MANY_ATTEMPTS"):
            await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL, old)
        await sign_in(sessions, shared.slug, user.email, PASSWORD, SCHOOL, new)

    async def test_refreshing_gives_none(self, shared, sessions):
        person = await shared.person("student")
        assert (await refresh(sessions, person.refresh_token)).device_token == ""


class TestDevices:
    USER = SimpleNamespace(tenant_id=uuid4(), id=uuid4(), password_hash="hash")

    def test_a_token_tells_its_holder_nothing(self):
        devices, device = Devices(bytes(32)), uuid4()
        data = base64.urlsafe_b64decode(devices.token(device, self.USER, "hash") + "==")
        for secret in (device.bytes, self.USER.id.bytes, self.USER.tenant_id.bytes, b"hash"):
            assert secret not in data

    @pytest.mark.parametrize("changed", ["tenant_id", "id", "password_hash"])
    def test_is_bound_to_tenant_user_and_password(self, changed):
        devices = Devices(bytes(32))
        token = devices.token(uuid4(), self.USER, "hash")
        other = "another" if changed == "password_hash" else uuid4()
        assert devices.find(token, self.USER)
        assert devices.find(token, SimpleNamespace(**{**vars(self.USER), changed: other})) is None
        assert devices.find(token, None) is None
        assert Devices(bytes(31) + b"1").find(token, self.USER) is None

    def test_is_good_for_a_year(self, monkeypatch):
        devices = Devices(bytes(32))
        token, issued = devices.token(uuid4(), self.USER, "hash"), now()
        for after, good in ((timedelta(days=364), True), (timedelta(days=366), False)):
            monkeypatch.setattr(throttling, "now", lambda after=after: issued + after)
            assert bool(devices.find(token, self.USER)) is good
        assert timedelta(days=365) == rules.DEVICE_TOKEN_LIFETIME

    @given(st.text(max_size=100) | st.binary(max_size=80).map(lambda data: base64.urlsafe_b64encode(data).decode()))
    def test_no_other_text_opens(self, text):
        assert Devices(bytes(32)).find(text, self.USER) is None


class TestEqualWork:
    """Answers that are the same must come after the same work: what was sent to the database tells."""

    @pytest.fixture
    def statements(self, stack):
        """The statements of sign-ins, in their order."""
        seen = []

        def log(query):
            call = current_call()
            if call is not None and call.rpc.endswith("/CreateSession"):
                seen.append(query.query)

        def watch(connection, record, proxy):
            driver = connection.driver_connection
            driver.remove_query_logger(log)
            driver.add_query_logger(log)

        engine = stack.services["identity"].db.engine.sync_engine
        event.listen(engine, "checkout", watch)
        yield seen
        event.remove(engine, "checkout", watch)

    async def test_is_done_whichever_part_is_wrong(self, shared, sessions, statements, database):
        user = await shared.user("student", password=PASSWORD)
        barred = await shared.user("student", password=PASSWORD)
        await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=barred.id))
        invited = await shared.user("student")
        work = {}
        for name, tenant, email, password in (
            ("password", shared.slug, user.email, "wrong"),
            ("user", shared.slug, "nobody@example.org", "wrong"),
            ("tenant", "no-such-tenant", user.email, PASSWORD),
            ("barred", shared.slug, barred.email, PASSWORD),
            ("invited", shared.slug, invited.email, "wrong"),
        ):
            for token in ("", "of no device"):
                await database.execute("DELETE FROM identity.sign_in_failures")
                statements.clear()
                async with refused("INVALID_CREDENTIALS"):
                    await sign_in(sessions, tenant, email, password, SCHOOL, token)
                await asyncio.sleep(0.02)
                work[name, token] = [shape(one) for one in statements if "DELETE" not in one]
        assert len(work["password", ""]) > 8
        assert [name for name, one in work.items() if one != work["password", ""]] == []


def shape(statement):
    """The statement without the one thing in it that differs: whose tenant it is."""
    return statement.partition("app.tenant_id")[0]
