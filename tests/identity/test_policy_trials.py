"""Policies tried: on examples, and on the resources that there are."""

import asyncio
from uuid import uuid4

import pytest

from storyloom.content.v1 import stories_pb2
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.identity.v1 import policy_trials_pb2, resource_policies_pb2
from storyloom.identity.v1.policy_trials_pb2_grpc import PolicyTrialServiceStub
from tests.identity.writing_policies import ALWAYS, do, name, policy, value, write, writer
from tests.stack import refused

ME = "01a2037b-3422-731d-b061-cd89d42e871e"


def trials(person):
    return person.stub(PolicyTrialServiceStub, "identity")


def example(called="", **attributes):
    """An example; paths are written with two underscores for the point."""
    found = policy_trials_pb2.PolicyExample(name=called)
    for path, one in attributes.items():
        found.attributes.fields[path.replace("__", ".")].CopyFrom(value(one))
    return found


async def tried(person, conditions, *examples, resource="story"):
    request = policy_trials_pb2.TestPolicyRequest(
        policy=resource_policies_pb2.ResourcePolicy(resource=resource, conditions=value(conditions)), examples=examples
    )
    return (await trials(person).TestPolicy(request)).results


async def holds(person, conditions, resource="story", **attributes):
    (result,) = await tried(person, conditions, example(**attributes), resource=resource)
    return result.holds


def one(field, operator, other, **more):
    return {"field": field, "operator": operator, "value": other, **more}


class TestTestPolicy:
    async def test_tells_whether_conditions_hold_and_which_comparisons_do(self, shared):
        conditions = [
            one("story.status", "eq", "published"),
            one("user.role", "in", ["teacher", "student"]),
            one("user.level", "eq", "B2", logic="or"),
        ]
        results = await tried(
            shared.admin,
            conditions,
            example("read", story__status="published", user__role=["guest", "student"]),
            example("level", story__status="draft", user__role=[], user__level="B2"),
            example("nobody"),
        )
        assert [(it.name, it.holds, list(it.comparisons)) for it in results] == [
            ("read", True, [True, True, False]),
            ("level", True, [False, False, True]),
            ("nobody", False, [False, False, False]),
        ]

    @pytest.mark.parametrize(
        ("comparison", "attributes", "expected"),
        [
            (one("story.author_id", "eq", {"ref": "user.id"}), {"story__author_id": ME, "user__id": ME}, True),
            (one("story.author_id", "eq", "user.id"), {"resource__author_id": ME.upper(), "user__id": ME}, True),
            (one("story.author_id", "eq", "user.id"), {"story__author_id": ME, "user__id": str(uuid4())}, False),
            (one("story.status", "eq", "STORY_STATUS_DRAFT"), {"story__status": "draft"}, True),
            (one("story.status", "eq", "draft"), {"story__status": "STORY_STATUS_DRAFT"}, True),
            (one("resource.status", "ne", "draft"), {"story__status": "archived"}, True),
            (one("request.time", "lt", "2027-01-01T00:00:00Z"), {"request__time": "2026-12-31T23:59:59Z"}, True),
            (one("request.time", "lt", "2027-01-01T00:00:00Z"), {"request__time": "2027-01-01T00:59:59+01:00"}, True),
            (one("request.time", "gt", "2020-01-01T00:00:00Z"), {}, True),
            (one("user.attributes.floor", "gte", 2.5), {"user__attributes__floor": 3}, True),
            (one("user.attributes.floor", "gte", 2.5), {"user__attributes__floor": "3"}, False),
            (one("user.attributes.floor", "in", [1, 2]), {"user__attributes__floor": [7, 2]}, True),
            (one("user.attributes.floor", "ne", 1), {"user__attributes__floor": None}, False),
            (one("user.role", "nin", ["guest"]), {"user__role": ["teacher", "guest"]}, False),
            (one("user.role", "contains", "guest"), {"user__role": ["teacher", "guest"]}, True),
            ({"not": one("user.level", "eq", "A1")}, {}, True),
        ],
    )
    async def test_reads_values_as_decisions_do(self, comparison, attributes, expected, shared):
        assert await holds(shared.admin, comparison, **attributes) is expected

    async def test_knows_a_user_that_is_looked_at_from_the_user_who_looks(self, shared):
        conditions = one("resource.level", "eq", "user.level")
        both = {"resource__level": "A1", "user__level": "A1"}
        assert await holds(shared.admin, conditions, resource="user", **both)
        assert not await holds(shared.admin, conditions, resource="user", **both | {"user__level": "B1"})

    @pytest.mark.parametrize(
        ("path", "other"),
        [
            ("story.colour", "red"),
            ("course.status", "draft"),
            ("user.email", "x"),
            ("user.attributes.Floor", 1),
            ("story.status", "finished"),
            ("story.status", ""),
            ("story.status", 2),
            ("story.status", ["draft"]),
            ("story.author_id", "somebody"),
            ("user.role", "teacher"),
            ("user.role", ["teacher", 1]),
            ("request.time", "yesterday"),
            ("request.time", "2026-01-01T00:00:00"),
        ],
    )
    async def test_names_an_attribute_that_does_not_exist_or_cannot_be_so(self, path, other, shared):
        field = f'examples[1].attributes["{path}"]'
        async with refused("INVALID_FIELD", field=field):
            await tried(shared.admin, ALWAYS, example(), example(**{path.replace(".", "__"): other}))

    async def test_refuses_numbers_that_json_has_not(self, shared):
        odd = example(user__attributes__x=1)
        odd.attributes.fields["user.attributes.x"].number_value = float("nan")
        async with refused("INVALID_FIELD", field='examples[0].attributes["user.attributes.x"]'):
            await tried(shared.admin, ALWAYS, odd)

    async def test_refuses_conditions_as_they_are_refused_when_written(self, shared):
        async with refused("INVALID_FIELD", field="policy.conditions[0].field"):
            await tried(shared.admin, [one("story.colour", "eq", "red")], example())
        async with refused("INVALID_FIELD", field="policy.resource"):
            await tried(shared.admin, ALWAYS, example(), resource="resource_policy")
        async with refused("INVALID_FIELD", field="policy.resource"):
            await tried(shared.admin, ALWAYS, example(), resource="")

    async def test_refuses_what_would_keep_everybody_else_waiting(self, shared):
        conditions = [one("user.attributes.x", "in", list(range(250)))] * 30
        await tried(shared.admin, conditions, example(user__attributes__x=-1))
        async with refused("INVALID_FIELD", field="examples"):
            await tried(shared.admin, conditions, *[example(user__attributes__x=-1)] * 50)
        async with refused("INVALID_FIELD", field="examples"):
            await tried(shared.admin, conditions, example(user__attributes__x=list(range(-100, 0))))

    async def test_long_texts_count_as_many_values(self, shared):
        conditions = [one("user.attributes.x", "contains", "a" * 900, logic="or") for _ in range(50)]
        async with refused("INVALID_FIELD", field="examples"):
            await tried(shared.admin, conditions, example(user__attributes__x="a" * 3_000_000))

    async def test_is_for_who_manages_policies(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await tried(school.teacher, ALWAYS, example())


async def previewed(person, sent, *, users=(), **fields):
    request = policy_trials_pb2.PreviewPolicyRequest(
        policy=sent, user_ids=[user.user_id for user in users], **fields
    )
    return await trials(person).PreviewPolicy(request)


def changes(answer):
    return {(it.user_id, it.action): (it.gained, it.lost) for it in answer.differences}


@pytest.fixture(scope="module")
async def classroom(found):
    """A tenant with two teachers and a student, and two drafts of the first teacher's."""
    own = await found()
    people = [await own.person(role) for role in ("teacher", "teacher", "student")]
    stories = people[0].stub(StoryServiceStub, "content")
    made = []
    for _ in range(2):
        story = stories_pb2.Story(title="x", text="Ngày xưa.", language="vi", learning_language="en")
        made.append(await stories.CreateStory(stories_pb2.CreateStoryRequest(story=story)))
    return own, *people, [story.id for story in made]


class TestPreviewPolicy:
    async def test_tells_who_would_lose_what(self, classroom):
        own, teacher, teacher2, student, ids = classroom
        mine = one("story.author_id", "ne", {"ref": "user.id"})
        answer = await previewed(
            own.admin, policy("", "deny story:update,delete", mine), users=[teacher, teacher2, student]
        )
        lost = (0, 2)
        assert changes(answer) == {(teacher2.user_id, "delete"): lost, (teacher2.user_id, "update"): lost}
        assert answer.users == 3
        assert set(answer.differences[0].lost_ids) == set(ids)

    async def test_tells_who_would_gain_what_of_all_active_users(self, classroom):
        own, _, _, student, ids = classroom
        draft = one("story.status", "eq", "draft")
        answer = await previewed(own.admin, policy("", "allow story:read", draft))
        assert changes(answer) == {(student.user_id, "read"): (2, 0)}
        assert answer.users == 4
        assert set(answer.differences[0].gained_ids) == set(ids)

    async def test_asks_of_a_stored_one_what_its_end_or_its_start_would_do(self, classroom):
        own, _, _, student, _ = classroom
        draft = one("story.status", "eq", "draft")
        made = await write(own.admin, name(), "allow story:read", draft)
        only_id = resource_policies_pb2.ResourcePolicy(id=made.id, etag=made.etag)
        assert changes(await previewed(own.admin, only_id)) == {(student.user_id, "read"): (2, 0)}
        await do(own.admin, "Activate", made)
        try:
            await asyncio.sleep(2)
            assert changes(await previewed(own.admin, only_id)) == {(student.user_id, "read"): (0, 2)}
            wider = policy(name(), "allow story:read", ALWAYS, id=made.id)
            assert changes(await previewed(own.admin, wider)) == {}
            other = policy(name(), "allow story:update", ALWAYS, id=made.id)
            assert changes(await previewed(own.admin, other)) == {
                (student.user_id, "read"): (0, 2),
                (student.user_id, "update"): (2, 0),
            }
        finally:
            await do(own.admin, "Deactivate", made)

    async def test_looks_at_one_kind_of_resource_for_a_policy_about_all(self, classroom):
        own, teacher, *_ = classroom
        everything = policy("", "deny all", one("user.role", "contains", "teacher"))
        async with refused("INVALID_FIELD", field="resource"):
            await previewed(own.admin, everything, users=[teacher])
        answer = await previewed(own.admin, everything, users=[teacher], resource="story")
        assert changes(answer) == {(teacher.user_id, action): (0, 2) for action in ("read", "list", "update", "delete")}
        answer = await previewed(own.admin, everything, users=[teacher], resource="story", actions=["publish"])
        assert changes(answer) == {(teacher.user_id, "publish"): (0, 2)}

    async def test_reaches_identitys_own_resources(self, classroom):
        own, _, _, student, _ = classroom
        answer = await previewed(
            own.admin, policy("", "allow user:list", one("resource.status", "eq", "active")), users=[student]
        )
        assert changes(answer) == {(student.user_id, "list"): (4, 0)}

    async def test_refuses_what_there_is_nothing_to_see_of(self, classroom):
        own, teacher, *_ = classroom
        for fields, field in (
            ({"actions": ["fly"]}, "actions[0]"),
            ({"resource": "dragon"}, "resource"),
            ({"resource": "resource_policy"}, "resource"),
            ({"resource": "progress"}, "actions"),
        ):
            async with refused("INVALID_FIELD", field=field):
                await previewed(own.admin, policy("", "deny story:publish"), users=[teacher], **fields)
        async with refused("INVALID_FIELD", field="policy.effect"):
            await previewed(own.admin, resource_policies_pb2.ResourcePolicy(resource="story", conditions=value(ALWAYS)))

    async def test_knows_no_policies_and_no_users_of_other_tenants(self, classroom, school):
        own, *_ = classroom
        foreign = await write(school.admin, name())
        async with refused("RESOURCE_NOT_FOUND"):
            await previewed(own.admin, resource_policies_pb2.ResourcePolicy(id=foreign.id))
        answer = await previewed(own.admin, policy("", "allow story:read"), users=[school.student])
        assert (answer.users, list(answer.differences)) == (0, [])

    async def test_shows_nobody_what_they_may_not_read(self, shared):
        tester = await writer(shared, "resource_policy:test")
        request = policy_trials_pb2.PreviewPolicyRequest(policy=policy(name(), "allow story:read", ALWAYS))
        async with refused("PERMISSION_REQUIRED") as refusal:
            await trials(tester).PreviewPolicy(request)
        assert refusal.metadata["permission"] == "story:read"
        reader = await writer(shared, "resource_policy:test", "story:read")
        await trials(reader).PreviewPolicy(request)

    async def test_is_for_who_manages_policies(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await previewed(school.teacher, policy("", "allow story:read"))
