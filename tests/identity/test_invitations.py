"""Tokens with which users choose a password."""

import asyncio
import base64
import time
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from kit.errors import Unauthenticated
from services.identity.rules import InvitationSecret
from storyloom.identity.v1 import invitations_pb2, roles_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.invitations_pb2_grpc import InvitationServiceStub
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.identity.waiting import soon_refused
from tests.stack import PASSWORD, from_address, refused

pytestmark = pytest.mark.usefixtures("forget_failures")
NEW_PASSWORD = "staple battery horse correct"
RESET = invitations_pb2.INVITATION_KIND_RESET


def invitations_of(person):
    return person.stub(InvitationServiceStub, "identity")


def invite(person, user_id, **more):
    request = invitations_pb2.CreateInvitationRequest(user_id=user_id, **more)
    return invitations_of(person).CreateInvitation(request)


def read(person, invitation):
    return invitations_of(person).GetInvitation(invitations_pb2.GetInvitationRequest(id=invitation.id))


@pytest.fixture
def accept(stack):
    """Accepts without anybody's token."""
    stub = InvitationServiceStub(stack.channel("identity"))

    def call(token, password=NEW_PASSWORD, address="", **more):
        request = invitations_pb2.AcceptInvitationRequest(token=token, password=password, **more)
        return stub.AcceptInvitation(request, metadata=from_address(address) if address else ())

    return call


async def state_of(person, invitation):
    return invitations_pb2.InvitationState.Name((await read(person, invitation)).state)


class TestCreateInvitation:
    async def test_lets_an_invited_user_in(self, shared, accept, stack):
        user = await shared.user("student")
        invitation = await invite(shared.admin, user.id)
        lifetime = invitation.expire_time.ToSeconds() - time.time()
        assert (invitation.email, invitation.creator_id) == (user.email, shared.admin.user_id)
        assert 7 * 86400 - 60 < lifetime <= 7 * 86400
        answer = await accept(invitation.token, display_name="Mai")
        assert (answer.tenant, answer.user.id, answer.user.display_name) == (shared.slug, user.id, "Mai")
        assert answer.user.status == users_pb2.USER_STATUS_ACTIVE
        person = await stack.sign_in(answer.tenant, user.email, NEW_PASSWORD)
        assert person.user_id == user.id
        assert await state_of(shared.admin, invitation) == "INVITATION_STATE_ACCEPTED"

    async def test_makes_the_user_when_there_is_none(self, shared, accept, stack):
        user = users_pb2.User(email="fresh@example.org", display_name="Fresh", roles=["teacher"])
        request = invitations_pb2.CreateInvitationRequest(user=user)
        invitation = await invitations_of(shared.admin).CreateInvitation(request)
        answer = await accept(invitation.token)
        assert (list(answer.user.roles), answer.user.display_name) == (["teacher"], "Fresh")
        await stack.sign_in(shared.slug, user.email, NEW_PASSWORD)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await invitations_of(shared.admin).CreateInvitation(request)

    async def test_revokes_the_one_before(self, shared, accept):
        user = await shared.user("student")
        first, second = await invite(shared.admin, user.id), await invite(shared.admin, user.id)
        async with refused("INVALID_TOKEN"):
            await accept(first.token)
        assert await state_of(shared.admin, first) == "INVITATION_STATE_REVOKED"
        await accept(second.token)

    async def test_several_at_once_leave_one_that_works(self, shared, accept):
        user = await shared.user("student")
        made = await asyncio.gather(*(invite(shared.admin, user.id) for _ in range(4)))
        states = [await state_of(shared.admin, one) for one in made]
        assert states.count("INVITATION_STATE_PENDING") == 1
        await accept(made[states.index("INVITATION_STATE_PENDING")].token)

    async def test_the_token_is_told_once_and_kept_nowhere(self, shared, school, database):
        user = await shared.user("student")
        request = invitations_pb2.CreateInvitationRequest(user_id=user.id)
        key = (("idempotency-key", "invite-once"),)
        invitation = await invitations_of(shared.admin).CreateInvitation(request, metadata=key)
        assert await invitations_of(shared.admin).CreateInvitation(request, metadata=key) == invitation
        assert (await read(shared.admin, invitation)).token == ""
        await school.settle()
        secret = base64.urlsafe_b64decode(invitation.token + "==")[32:]
        for table in ("identity.invitations", "identity.idempotency_keys", "identity.outbox", "audit.audit_logs"):
            for row in await database.fetch(f"SELECT * FROM {table}"):
                values = b"|".join(one if isinstance(one, bytes) else str(one).encode() for one in row.values())
                assert secret not in values, table
                assert invitation.token.encode() not in values, table

    async def test_lives_as_long_as_it_is_told_to(self, shared, accept, database):
        user = await shared.user("student")
        invitation = await invite(shared.admin, user.id, lifetime=Duration(seconds=600))
        assert 540 < invitation.expire_time.ToSeconds() - time.time() <= 600
        await database.execute("UPDATE identity.invitations SET expires_at = now() WHERE id = $1", UUID(invitation.id))
        async with refused("INVALID_TOKEN"):
            await accept(invitation.token)
        assert await state_of(shared.admin, invitation) == "INVITATION_STATE_EXPIRED"

    @pytest.mark.parametrize("seconds", [0, 299, 2592001])
    async def test_refuses_other_lifetimes(self, shared, seconds):
        async with refused("INVALID_FIELD", field="lifetime"):
            await invite(shared.admin, str(uuid4()), lifetime=Duration(seconds=seconds))

    async def test_refuses_to_invite_nobody(self, shared):
        async with refused("INVALID_FIELD"):
            await invitations_of(shared.admin).CreateInvitation(invitations_pb2.CreateInvitationRequest())

    async def test_refuses_users_of_another_status(self, shared):
        active, invited = await shared.user("student", password=PASSWORD), await shared.user("student")
        async with refused("WRONG_STATE") as refusal:
            await invite(shared.admin, active.id)
        assert refusal.metadata["state"] == "active"
        async with refused("WRONG_STATE"):
            await invite(shared.admin, invited.id, kind=RESET)
        await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=active.id))
        async with refused("WRONG_STATE"):
            await invite(shared.admin, active.id, kind=RESET)

    async def test_nobody_gets_into_the_account_of_who_may_do_more(self, own):
        held = dict.fromkeys(("invitation", "vocabulary", "tag", "user"), "manage")
        permissions = [roles_pb2.Permission(resource=resource, action=action) for resource, action in held.items()]
        role = roles_pb2.Role(slug="host", name="Host", permissions=permissions)
        await own.admin.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))
        host = await own.person("host")
        await invite(host, (await own.user("student")).id)
        async with refused("PERMISSION_REQUIRED") as refusal:
            await invite(host, own.admin.user_id, kind=RESET)
        assert refusal.metadata["permission"] == "all:manage"
        async with refused("PERMISSION_REQUIRED"):
            await invite(host, (await own.user("admin")).id)
        async with refused("PERMISSION_REQUIRED"):
            user = users_pb2.User(email="boss@example.org", display_name="Boss", roles=["admin"])
            await invitations_of(host).CreateInvitation(invitations_pb2.CreateInvitationRequest(user=user))

    async def test_a_foreign_user_and_no_user_look_the_same(self, school):
        answers = []
        for identity in (school.outsider.user_id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await invite(school.admin, identity)
            answers.append(refusal.status.SerializeToString())
        assert answers[0] == answers[1]

    async def test_a_teacher_may_not(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await invite(school.teacher, school.student.user_id)


class TestReset:
    async def test_gives_another_password_and_ends_all_sessions(self, shared, accept, stack):
        person = await shared.person("student")
        invitation = await invite(shared.admin, person.user_id, kind=RESET)
        me = person.stub(UserServiceStub, "identity")
        await me.GetMe(users_pb2.GetMeRequest())
        await accept(invitation.token)
        await soon_refused("INVALID_TOKEN", lambda: me.GetMe(users_pb2.GetMeRequest()))
        async with refused("INVALID_CREDENTIALS"):
            await stack.sign_in(shared.slug, person.email, PASSWORD)
        await stack.sign_in(shared.slug, person.email, NEW_PASSWORD)

    async def test_is_not_for_oneself(self, shared):
        async with refused("WRONG_STATE") as refusal:
            await invite(shared.admin, shared.admin.user_id, kind=RESET)
        assert refusal.metadata["state"] == "own_account"

    async def test_is_useless_once_the_user_has_changed_the_password(self, shared, accept):
        person = await shared.person("student")
        invitation = await invite(shared.admin, person.user_id, kind=RESET)
        await person.stub(UserServiceStub, "identity").ChangePassword(
            users_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="another one entirely")
        )
        async with refused("INVALID_TOKEN"):
            await accept(invitation.token)


class TestAcceptInvitation:
    async def test_of_many_at_once_one_wins(self, shared, accept, stack):
        user = await shared.user("student")
        invitation = await invite(shared.admin, user.id)
        passwords = [f"the password of number {n}" for n in range(5)]
        results = await asyncio.gather(
            *(accept(invitation.token, one) for one in passwords), return_exceptions=True
        )
        won = [
            password
            for password, result in zip(passwords, results, strict=True)
            if isinstance(result, invitations_pb2.AcceptInvitationResponse)
        ]
        assert len(won) == 1
        await stack.sign_in(shared.slug, user.email, won[0])

    async def bad(self, own, school, database):
        """A token of each kind that must not work."""
        made = {}
        for kind in ("used", "revoked", "expired", "guessed", "moved", "deleted", "deactivated", "address"):
            user = await own.user("student")
            invitation = await invite(own.admin, user.id)
            made[kind] = (user.id, invitation)
        tokens = {kind: invitation.token for kind, (_, invitation) in made.items()}
        revoke = invitations_pb2.RevokeInvitationRequest(id=made["revoked"][1].id)
        await invitations_of(own.admin).RevokeInvitation(revoke)
        await database.execute(
            "UPDATE identity.invitations SET expires_at = now() WHERE id = $1", UUID(made["expired"][1].id)
        )
        data = base64.urlsafe_b64decode(tokens["guessed"] + "==")
        tokens["guessed"] = base64.urlsafe_b64encode(data[:32] + bytes(32)).decode().rstrip("=")
        data = base64.urlsafe_b64decode(tokens["moved"] + "==")
        elsewhere = UUID(school.admin.tenant_id).bytes
        tokens["moved"] = base64.urlsafe_b64encode(elsewhere + data[16:]).decode().rstrip("=")
        await own.users.DeleteUser(users_pb2.DeleteUserRequest(id=made["deleted"][0]))
        await own.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=made["deactivated"][0]))
        changed = users_pb2.User(id=made["address"][0], email=f"corrected-{own.slug}@example.org")
        await own.users.UpdateUser(
            users_pb2.UpdateUserRequest(user=changed, update_mask=FieldMask(paths=["email"]))
        )
        tokens["unknown"] = InvitationSecret.new(UUID(own.tenant.id), uuid4()).text
        tokens["nowhere"] = InvitationSecret.new(uuid4(), uuid4()).text
        tokens["malformed"] = "no token at all"
        return tokens

    async def test_answers_the_same_to_every_bad_token(self, own, school, accept, database):
        tokens = await self.bad(own, school, database)
        await accept(tokens["used"])
        suspended = await own.user("student")
        tokens["suspended"] = (await invite(own.admin, suspended.id)).token
        await school.root.stub(TenantServiceStub, "identity").SuspendTenant(
            tenants_pb2.SuspendTenantRequest(id=own.tenant.id)
        )
        answers = {}
        for kind, token in tokens.items():
            async with refused("INVALID_TOKEN") as refusal:
                await accept(token)
            answers[kind] = refusal.status.SerializeToString()
        assert len(answers) == 12
        assert len(set(answers.values())) == 1

    async def test_a_state_that_comes_back_brings_no_token_back(self, shared, accept):
        user = await shared.user("student")
        invitation = await invite(shared.admin, user.id)
        await shared.users.DeleteUser(users_pb2.DeleteUserRequest(id=user.id))
        await shared.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=user.id))
        async with refused("INVALID_TOKEN"):
            await accept(invitation.token)
        await accept((await invite(shared.admin, user.id)).token)

    async def test_guessing_is_slowed_for_one_address_only(self, shared, accept):
        user = await shared.user("student")
        invitation = await invite(shared.admin, user.id)
        data = base64.urlsafe_b64decode(invitation.token + "==")
        guess = base64.urlsafe_b64encode(data[:32] + bytes(32)).decode()
        for _ in range(5):
            async with refused("INVALID_TOKEN"):
                await accept(guess, address="192.0.2.77")
        async with refused("TOO_MANY_ATTEMPTS"):
            await accept(invitation.token, address="192.0.2.77")
        await accept(invitation.token, address="198.51.100.77")

    async def test_a_bad_token_costs_no_hash(self, shared, accept, stack, monkeypatch):
        hashed = []
        monkeypatch.setattr("services.identity.passwords.Passwords.hash", lambda *_: hashed.append(1))
        async with refused("INVALID_TOKEN"):
            await accept(InvitationSecret.new(UUID(shared.tenant.id), uuid4()).text)
        assert hashed == []

    async def test_refuses_a_short_password(self, accept):
        async with refused("INVALID_FIELD", field="password"):
            await accept("anything", "short")

    async def test_is_audited_as_done_by_the_user(self, shared, school, accept, database):
        user = await shared.user("student")
        invitation = await invite(shared.admin, user.id)
        await accept(invitation.token)
        await school.settle()
        query = "SELECT action, user_id FROM audit.audit_logs WHERE entity_id = $1 ORDER BY id"
        rows = await database.fetch(query, UUID(invitation.id))
        assert [row["action"] for row in rows] == ["create", "accept"]
        assert [row["user_id"] for row in rows] == [UUID(shared.admin.user_id), UUID(user.id)]
        rows = await database.fetch(query, UUID(user.id))
        assert rows[-1]["action"] == "activate"

    async def test_staff_of_the_platform_is_invited_the_same_way(self, school, accept, stack):
        user = users_pb2.User(email="new-staff@platform.example", display_name="Staff", roles=["system_admin"])
        request = invitations_pb2.CreateInvitationRequest(user=user)
        invitation = await invitations_of(school.root).CreateInvitation(request)
        answer = await accept(invitation.token)
        assert answer.tenant == "platform"
        await stack.sign_in("platform", user.email, NEW_PASSWORD)


class TestRevokeInvitation:
    def revoke(self, person, invitation, etag=""):
        request = invitations_pb2.RevokeInvitationRequest(id=invitation.id, etag=etag)
        return invitations_of(person).RevokeInvitation(request)

    async def test_takes_only_a_pending_one(self, shared):
        invitation = await invite(shared.admin, (await shared.user("student")).id)
        async with refused("STALE_ETAG"):
            await self.revoke(shared.admin, invitation, "77")
        revoked = await self.revoke(shared.admin, invitation, invitation.etag)
        assert revoked.state == invitations_pb2.INVITATION_STATE_REVOKED
        assert revoked.HasField("revoke_time")
        async with refused("WRONG_STATE") as refusal:
            await self.revoke(shared.admin, invitation)
        assert refusal.metadata["state"] == "revoked"

    async def test_comes_before_or_after_accepting_but_never_both(self, shared, accept):
        for _ in range(3):
            user = await shared.user("student")
            invitation = await invite(shared.admin, user.id)
            results = await asyncio.gather(
                accept(invitation.token), self.revoke(shared.admin, invitation), return_exceptions=True
            )
            assert sum(not isinstance(one, Exception) for one in results) == 1
            state = await state_of(shared.admin, invitation)
            assert state.endswith("_REVOKED" if isinstance(results[0], Exception) else "_ACCEPTED")


class TestListInvitations:
    async def listed(self, person, **filters):
        request = invitations_pb2.ListInvitationsRequest(**filters)
        response = await invitations_of(person).ListInvitations(request)
        assert not any(one.token for one in response.invitations)
        return [one.id for one in response.invitations]

    async def test_filters_by_user_and_state(self, own, accept, database):
        users = [await own.user("student") for _ in range(4)]
        made = [await invite(own.admin, user.id) for user in users]
        again = await invite(own.admin, users[0].id)
        await accept(made[1].token)
        await database.execute("UPDATE identity.invitations SET expires_at = now() WHERE id = $1", UUID(made[2].id))
        ids = [one.id for one in made]
        assert await self.listed(own.admin) == [again.id, *reversed(ids)]
        assert await self.listed(own.admin, user_id=users[0].id) == [again.id, ids[0]]
        wanted = {"PENDING": [again.id, ids[3]], "ACCEPTED": [ids[1]], "REVOKED": [ids[0]], "EXPIRED": [ids[2]]}
        for name, found in wanted.items():
            assert await self.listed(own.admin, state=f"INVITATION_STATE_{name}") == found

    async def test_pages_hold_every_one_once(self, own):
        made = [(await invite(own.admin, (await own.user()).id)).id for _ in range(3)]
        request = invitations_pb2.ListInvitationsRequest(page_size=2)
        first = await invitations_of(own.admin).ListInvitations(request)
        request.page_token = first.next_page_token
        second = await invitations_of(own.admin).ListInvitations(request)
        assert [one.id for one in (*first.invitations, *second.invitations)] == made[::-1]

    async def test_a_teacher_may_not(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await self.listed(school.teacher)


class TestInvitationSecret:
    def test_is_not_a_refresh_token_and_says_so_in_its_own_words(self):
        with pytest.raises(Unauthenticated, match="ask for a new one"):
            InvitationSecret.parse("x")
        secret = InvitationSecret.new(uuid4(), uuid4())
        assert InvitationSecret.parse(secret.text) == secret
        assert len(secret.text) == 86
