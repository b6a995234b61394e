"""Policies: written, changed, put in force, rolled back."""

import asyncio
import json

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from storyloom.audit.v1 import audit_logs_pb2
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1 import resource_policies_pb2
from storyloom.identity.v1.resource_policies_pb2 import PolicyEffect, PolicyState
from tests.identity.writing_policies import (
    ALWAYS,
    PUBLISHED,
    change,
    do,
    name,
    policies_of,
    policy,
    put_in_force,
    restore,
    value,
    write,
    writer,
)
from tests.stack import refused


async def listed(person, **filters):
    request = resource_policies_pb2.ListResourcePoliciesRequest(**filters)
    return await policies_of(person).ListResourcePolicies(request)


async def versions(person, written, **paging):
    request = resource_policies_pb2.ListResourcePolicyVersionsRequest(policy_id=written.id, **paging)
    return await policies_of(person).ListResourcePolicyVersions(request)


async def entries(own, written):
    """What the audit log says of the policy, oldest first: (action, old, new)."""
    await own.admin.stack.settle()
    log = own.admin.stub(AuditLogServiceStub, "audit")
    request = audit_logs_pb2.ListAuditLogsRequest(entity_id=written.id)
    found = (await log.ListAuditLogs(request)).audit_logs
    return [(one.action, MessageToDict(one.old_values), MessageToDict(one.new_values)) for one in reversed(found)]


class TestCreateResourcePolicy:
    async def test_returns_a_draft_that_says_what_was_written(self, shared):
        called = name()
        made = await write(
            shared.admin, called, "allow story:read,list", PUBLISHED, description="Published ones", priority=-7
        )
        assert (made.name, made.description, made.priority, made.version) == (called, "Published ones", -7, 1)
        assert (made.resource, list(made.actions)) == ("story", ["read", "list"])
        assert MessageToDict(made.conditions) == PUBLISHED
        assert (made.effect, made.state) == (PolicyEffect.POLICY_EFFECT_ALLOW, PolicyState.POLICY_STATE_DRAFT)
        assert await do(shared.admin, "Get", made) == made

    @pytest.mark.parametrize(
        "document",
        [
            [{"field": "story.status", "operator": "ne", "value": "archived"},
             {"field": "user.role", "operator": "in", "value": ["teacher", "giáo viên"], "logic": "or"}],
            {"all": [{"any": [{"not": {"always": True}}]}, {"field": "user.level", "operator": "gte", "value": "B1"}]},
            {"field": "story.author_id", "operator": "eq", "value": {"ref": "user.id"}},
            {"field": "story.author_id", "operator": "eq", "value": "user.id"},
            [{"field": "user.attributes.floor", "operator": "lt", "value": 0.1}],
            [{"field": "user.attributes.floor", "operator": "in", "value": [1, 2.5, True, "1"]}],
            [{"field": "request.time", "operator": "lt", "value": "2027-01-01T00:00:00Z"}],
            [{"field": "resource.status", "operator": "eq", "value": "STORY_STATUS_PUBLISHED"}],
        ],
    )  # fmt: skip
    async def test_keeps_the_document_as_it_was_written(self, document, shared):
        made = await write(shared.admin, name(), conditions=document)
        assert MessageToDict((await do(shared.admin, "Get", made)).conditions) == document

    @pytest.mark.parametrize(
        ("document", "field"),
        [
            ([], "policy.conditions"),
            ("always", "policy.conditions"),
            (None, "policy.conditions"),
            ({"always": False}, "policy.conditions"),
            ([{"field": "story.colour", "operator": "eq", "value": "red"}], "policy.conditions[0].field"),
            ([{"field": "course.status", "operator": "eq", "value": "draft"}], "policy.conditions[0].field"),
            ([{"field": "user.password_hash", "operator": "eq", "value": "x"}], "policy.conditions[0].field"),
            ([{"field": "story.status", "operator": "like", "value": "x"}], "policy.conditions[0].operator"),
            ([{"field": "story.status", "operator": [], "value": "x"}], "policy.conditions[0].operator"),
            ([{"field": "story.status", "operator": "eq", "value": "finished"}], "policy.conditions[0].value"),
            ([{"field": "story.status", "operator": "eq", "value": 1}], "policy.conditions[0].value"),
            ([{"field": "story.id", "operator": "eq", "value": "x"}], "policy.conditions[0].value"),
            ([{"field": "story.id", "operator": "gt", "value": "user.id"}], "policy.conditions[0].operator"),
            (
                [{"field": "request.time", "operator": "gt", "value": "0001-01-01T00:00:00+23:59"}],
                "policy.conditions[0].value",
            ),
            ([*PUBLISHED, PUBLISHED[0] | {"logic": "xor"}], "policy.conditions[1].logic"),
            ([PUBLISHED[0] | {"logic": []}], "policy.conditions[0].logic"),
            ([PUBLISHED[0] | {"logic": "\0"}], "policy.conditions[0].logic"),
            ([{"field": "user.level", "operator": "eq", "value": "\0"}], "policy.conditions[0].value"),
            ({"all": [{"any": [{"field": "x"}]}]}, "policy.conditions.all[0].any[0].field"),
        ],
    )
    async def test_names_the_place_of_what_is_wrong_with_a_condition(self, document, field, shared):
        async with refused("INVALID_FIELD", field=field):
            await write(shared.admin, name(), conditions=document)

    async def test_refuses_conditions_that_are_too_deep_too_many_or_too_long(self, shared):
        deep = ALWAYS
        for _ in range(9):
            deep = {"not": deep}
        long = [{"field": "user.level", "operator": "eq", "value": "é" * 1000}] * 99
        for document in (deep, PUBLISHED * 101, long):
            async with refused("INVALID_FIELD") as refusal:
                await write(shared.admin, name(), conditions=document)
            assert refusal.fields[0].startswith("policy.conditions")

    @pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
    async def test_refuses_numbers_that_json_has_not(self, number, shared):
        document = value([{"field": "user.attributes.x", "operator": "eq", "value": 1}])
        sent = policy(name())
        document.list_value[0]["value"] = float(number)
        sent.conditions.CopyFrom(document)
        async with refused("INVALID_FIELD", field="policy.conditions"):
            request = resource_policies_pb2.CreateResourcePolicyRequest(policy=sent)
            await policies_of(shared.admin).CreateResourcePolicy(request)

    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ("deny dragon", "policy.resource"),
            ("deny dragon:read", "policy.resource"),
            ("deny resource_policy", "policy.resource"),
            ("deny story_version:approve", "policy.resource"),
            ("deny lesson:approve", "policy.actions[0]"),
            ("deny story:read,fly", "policy.actions[1]"),
            ("deny role:publish", "policy.actions[0]"),
            ("deny all:fly", "policy.actions[0]"),
        ],
    )
    async def test_refuses_what_is_not_in_the_catalogue(self, text, field, shared):
        async with refused("INVALID_FIELD", field=field):
            await write(shared.admin, name(), text)

    async def test_takes_all_kinds_of_resources_with_conditions_on_who_calls_and_when(self, shared):
        level = [{"field": "user.level", "operator": "eq", "value": "A1"}]
        made = await write(shared.admin, name(), "deny all:publish,manage", level)
        assert (made.resource, list(made.actions)) == ("all", ["publish", "manage"])
        for path in ("story.status", "resource.status", "all.status"):
            async with refused("INVALID_FIELD", field="policy.conditions[0].field"):
                await write(shared.admin, name(), "deny all", [PUBLISHED[0] | {"field": path}])

    @pytest.mark.parametrize("missing", ["name", "resource", "conditions", "effect"])
    async def test_needs_what_a_policy_is_made_of(self, missing, shared):
        sent = policy(name())
        sent.ClearField(missing)
        async with refused("INVALID_FIELD", field="policy"):
            request = resource_policies_pb2.CreateResourcePolicyRequest(policy=sent)
            await policies_of(shared.admin).CreateResourcePolicy(request)

    async def test_refuses_a_name_that_a_policy_has_in_whatever_case(self, shared):
        called = name()
        first = await write(shared.admin, called)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await write(shared.admin, called.upper())
        await do(shared.admin, "Delete", first)
        await write(shared.admin, called)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await do(shared.admin, "Undelete", first)

    async def test_lets_nobody_allow_what_they_may_not_do_for_good(self, shared):
        person = await writer(shared, "story:read", "story:update")
        await write(person, name(), "allow story:read,update")
        await write(person, name(), "deny story:archive")
        for text in ("allow story:read,publish", "allow story", "allow story:manage", "allow all:read", "allow all"):
            async with refused("PERMISSION_REQUIRED"):
                await write(person, name(), text)

    async def test_is_for_administrators(self, school):
        for person in (school.teacher, school.student, school.auditor):
            async with refused("PERMISSION_REQUIRED", code=grpc.StatusCode.PERMISSION_DENIED):
                await write(person, name())


class TestGetResourcePolicy:
    async def test_answers_alike_for_foreign_absent_and_deleted_ones(self, shared, school):
        made, gone = await write(shared.admin, name()), await write(shared.admin, name())
        await do(shared.admin, "Delete", gone)
        for person, one in ((school.admin, made), (shared.admin, gone)):
            async with refused("RESOURCE_NOT_FOUND"):
                await do(person, "Get", one)


class TestListResourcePolicies:
    async def test_filters_pages_and_shows_deleted_ones_apart(self, own):
        stories = [await write(own.admin, name(), "deny story") for _ in range(3)]
        courses = await write(own.admin, name(), "deny course")
        await do(own.admin, "Activate", stories[0])
        await do(own.admin, "Delete", stories[1])
        newest = [courses.id, stories[2].id, stories[0].id]
        assert [one.id for one in (await listed(own.admin)).policies] == newest
        assert [one.id for one in (await listed(own.admin, resource="story")).policies] == newest[1:]
        active = await listed(own.admin, state=PolicyState.POLICY_STATE_ACTIVE)
        assert [one.id for one in active.policies] == [stories[0].id]
        deleted = await listed(own.admin, deleted=True)
        assert [(one.id, one.HasField("delete_time")) for one in deleted.policies] == [(stories[1].id, True)]
        first = await listed(own.admin, page_size=2)
        rest = await listed(own.admin, page_size=2, page_token=first.next_page_token)
        assert [one.id for one in (*first.policies, *rest.policies)] == newest
        assert not rest.next_page_token


class TestUpdateResourcePolicy:
    async def test_makes_the_next_version_of_the_populated_fields_or_those_of_the_mask(self, shared):
        made = await write(shared.admin, name(), "deny story:read", PUBLISHED, priority=5, description="x")
        changed = await change(shared.admin, made, priority=6)
        assert (changed.version, changed.priority, changed.description) == (2, 6, "x")
        cleared = await change(shared.admin, made, "actions", "priority", "description")
        assert (cleared.version, cleared.priority, cleared.description, list(cleared.actions)) == (3, 0, "", [])
        assert MessageToDict(cleared.conditions) == PUBLISHED

    @pytest.mark.parametrize("path", ["name", "resource", "conditions", "effect"])
    async def test_takes_nothing_away_that_a_policy_needs(self, path, shared):
        made = await write(shared.admin, name())
        async with refused("INVALID_FIELD") as refusal:
            await change(shared.admin, made, path)
        assert refusal.fields == [f"policy.{path}"]

    @pytest.mark.parametrize("path", ["state", "version", "id", "tenant_id"])
    async def test_writes_nothing_else(self, path, shared):
        made = await write(shared.admin, name())
        async with refused("INVALID_UPDATE_MASK", field="update_mask"):
            await change(shared.admin, made, path)

    async def test_checks_the_whole_as_it_would_be(self, shared):
        made = await write(shared.admin, name(), "deny story", PUBLISHED)
        async with refused("INVALID_FIELD", field="policy.conditions[0].field"):
            await change(shared.admin, made, resource="course")
        assert (await do(shared.admin, "Get", made)).version == 1

    async def test_tells_values_apart_that_python_takes_for_equal(self, shared):
        one = [{"field": "user.attributes.x", "operator": "eq", "value": 1}]
        made = await write(shared.admin, name(), conditions=one)
        true = [one[0] | {"value": True}]
        await change(shared.admin, made, conditions=value(true))
        stored = MessageToDict((await do(shared.admin, "Get", made)).conditions)
        assert json.dumps(stored, sort_keys=True) == json.dumps(true, sort_keys=True)

    async def test_lets_one_of_two_win_who_saw_the_same_state(self, shared):
        made = await write(shared.admin, name())
        tried = await asyncio.gather(
            *(change(shared.admin, made, priority=n + 1, etag=made.etag) for n in range(4)), return_exceptions=True
        )
        won = [one for one in tried if not isinstance(one, grpc.aio.AioRpcError)]
        assert [one.version for one in won] == [2]
        assert {one.code() for one in tried if one is not won[0]} == {grpc.StatusCode.ABORTED}
        async with refused("STALE_ETAG"):
            await change(shared.admin, made, priority=9, etag=made.etag)

    async def test_counts_versions_without_gap_when_many_write_at_once(self, shared):
        made = await write(shared.admin, name())
        await asyncio.gather(*(change(shared.admin, made, priority=n + 1) for n in range(6)))
        assert [one.version for one in (await versions(shared.admin, made)).versions] == [7, 6, 5, 4, 3, 2, 1]

    async def test_lets_nobody_lift_a_refusal_of_what_they_may_not_do(self, shared):
        person = await writer(shared, "story:read")
        made = await write(shared.admin, name(), "deny story:publish")
        for fields in ({"priority": -1}, {"conditions": value(PUBLISHED)}, {"actions": ["read"]}):
            async with refused("PERMISSION_REQUIRED") as refusal:
                await change(person, made, **fields)
            assert refusal.metadata["permission"] == "story:publish"
        theirs = await write(person, name(), "deny story:read")
        await change(person, theirs, priority=3)
        async with refused("PERMISSION_REQUIRED"):
            await change(person, theirs, effect=PolicyEffect.POLICY_EFFECT_ALLOW, actions=["update"])


class TestDeleteResourcePolicy:
    async def test_takes_drafts_only_and_can_be_taken_back(self, shared):
        active = await put_in_force(shared.admin, name(), "deny story:archive")
        async with refused("WRONG_STATE"):
            await do(shared.admin, "Delete", active)
        await do(shared.admin, "Deactivate", active)
        gone = await do(shared.admin, "Delete", active)
        assert gone.HasField("delete_time")
        for verb in ("Get", "Activate", "Delete"):
            async with refused("RESOURCE_NOT_FOUND"):
                await do(shared.admin, verb, active)
        back = await do(shared.admin, "Undelete", active)
        assert (back.state, back.HasField("delete_time")) == (PolicyState.POLICY_STATE_DRAFT, False)

    async def test_lets_nobody_do_away_with_a_refusal_of_what_they_may_not_do(self, shared):
        person = await writer(shared)
        made = await write(shared.admin, name(), "deny story:archive")
        async with refused("PERMISSION_REQUIRED"):
            await do(person, "Delete", made)
        await do(person, "Delete", await write(shared.admin, name(), "allow story:archive"))


class TestUndeleteResourcePolicy:
    async def test_refuses_what_is_not_deleted(self, shared):
        made = await write(shared.admin, name())
        async with refused("WRONG_STATE"):
            await do(shared.admin, "Undelete", made)
        await do(shared.admin, "Delete", made)
        async with refused("STALE_ETAG"):
            await do(shared.admin, "Undelete", made, etag=made.etag)


class TestListResourcePolicyVersions:
    async def test_tells_who_wrote_what_latest_first_and_in_pages(self, shared):
        person = await writer(shared, "story:update")
        called = name()
        made = await write(shared.admin, called, "deny story:update", PUBLISHED)
        await change(person, made, priority=4)
        await do(shared.admin, "Activate", made)
        await change(shared.admin, made, conditions=value(ALWAYS))
        first = await versions(shared.admin, made, page_size=2)
        rest = await versions(shared.admin, made, page_size=2, page_token=first.next_page_token)
        found = [*first.versions, *rest.versions]
        assert [(one.version, one.author_id) for one in found] == [
            (3, shared.admin.user_id),
            (2, person.user_id),
            (1, shared.admin.user_id),
        ]
        assert [one.policy.priority for one in found] == [4, 4, 0]
        assert [MessageToDict(one.policy.conditions) for one in found] == [ALWAYS, PUBLISHED, PUBLISHED]
        assert {(one.policy.id, one.policy.name, one.policy.etag) for one in found} == {(made.id, called, "")}

    async def test_is_nobody_elses(self, shared, school):
        made = await write(shared.admin, name())
        async with refused("RESOURCE_NOT_FOUND"):
            await versions(school.admin, made)


class TestRestoreResourcePolicyVersion:
    async def test_makes_a_new_version_that_says_what_an_old_one_said(self, shared):
        made = await write(shared.admin, name(), "deny story:update", PUBLISHED, priority=1)
        await change(shared.admin, made, name=name(), priority=2, actions=["read"], conditions=value(ALWAYS))
        await do(shared.admin, "Activate", made)
        back = await restore(shared.admin, made, 1)
        assert (back.version, back.state) == (3, PolicyState.POLICY_STATE_ACTIVE)
        assert (back.name, back.priority, list(back.actions)) == (made.name, 1, ["update"])
        assert MessageToDict(back.conditions) == PUBLISHED
        assert len((await versions(shared.admin, made)).versions) == 3

    async def test_refuses_versions_that_do_not_exist_and_stale_etags(self, shared):
        made = await write(shared.admin, name())
        async with refused("RESOURCE_NOT_FOUND"):
            await restore(shared.admin, made, 2)
        await change(shared.admin, made, priority=1)
        async with refused("STALE_ETAG"):
            await restore(shared.admin, made, 1, etag=made.etag)

    async def test_lets_nobody_allow_again_what_they_may_not_do(self, shared):
        person = await writer(shared)
        made = await write(shared.admin, name(), "allow story:archive")
        await change(shared.admin, made, actions=["read"])
        await change(shared.admin, made, effect=PolicyEffect.POLICY_EFFECT_DENY)
        for version in (1, 2):
            async with refused("PERMISSION_REQUIRED"):
                await restore(person, made, version)


class TestAudit:
    async def test_has_one_entry_for_each_change_with_what_it_was_and_is(self, own):
        made = await write(own.admin, name(), "deny story:update", PUBLISHED)
        await do(own.admin, "Activate", made)
        await change(own.admin, made, conditions=value(ALWAYS))
        await restore(own.admin, made, 1)
        await do(own.admin, "Deactivate", made)
        await do(own.admin, "Delete", made)
        await do(own.admin, "Undelete", made)
        found = await entries(own, made)
        actions = ["create", "activate", "update", "restore_version", "deactivate", "delete", "undelete"]
        assert [action for action, _, _ in found] == actions
        by_action = {action: (old, new) for action, old, new in found}
        created = by_action["create"][1]
        assert (created["effect"], created["state"], created["conditions"]) == ("deny", "draft", PUBLISHED)
        assert by_action["activate"] == ({"state": "draft"}, {"state": "active"})
        assert by_action["update"] == ({"conditions": PUBLISHED, "version": 1}, {"conditions": ALWAYS, "version": 2})
        assert by_action["restore_version"][1] == {"conditions": PUBLISHED, "version": 3}

    async def test_has_none_of_what_was_refused(self, shared):
        made = await write(shared.admin, name())
        async with refused("INVALID_FIELD"):
            await change(shared.admin, made, conditions=value([]))
        assert [action for action, _, _ in await entries(shared, made)] == ["create"]


class TestConditions:
    async def test_that_always_hold_are_counted_as_well(self, shared):
        await write(shared.admin, name(), "deny story", [ALWAYS] * 100)
        async with refused("INVALID_FIELD", field="policy.conditions[100]"):
            await write(shared.admin, name(), "deny story", [ALWAYS] * 101)
