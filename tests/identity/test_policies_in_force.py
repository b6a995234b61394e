"""Policies put in force and taken out of it, and what services make of them meanwhile."""

import asyncio
import json
import time

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1 import stories_pb2
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.identity.v1 import roles_pb2, users_pb2
from storyloom.identity.v1.resource_policies_pb2 import PolicyState
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.identity.waiting import soon_allowed, soon_refused
from tests.identity.writing_policies import (
    ALWAYS,
    PUBLISHED,
    change,
    do,
    name,
    put_in_force,
    restore,
    value,
    write,
    writer,
)
from tests.stack import PASSWORD, refused


class TestActivateResourcePolicy:
    async def test_puts_it_in_force_once(self, shared):
        made = await write(shared.admin, name(), "deny story:archive")
        active = await do(shared.admin, "Activate", made, etag=made.etag)
        assert (active.state, active.version) == (PolicyState.POLICY_STATE_ACTIVE, 1)
        async with refused("WRONG_STATE"):
            await do(shared.admin, "Activate", made)
        async with refused("STALE_ETAG"):
            await do(shared.admin, "Deactivate", made, etag=made.etag)

    async def test_refuses_what_the_caller_may_not_allow(self, shared):
        person = await writer(shared)
        made = await write(shared.admin, name(), "allow story:publish")
        async with refused("PERMISSION_REQUIRED"):
            await do(person, "Activate", made)
        await do(person, "Activate", await write(person, name(), "deny story:publish"))

    async def test_refuses_what_does_not_fit_the_platform_any_more(self, shared, database):
        made = await write(shared.admin, name(), "deny story:archive", PUBLISHED)
        await database.execute(
            "UPDATE identity.resource_policies SET conditions = $2::jsonb WHERE id = $1",
            made.id,
            json.dumps([{"field": "story.mood", "operator": "eq", "value": "glad"}]),
        )
        async with refused("INVALID_FIELD", field="policy.conditions[0].field"):
            await do(shared.admin, "Activate", made)
        assert (await do(shared.admin, "Get", made)).state == PolicyState.POLICY_STATE_DRAFT

    async def test_stops_at_two_hundred_even_of_many_at_once(self, own, database):
        made = await write(own.admin, name(), "deny story:archive")
        await database.execute(
            """
            INSERT INTO identity.resource_policies
              (tenant_id, name, description, resource, actions, conditions, effect, priority, version, state)
            SELECT tenant_id, n::text, '', resource, actions, conditions, effect, 0, 1, 'active'
            FROM identity.resource_policies, generate_series(1, 198) n WHERE id = $1
            """,
            made.id,
        )
        drafts = [made, *[await write(own.admin, name(), "deny story:archive") for _ in range(3)]]
        tried = await asyncio.gather(*(do(own.admin, "Activate", one) for one in drafts), return_exceptions=True)
        assert sum(isinstance(one, grpc.aio.AioRpcError) for one in tried) == 2
        count = "SELECT count(*) FROM identity.resource_policies WHERE tenant_id = $1 AND state = 'active'"
        assert await database.fetchval(count, own.tenant.id) == 200
        async with refused("WRONG_STATE") as refusal:
            await put_in_force(own.admin, name(), "deny story:archive")
        assert refusal.metadata == {"state": "most_policies", "most": "200"}

    async def test_stops_at_what_services_can_read_and_compile_in_no_time(self, own):
        values = [f"{n:04} {'x' * 92}" for n in range(400)]
        long = [{"field": "user.level", "operator": "in", "value": values}]
        active = [await put_in_force(own.admin, name(), "deny story:archive", long) for _ in range(3)]
        draft = await write(own.admin, name(), "deny story:archive", long)
        async with refused("WRONG_STATE") as refusal:
            await do(own.admin, "Activate", draft)
        assert refusal.metadata["most_bytes"] == "131072"
        long[0]["value"] = [one + "y" * 50 for one in values]
        async with refused("WRONG_STATE"):
            await change(own.admin, active[0], "conditions", conditions=value(long))
        await do(own.admin, "Deactivate", active[0])
        await do(own.admin, "Activate", draft)


class TestDeactivateResourcePolicy:
    async def test_makes_it_a_draft_again(self, shared):
        active = await put_in_force(shared.admin, name(), "deny story:archive")
        draft = await do(shared.admin, "Deactivate", active)
        assert draft.state == PolicyState.POLICY_STATE_DRAFT
        async with refused("WRONG_STATE"):
            await do(shared.admin, "Deactivate", active)

    async def test_lets_nobody_lift_a_refusal_of_what_they_may_not_do(self, shared):
        person = await writer(shared)
        refusing = await put_in_force(shared.admin, name(), "deny story:archive")
        allowing = await put_in_force(shared.admin, name(), "allow story:archive")
        async with refused("PERMISSION_REQUIRED"):
            await do(person, "Deactivate", refusing)
        await do(person, "Deactivate", allowing)


class Writer:
    """A teacher with a story of their own, and what another person of the tenant may do to it."""

    def __init__(self, own, author, reader, story):
        self.own, self.author, self.reader, self.story = own, author, reader, story

    @property
    def stories(self):
        return self.reader.stub(StoryServiceStub, "content")

    async def get(self):
        return await self.stories.GetStory(stories_pb2.GetStoryRequest(id=self.story.id))

    async def update(self):
        changed = stories_pb2.Story(id=self.story.id, title="Another title")
        return await self.stories.UpdateStory(stories_pb2.UpdateStoryRequest(story=changed))

    async def listed(self):
        page = await self.stories.ListStories(stories_pb2.ListStoriesRequest())
        return self.story.id in {one.id for one in page.stories}

    async def soon_listed(self, wanted):
        until = time.monotonic() + 2
        while await self.listed() is not wanted:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)


async def published_by(own, reader_role):
    """A draft of a new teacher's, and a new reader."""
    author, reader = await own.person("teacher"), await own.person(reader_role)
    story = stories_pb2.Story(title="x", text="Ngày xưa.", language="vi", learning_language="en")
    request = stories_pb2.CreateStoryRequest(story=story)
    return Writer(own, author, reader, await author.stub(StoryServiceStub, "content").CreateStory(request))


def of_author(author):
    return [{"field": "story.author_id", "operator": "eq", "value": author.user_id}]


class TestEffect:
    async def test_of_a_refusal_is_seen_in_reads_lists_and_changes_until_it_ends(self, own):
        case = await published_by(own, "teacher")
        await case.update()
        refusing = await put_in_force(own.admin, name(), "deny story", of_author(case.author))
        await soon_refused("PERMISSION_REQUIRED", case.get)
        await soon_refused("PERMISSION_REQUIRED", case.update)
        await case.soon_listed(False)
        await do(own.admin, "Deactivate", refusing)
        await soon_allowed(case.get)
        await soon_allowed(case.update)
        await case.soon_listed(True)

    async def test_of_a_permission_is_seen_in_reads_lists_and_changes(self, own):
        case = await published_by(own, "student")
        async with refused("PERMISSION_REQUIRED"):
            await case.get()
        assert not await case.listed()
        allowing = await put_in_force(own.admin, name(), "allow story:read,list,update", of_author(case.author))
        await soon_allowed(case.get)
        await soon_allowed(case.update)
        await case.soon_listed(True)
        await change(own.admin, allowing, actions=["read"])
        await soon_refused("PERMISSION_REQUIRED", case.update)
        await case.soon_listed(False)
        await case.get()

    async def test_is_that_of_the_highest_priority_and_of_refusals_first(self, own):
        case = await published_by(own, "teacher")
        allowing = await put_in_force(own.admin, name(), "allow story:read", ALWAYS)
        await put_in_force(own.admin, name(), "deny story:read", ALWAYS)
        await soon_refused("PERMISSION_REQUIRED", case.get)
        await change(own.admin, allowing, priority=1)
        await soon_allowed(case.get)

    async def test_follows_the_attributes_of_the_user(self, own):
        case = await published_by(own, "teacher")
        level = [{"field": "user.level", "operator": "eq", "value": "A1"}]
        await put_in_force(own.admin, name(), "deny all:read", level)
        users = own.admin.stub(UserServiceStub, "identity")
        changed = users_pb2.User(id=case.reader.user_id, level="A1")
        await users.UpdateUser(users_pb2.UpdateUserRequest(user=changed))
        await soon_refused("PERMISSION_REQUIRED", case.get)
        changed.level = "A2"
        await users.UpdateUser(users_pb2.UpdateUserRequest(user=changed, update_mask=FieldMask(paths=["level"])))
        await soon_allowed(case.get)

    async def test_is_taken_back_by_an_earlier_version(self, own):
        case = await published_by(own, "teacher")
        nobody = [{"field": "user.level", "operator": "eq", "value": "none"}]
        refusing = await put_in_force(own.admin, name(), "deny story:read", nobody)
        await change(own.admin, refusing, conditions=value(ALWAYS))
        await soon_refused("PERMISSION_REQUIRED", case.get)
        await restore(own.admin, refusing, 1)
        await soon_allowed(case.get)

    async def test_never_shuts_out_those_who_manage_policies(self, own):
        case = await published_by(own, "teacher")
        closed = await put_in_force(own.admin, name(), "deny all", ALWAYS, priority=1000)
        await soon_refused("PERMISSION_REQUIRED", case.get)
        await do(own.admin, "Deactivate", closed)
        await soon_allowed(case.get)

    async def test_of_the_platforms_own_reaches_every_tenant_and_no_tenants_own_reaches_another(
        self, own, found, school
    ):
        other = await found()
        mine, theirs = await published_by(own, "teacher"), await published_by(other, "teacher")
        await put_in_force(own.admin, name(), "deny story:read", ALWAYS)
        await soon_refused("PERMISSION_REQUIRED", mine.get)
        await theirs.get()
        everywhere = await put_in_force(school.root, name(), "deny story:read", of_author(theirs.author))
        try:
            await soon_refused("PERMISSION_REQUIRED", theirs.get)
            # A tenant's own cannot overrule it.
            await put_in_force(other.admin, name(), "allow story:read", ALWAYS, priority=1000)
            await asyncio.sleep(1)
            async with refused("PERMISSION_REQUIRED"):
                await theirs.get()
        finally:
            await do(school.root, "Deactivate", everywhere)
        await soon_allowed(theirs.get)


class TestFactsThatPoliciesLookAt:
    """Whoever may change facts about users gives nobody, not even themselves, what policies make of the facts."""

    @pytest.fixture
    async def registrar(self, own):
        roles = own.admin.stub(RoleServiceStub, "identity")
        pairs = [("user", action) for action in ("create", "read", "update", "set_roles")]
        permissions = [roles_pb2.Permission(resource=one, action=two) for one, two in pairs]
        for slug, held in (("registrar", permissions), ("editor", []), ("guest", [])):
            role = roles_pb2.Role(slug=slug, name=slug, permissions=held)
            await roles.CreateRole(roles_pb2.CreateRoleRequest(role=role))
        await put_in_force(own.admin, name(), "allow story:publish", [one("user.role", "in", ["editor"])])
        await put_in_force(own.admin, name(), "deny story:read", [one("user.attributes.exam", "eq", True)])
        alike = [one("user.level", "eq", {"ref": "user.attributes.x"})]
        await put_in_force(own.admin, name(), "allow quiz:read", alike)
        return await own.person("registrar")

    @pytest.fixture
    def users(self, registrar):
        return registrar.stub(UserServiceStub, "identity")

    async def test_roles(self, own, registrar, users):
        page = await own.admin.stub(RoleServiceStub, "identity").ListRoles(roles_pb2.ListRolesRequest())
        ids = {one.slug: one.id for one in page.roles}

        def given(*slugs):
            wanted = [ids[slug] for slug in ("registrar", *slugs)]
            return users.SetUserRoles(users_pb2.SetUserRolesRequest(id=registrar.user_id, role_ids=wanted))

        async with refused("PERMISSION_REQUIRED") as refusal:
            await given("editor")
        assert refusal.metadata["permission"] == "story:publish"
        await given("guest")

    @pytest.mark.parametrize(("fact", "needed"), [
        ({"attributes": {"exam": False}}, "story:read"),
        ({"attributes": {"x": "A1"}}, "quiz:read"),
        ({"level": "A1"}, "quiz:read"),
    ])  # fmt: skip
    async def test_level_and_attributes(self, registrar, users, fact, needed):
        me = users_pb2.User(id=registrar.user_id, **fact)
        async with refused("PERMISSION_REQUIRED") as refusal:
            await users.UpdateUser(users_pb2.UpdateUserRequest(user=me))
        assert refusal.metadata["permission"] == needed
        new = users_pb2.User(email="new@example.com", display_name="New", **fact)
        async with refused("PERMISSION_REQUIRED"):
            await users.CreateUser(users_pb2.CreateUserRequest(user=new, password=PASSWORD))

    async def test_what_no_policy_looks_at_is_free(self, own, registrar, users):
        me = users_pb2.User(id=registrar.user_id, attributes={"shoe": 44})
        await users.UpdateUser(users_pb2.UpdateUserRequest(user=me))
        me = users_pb2.User(id=registrar.user_id, level="A1", attributes={"exam": True})
        await own.users.UpdateUser(users_pb2.UpdateUserRequest(user=me))


def one(field, operator, other):
    return {"field": field, "operator": operator, "value": other}
