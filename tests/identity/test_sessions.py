"""Signing in and out."""

import asyncio
import base64
import json
import threading
import time
from uuid import UUID

import grpc
import pytest
from argon2 import PasswordHasher
from joserfc import jws, jwt
from joserfc.jwk import KeySet

from services.identity.passwords import AT_ONCE
from storyloom.content.v1 import courses_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.identity.v1 import roles_pb2, sessions_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.identity.waiting import soon_refused
from tests.metrics import reading
from tests.stack import PASSWORD, Person, refused

pytestmark = pytest.mark.usefixtures("forget_failures")
ARGON2_WEAK = {"time_cost": 1, "memory_cost": 1024, "parallelism": 1}


def sign_in(sessions, tenant, email, password=PASSWORD):
    return sessions.CreateSession(sessions_pb2.CreateSessionRequest(tenant=tenant, email=email, password=password))


def refresh(sessions, token):
    return sessions.RefreshSession(sessions_pb2.RefreshSessionRequest(refresh_token=token))


def me(stack, token):
    return Person(stack, "", "", token).stub(UserServiceStub, "identity").GetMe(users_pb2.GetMeRequest())


async def audited(database, user_id):
    """Actions recorded about the user, from what waits and what was delivered."""
    rows = await database.fetch(
        "SELECT action FROM audit.audit_logs WHERE entity_type = 'user' AND entity_id = $1 ORDER BY id", UUID(user_id)
    )
    return [row["action"] for row in rows]


class TestCreateSession:
    async def test_signs_a_user_in(self, school, sessions):
        session = await sign_in(sessions, school.slug, school.teacher.email)
        assert session.user.id == school.teacher.user_id
        assert list(session.user.roles) == ["teacher"]
        assert 590 < session.expire_time.ToSeconds() - time.time() <= 600
        assert (await me(school.stack, session.access_token)).id == school.teacher.user_id

    async def test_is_counted_by_how_it_ended_and_never_by_whose_it_was(self, school, sessions):
        with reading(school.stack.services["identity"].telemetry) as reader:
            await sign_in(sessions, school.slug, school.teacher.email)
            async with refused("INVALID_CREDENTIALS"):
                await sign_in(sessions, school.slug, school.teacher.email, "wrong")
            async with refused("INVALID_CREDENTIALS"):
                await sign_in(sessions, "nowhere", school.teacher.email)
            counted = {tuple(point.attributes.items()): point.value for point in reader.points("storyloom.sign_ins")}
        assert counted == {(("outcome", "ok"),): 1, (("outcome", "wrong"),): 2}

    async def test_the_token_says_who_where_and_for_how_long(self, school, sessions):
        session = await sign_in(sessions, school.slug, school.teacher.email)
        body = await sessions.GetJwks(sessions_pb2.GetJwksRequest())
        token = jwt.decode(session.access_token, KeySet.import_key_set(json.loads(body.data)), algorithms=["EdDSA"])
        assert (token.header["typ"], token.header["alg"]) == ("at+jwt", "EdDSA")
        claims = token.claims
        assert set(claims) == {"iss", "aud", "sub", "tid", "sid", "ver", "roles", "iat", "exp"}
        assert claims["sub"] == school.teacher.user_id
        assert claims["tid"] == school.teacher.tenant_id
        assert (claims["ver"], claims["roles"], claims["sid"]) == (1, ["teacher"], session.session_id)
        assert claims["exp"] - claims["iat"] == 600

    async def test_takes_the_email_in_any_case(self, school, sessions):
        session = await sign_in(sessions, school.slug, school.teacher.email.upper())
        assert session.user.id == school.teacher.user_id

    @pytest.mark.parametrize("wrong", ["tenant", "email", "password"])
    async def test_answers_the_same_whichever_part_is_wrong(self, school, sessions, wrong):
        parts = {"tenant": school.slug, "email": school.teacher.email, "password": PASSWORD}
        parts[wrong] = "not-" + parts[wrong]
        async with refused("INVALID_CREDENTIALS", code=grpc.StatusCode.UNAUTHENTICATED) as refusal:
            await sign_in(sessions, **parts)
        assert refusal.status.message == "Tenant, e-mail address and password do not match."
        assert refusal.metadata == {}

    async def test_refuses_a_user_of_another_tenant(self, school, sessions):
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, school.slug, school.outsider.email)

    async def test_refuses_an_invited_user(self, shared, sessions):
        user = await shared.user("student")
        assert user.status == users_pb2.USER_STATUS_INVITED
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, shared.slug, user.email, "anything")

    async def test_says_that_the_tenant_is_suspended_only_to_who_has_the_password(self, own, school, sessions):
        await school.root.stub(TenantServiceStub, "identity").SuspendTenant(
            tenants_pb2.SuspendTenantRequest(id=own.tenant.id)
        )
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, own.slug, own.admin.email, "wrong password")
        async with refused("TENANT_SUSPENDED"):
            await sign_in(sessions, own.slug, own.admin.email)

    async def test_renews_a_hash_of_outdated_parameters(self, shared, sessions, database):
        user = await shared.user("student", password=PASSWORD)
        weak = PasswordHasher(**ARGON2_WEAK).hash(PASSWORD)
        query = "UPDATE identity.users SET password_hash = $2 WHERE id = $1"
        await database.execute(query, UUID(user.id), weak)
        session = await sign_in(sessions, shared.slug, user.email)
        stored = await database.fetchval("SELECT password_hash FROM identity.users WHERE id = $1", UUID(user.id))
        assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert session.user.etag == user.etag
        await sign_in(sessions, shared.slug, user.email)

    async def test_is_audited_without_the_password(self, school, sessions, shared, database):
        user = await shared.user("student", password=PASSWORD)
        await sign_in(sessions, shared.slug, user.email)
        async with refused("INVALID_CREDENTIALS"):
            await sign_in(sessions, shared.slug, user.email, "a wrong secret")
        await school.settle()
        assert (await audited(database, user.id))[-2:] == ["sign_in", "sign_in_failed"]
        logged = await database.fetch("SELECT audit_logs::text AS entry FROM audit.audit_logs")
        assert not [row for row in logged if "a wrong secret" in row["entry"] or PASSWORD in row["entry"]]


class TestRefreshSession:
    async def test_gives_the_next_pair_of_the_same_session(self, shared, sessions, stack):
        person = await shared.person("student")
        first = await refresh(sessions, person.refresh_token)
        second = await refresh(sessions, first.refresh_token)
        assert first.session_id == second.session_id
        assert len({person.refresh_token, first.refresh_token, second.refresh_token}) == 3
        assert (await me(stack, second.access_token)).id == person.user_id

    async def test_shows_a_change_of_roles(self, shared, sessions):
        person = await shared.person("student")
        await give_roles(shared, person, "teacher")
        session = await refresh(sessions, person.refresh_token)
        payload = json.loads(jws.extract_compact(session.access_token.encode()).payload)
        assert payload["roles"] == ["teacher"]

    async def test_the_parent_may_be_sent_again_when_the_answer_was_lost(self, shared, sessions):
        person = await shared.person("student")
        lost = await refresh(sessions, person.refresh_token)
        again = await refresh(sessions, person.refresh_token)
        assert again.refresh_token != lost.refresh_token
        await refresh(sessions, again.refresh_token)

    async def test_an_older_token_ends_the_session_with_all_descendants(self, shared, sessions, stack, database):
        person = await shared.person("student")
        first = await refresh(sessions, person.refresh_token)
        second = await refresh(sessions, first.refresh_token)
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, person.refresh_token)
        for token in (first.refresh_token, second.refresh_token):
            async with refused("INVALID_TOKEN"):
                await refresh(sessions, token)
        await soon_refused("INVALID_TOKEN", lambda: me(stack, second.access_token))
        await stack.settle()
        assert (await audited(database, person.user_id))[-1] == "refresh_token_reused"

    async def test_the_parent_ends_the_session_once_its_time_is_over(self, shared, sessions, database):
        person = await shared.person("student")
        child = await refresh(sessions, person.refresh_token)
        await database.execute(
            "UPDATE identity.sessions SET rotated_at = rotated_at - interval '11 seconds' WHERE id = $1",
            UUID(child.session_id),
        )
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, person.refresh_token)
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, child.refresh_token)

    async def test_one_of_two_thieves_is_found_out(self, shared, sessions, database):
        person = await shared.person("student")
        one = await refresh(sessions, person.refresh_token)
        other = await refresh(sessions, person.refresh_token)
        await refresh(sessions, one.refresh_token)
        await database.execute("UPDATE identity.sessions SET rotated_at = rotated_at - interval '11 seconds'")
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, other.refresh_token)

    async def test_several_at_once_leave_a_session_that_works(self, shared, sessions):
        person = await shared.person("student")
        answers = await asyncio.gather(*(refresh(sessions, person.refresh_token) for _ in range(6)))
        assert len({answer.refresh_token for answer in answers}) == 6
        await refresh(sessions, answers[-1].refresh_token)

    async def test_other_sessions_of_the_user_go_on(self, shared, sessions):
        person = await shared.person("student")
        other = await sign_in(sessions, shared.slug, person.email)
        first = await refresh(sessions, person.refresh_token)
        await refresh(sessions, first.refresh_token)
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, person.refresh_token)
        await refresh(sessions, other.refresh_token)

    async def test_refuses_forged_tokens_without_ending_the_session(self, shared, school, sessions):
        person = await shared.person("student")
        data = bytearray(base64.urlsafe_b64decode(person.refresh_token + "=="))
        foreign = UUID(school.teacher.tenant_id).bytes + bytes(data[16:])
        guessed = bytes(data[:32]) + bytes(32)
        for forged in (foreign, guessed, bytes(64)):
            async with refused("INVALID_TOKEN"):
                await refresh(sessions, base64.urlsafe_b64encode(forged).decode())
        await refresh(sessions, person.refresh_token)

    async def test_refuses_an_expired_token(self, shared, sessions, database):
        person = await shared.person("student")
        await database.execute(
            "UPDATE identity.refresh_tokens SET expires_at = now() WHERE session_id = $1",
            UUID(bytes=base64.urlsafe_b64decode(person.refresh_token + "==")[16:32]),
        )
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, person.refresh_token)

    async def test_refuses_a_deactivated_user(self, shared, sessions):
        person = await shared.person("student")
        await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=person.user_id))
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, person.refresh_token)


async def give_roles(own, person, *slugs):
    roles = await own.admin.stub(RoleServiceStub, "identity").ListRoles(roles_pb2.ListRolesRequest())
    ids = [role.id for role in roles.roles if role.slug in slugs]
    return await own.users.SetUserRoles(users_pb2.SetUserRolesRequest(id=person.user_id, role_ids=ids))


class TestDeleteSession:
    def sign_out(self, person, everywhere=False):
        stub = person.stub(SessionServiceStub, "identity")
        return stub.DeleteSession(sessions_pb2.DeleteSessionRequest(everywhere=everywhere))

    async def test_ends_this_session_and_no_other(self, shared, sessions, stack):
        person = await shared.person("student")
        other = await sign_in(sessions, shared.slug, person.email)
        await self.sign_out(person)
        await soon_refused("INVALID_TOKEN", lambda: me(stack, person.token))
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, person.refresh_token)
        assert (await me(stack, other.access_token)).id == person.user_id

    async def test_ends_all_sessions_everywhere(self, shared, sessions, stack):
        person = await shared.person("student")
        other = await sign_in(sessions, shared.slug, person.email)
        await self.sign_out(person, everywhere=True)
        await soon_refused("INVALID_TOKEN", lambda: me(stack, other.access_token))
        for token in (person.refresh_token, other.refresh_token):
            async with refused("INVALID_TOKEN"):
                await refresh(sessions, token)

    async def test_other_services_refuse_the_token_within_two_seconds(self, shared, stack):
        person = await shared.person("teacher")
        courses = person.stub(CourseServiceStub, "content")
        await courses.ListCourses(courses_pb2.ListCoursesRequest())
        await self.sign_out(person)
        await soon_refused("INVALID_TOKEN", lambda: courses.ListCourses(courses_pb2.ListCoursesRequest()))

    async def test_is_audited(self, shared, school, database):
        person = await shared.person("student")
        await self.sign_out(person)
        await school.settle()
        assert (await audited(database, person.user_id))[-1] == "sign_out"

    async def test_everywhere_is_one_piece_of_news(self, shared, sessions, stack, database):
        person = await shared.person("student")
        others = [await sign_in(sessions, shared.slug, person.email) for _ in range(2)]
        courses = Person(stack, "", "", others[0].access_token).stub(CourseServiceStub, "content")
        await courses.ListCourses(courses_pb2.ListCoursesRequest())
        await self.sign_out(person, everywhere=True)
        news = "SELECT count(*) FROM identity.access_revisions WHERE user_id = $1"
        # The other one told of the user's role.
        assert await database.fetchval(news, UUID(person.user_id)) == 2
        await soon_refused("INVALID_TOKEN", lambda: courses.ListCourses(courses_pb2.ListCoursesRequest()))
        for token in (person.token, *(one.access_token for one in others)):
            await soon_refused("INVALID_TOKEN", lambda token=token: me(stack, token))


class TestMostSessions:
    async def test_a_new_one_ends_the_oldest_beyond_twenty(self, shared, sessions, stack, database):
        person = await shared.person("student")
        first = await refresh(sessions, person.refresh_token)
        second = await sign_in(sessions, shared.slug, person.email)
        more = """INSERT INTO identity.sessions (tenant_id, user_id, generation, rotated_at, expires_at)
            SELECT tenant_id, user_id, generation, rotated_at, expires_at FROM identity.sessions, generate_series(1, 18)
            WHERE id = $1"""
        await database.execute(more, UUID(second.session_id))
        latest = await sign_in(sessions, shared.slug, person.email)
        living = "SELECT count(*) FROM identity.sessions WHERE user_id = $1 AND ended_at IS NULL"
        assert await database.fetchval(living, UUID(person.user_id)) == 20
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, first.refresh_token)
        await soon_refused("INVALID_TOKEN", lambda: me(stack, first.access_token))
        for session in (second, latest):
            assert (await me(stack, session.access_token)).id == person.user_id


class TestGetJwks:
    async def test_publishes_public_keys_only(self, sessions):
        body = await sessions.GetJwks(sessions_pb2.GetJwksRequest())
        keys = json.loads(body.data)["keys"]
        assert keys
        for key in keys:
            assert set(key) == {"kty", "crv", "alg", "use", "kid", "x"}
            assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")


class TestManyAtOnce:
    @pytest.fixture
    def busy(self, stack):
        """Argon2's threads are busy until told."""
        over = threading.Event()
        passwords = stack.services["identity"].passwords
        for _ in range(AT_ONCE):
            passwords._threads.submit(over.wait)
        yield over
        over.set()

    async def test_who_waits_for_a_hash_keeps_nobody_else_waiting(self, school, sessions, stack, busy):
        waiting = [sign_in(sessions, school.slug, school.teacher.email) for _ in range(12)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(0.4):
            assert (await me(stack, school.teacher.token)).id == school.teacher.user_id
        assert not any(one.done() for one in waiting)
        busy.set()
        assert {one.user.id for one in await asyncio.gather(*waiting)} == {school.teacher.user_id}

    async def test_more_than_can_be_served_in_time_are_refused(self, school, sessions, busy, monkeypatch):
        monkeypatch.setattr("services.identity.passwords.MOST_WAITING", 3)
        waiting = [sign_in(sessions, school.slug, school.teacher.email) for _ in range(3)]
        await asyncio.sleep(0.2)
        async with refused("OVERLOADED", code=grpc.StatusCode.RESOURCE_EXHAUSTED):
            await sign_in(sessions, school.slug, school.teacher.email)
        busy.set()
        await asyncio.gather(*waiting)
