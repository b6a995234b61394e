"""Refresh tokens under everything at once: parallel use, theft, lost answers, ends of all kinds, random walks."""

import asyncio
import base64
import os
import random
import secrets
import sys
from dataclasses import dataclass
from uuid import UUID

import grpc
import pytest

from storyloom.identity.v1 import sessions_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.profile import PROOF
from tests.stack import PASSWORD, refused

pytestmark = pytest.mark.usefixtures("forget_failures")
NEW_PASSWORD = "a password nobody had before"
GRACE_IS_OVER = "UPDATE identity.sessions SET rotated_at = rotated_at - interval '11 seconds' WHERE id = $1"
STEPS = 1500 if PROOF else 120


async def refresh(sessions, token):
    return await sessions.RefreshSession(sessions_pb2.RefreshSessionRequest(refresh_token=token))


async def sign_in(sessions, slug, email, password=PASSWORD):
    request = sessions_pb2.CreateSessionRequest(tenant=slug, email=email, password=password)
    return await sessions.CreateSession(request)


async def outcomes(*calls):
    """The answers of calls made at once; None for those that were refused as invalid."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            assert isinstance(one, grpc.aio.AioRpcError), one
            assert one.code() is grpc.StatusCode.UNAUTHENTICATED, one
    return [None if isinstance(one, BaseException) else one for one in found]


async def all_refused(sessions, tokens):
    for token in tokens:
        async with refused("INVALID_TOKEN"):
            await refresh(sessions, token)


def session_of(token):
    return UUID(bytes=base64.urlsafe_b64decode(token + "==")[16:32])


def in_tenant(token, tenant_id):
    data = base64.urlsafe_b64decode(token + "==")
    return base64.urlsafe_b64encode(UUID(tenant_id).bytes + data[16:]).decode().rstrip("=")


class TestAtOnce:
    async def test_all_who_send_one_token_stay_in_one_session(self, shared, sessions):
        person = await shared.person("student")
        winners = await asyncio.gather(*(refresh(sessions, person.refresh_token) for _ in range(12)))
        assert len({one.refresh_token for one in winners}) == 12
        assert {one.session_id for one in winners} == {str(session_of(person.refresh_token))}
        # Each of them goes on, within the grace, and again all at once.
        following = await asyncio.gather(*(refresh(sessions, one.refresh_token) for one in winners))
        assert {one.session_id for one in following} == {winners[0].session_id}
        await refresh(sessions, following[5].refresh_token)

    async def test_a_grandparent_kills_whoever_rotates_at_the_same_moment(self, shared, sessions):
        for _ in range(5):
            person = await shared.person("student")
            parent = (await refresh(sessions, person.refresh_token)).refresh_token
            current = (await refresh(sessions, parent)).refresh_token
            tokens = [current, person.refresh_token, current, person.refresh_token]
            answers = await outcomes(*(refresh(sessions, one) for one in tokens))
            assert answers[1] is answers[3] is None
            await all_refused(sessions, [current, parent, *(one.refresh_token for one in answers if one)])

    @pytest.mark.parametrize("everywhere", [False, True])
    async def test_signing_out_ends_what_is_being_refreshed(self, shared, sessions, everywhere):
        for _ in range(5):
            person = await shared.person("student")
            sign_out = person.stub(SessionServiceStub, "identity").DeleteSession(
                sessions_pb2.DeleteSessionRequest(everywhere=everywhere)
            )
            before, _, after = await outcomes(
                refresh(sessions, person.refresh_token), sign_out, refresh(sessions, person.refresh_token)
            )
            await all_refused(sessions, [person.refresh_token, *(one.refresh_token for one in (before, after) if one)])

    async def test_a_new_password_ends_every_other_session_however_close_it_was(self, shared, sessions):
        for _ in range(3):
            person = await shared.person("student")
            other = await sign_in(sessions, shared.slug, person.email)
            change = person.stub(UserServiceStub, "identity").ChangePassword(
                users_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW_PASSWORD)
            )
            answers = await outcomes(
                change,
                refresh(sessions, other.refresh_token),
                *(sign_in(sessions, shared.slug, person.email) for _ in range(3)),
            )
            assert answers[0] is not None
            await all_refused(sessions, [other.refresh_token, *(one.refresh_token for one in answers[1:] if one)])
            await refresh(sessions, person.refresh_token)

    @pytest.mark.parametrize(
        "change", ["password_hash = password_hash || 'x'", "status = 'deactivated'", "deleted_at = now()"]
    )
    async def test_a_sign_in_that_began_before_the_change_opens_no_session_after_it(
        self, shared, sessions, database, change
    ):
        user = await shared.user("student", password=PASSWORD)
        async with database.transaction():
            await database.execute(f"UPDATE identity.users SET {change} WHERE id = $1", UUID(user.id))
            late = asyncio.create_task(sign_in(sessions, shared.slug, user.email))
            await asyncio.sleep(0.3)
            assert not late.done()
        async with refused("INVALID_CREDENTIALS"):
            await late
        count = "SELECT count(*) FROM identity.sessions WHERE user_id = $1"
        assert await database.fetchval(count, UUID(user.id)) == 0


class TestEnds:
    async def test_after_signing_out_no_token_of_the_session_works(self, shared, sessions):
        person = await shared.person("student")
        child = await refresh(sessions, person.refresh_token)
        await person.stub(SessionServiceStub, "identity").DeleteSession(sessions_pb2.DeleteSessionRequest())
        await all_refused(sessions, [child.refresh_token, person.refresh_token])

    async def test_after_reactivation_old_sessions_stay_ended(self, shared, sessions):
        person = await shared.person("student")
        await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=person.user_id))
        await all_refused(sessions, [person.refresh_token])
        await shared.users.ReactivateUser(users_pb2.ReactivateUserRequest(id=person.user_id))
        await all_refused(sessions, [person.refresh_token])
        await sign_in(sessions, shared.slug, person.email)

    async def test_after_deletion_and_undeletion_too(self, shared, sessions):
        person = await shared.person("student")
        await shared.users.DeleteUser(users_pb2.DeleteUserRequest(id=person.user_id))
        await all_refused(sessions, [person.refresh_token])
        await shared.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=person.user_id))
        await all_refused(sessions, [person.refresh_token])

    async def test_a_suspension_ends_no_session(self, own, school, sessions):
        tenants = school.root.stub(TenantServiceStub, "identity")
        await tenants.SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))
        async with refused("TENANT_SUSPENDED"):
            await refresh(sessions, own.admin.refresh_token)
        await tenants.ResumeTenant(tenants_pb2.ResumeTenantRequest(id=own.tenant.id))
        await refresh(sessions, own.admin.refresh_token)

    async def test_expired_tokens_are_forgotten_now_and_then(self, shared, sessions, database):
        person = await shared.person("student")
        session = session_of(person.refresh_token)
        old = """INSERT INTO identity.refresh_tokens (tenant_id, session_id, token_hash, generation, expires_at)
            SELECT tenant_id, id, sha256(n::text::bytea), 0, now() - interval '1 day'
            FROM identity.sessions, generate_series(1, 500) AS n WHERE id = $1"""
        await database.execute(old, session)
        await refresh(sessions, person.refresh_token)
        count = "SELECT count(*) FROM identity.refresh_tokens WHERE session_id = $1"
        assert await database.fetchval(count, session) == 2


@dataclass
class Family:
    """What a session must be like: its tokens by generation, and whether the grace of the last rotation is over."""

    tenant_id: str
    id: UUID
    generations: list[list[str]]
    late: bool = False
    ended: bool = False

    @property
    def tokens(self):
        return [token for generation in self.generations for token in generation]

    def expect(self, token):
        """Whether this token is good now, and what its use does to the family."""
        if self.ended or token not in self.tokens:
            return False
        generation = next(n for n, tokens in enumerate(self.generations) if token in tokens)
        behind = len(self.generations) - 1 - generation
        if behind == 0:
            self.generations.append([])
            self.late = False
        elif behind > 1 or self.late:
            self.ended = True
        return not self.ended


class Walk:
    """Random steps on sessions of two tenants, each compared with what the model says."""

    def __init__(self, seed, sessions, database, families):
        self.random, self.sessions, self.database, self.families = random.Random(seed), sessions, database, families
        self.counts = {}

    async def run(self, steps):
        moves = [self.rotate] * 6 + [self.any_token] * 2 + [self.at_once] * 2 + [self.wait, self.forge]
        for _ in range(steps):
            alive = [one for one in self.families if not one.ended]
            move = self.random.choice(moves)
            # Ended ones are tried again now and then.
            family = self.random.choice(alive if alive and self.random.random() < 0.9 else self.families)
            await move(family)
            self.counts[move.__name__] = self.counts.get(move.__name__, 0) + 1

    async def use(self, family, token):
        if not family.expect(token):
            async with refused("INVALID_TOKEN"):
                await refresh(self.sessions, token)
            return
        answer = await refresh(self.sessions, token)
        assert UUID(answer.session_id) == family.id
        assert answer.refresh_token not in family.tokens
        family.generations[-1].append(answer.refresh_token)

    async def rotate(self, family):
        await self.use(family, self.random.choice(family.generations[-1]))

    async def any_token(self, family):
        """Mostly a recent one: the parent is where it is decided."""
        recent = [token for tokens in family.generations[-3:] for token in tokens]
        await self.use(family, self.random.choice(recent if self.random.random() < 0.8 else family.tokens))

    async def at_once(self, family):
        token, times = self.random.choice(family.generations[-1]), self.random.randint(2, 6)
        answers = await outcomes(*(refresh(self.sessions, token) for _ in range(times)))
        if not family.expect(token):
            assert not any(answers)
            return
        assert all(answers)
        family.generations[-1].extend(one.refresh_token for one in answers)

    async def wait(self, family):
        await self.database.execute(GRACE_IS_OVER, family.id)
        family.late = True

    async def forge(self, family):
        token = self.random.choice(family.tokens)
        other = self.random.choice([one.tenant_id for one in self.families if one.tenant_id != family.tenant_id])
        data = bytearray(base64.urlsafe_b64decode(token + "=="))
        data[self.random.randrange(32, 64)] ^= 1 << self.random.randrange(8)
        for forged in (in_tenant(token, other), base64.urlsafe_b64encode(data).decode()):
            await self.use(family, forged)


class TestRandomWalk:
    async def test_every_answer_is_the_one_the_model_gives(self, shared, own, sessions, database):
        seed = int(os.environ.get("WALK_SEED") or secrets.randbits(32))
        families = []
        for tenant in (shared, own):
            for _ in range(STEPS // 20):
                person = await tenant.person("student")
                token = person.refresh_token
                families.append(Family(tenant.admin.tenant_id, session_of(token), [[token]]))
        walk = Walk(seed, sessions, database, families)
        try:
            await walk.run(STEPS)
            ended = sum(one.ended for one in families)
            for family in families:
                for token in walk.random.sample(family.tokens, min(3, len(family.tokens))):
                    await walk.use(family, token)
        except BaseException:
            sys.stdout.write(f"\nrefresh walk failed: WALK_SEED={seed}\n")
            raise
        assert 0 < ended < len(families)
        sys.stdout.write(
            f"\nrefresh walk: seed {seed}, {STEPS} steps {walk.counts},"
            f" {sum(len(one.tokens) for one in families)} tokens, {ended} of {len(families)} sessions ended\n"
        )
