"""Policies, written in few words."""

import itertools
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from storyloom.identity.v1 import resource_policies_pb2, roles_pb2
from storyloom.identity.v1.resource_policies_pb2_grpc import ResourcePolicyServiceStub
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from tests.identity.conftest import Own
from tests.stack import Person

ALWAYS = {"always": True}
PUBLISHED = [{"field": "story.status", "operator": "eq", "value": "published"}]
MANAGE = ("create", "read", "list", "update", "activate", "delete", "undelete")
_numbers = itertools.count(1)


def name() -> str:
    """Another one each time."""
    return f"Policy {next(_numbers)}"


async def writer(own: Own, *permissions: str) -> Person:
    """Somebody who may manage policies and has these permissions besides."""
    pairs = [("resource_policy", action) for action in MANAGE] + [tuple(one.split(":")) for one in permissions]
    slug = f"writer{next(_numbers)}"
    role = roles_pb2.Role(
        slug=slug, name=slug, permissions=[roles_pb2.Permission(resource=one, action=two) for one, two in pairs]
    )
    await own.admin.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))
    return await own.person(slug)


def policies_of(person: Person) -> ResourcePolicyServiceStub:
    return person.stub(ResourcePolicyServiceStub, "identity")


def value(document: Any) -> Value:
    return ParseDict(document, Value())


def policy(name: str, text: str = "deny story:update", conditions: Any = ALWAYS, **fields: Any) -> Any:
    """A policy of which `text` says the effect and the resource, and, after a colon, the actions: `allow story:a,b`."""
    effect, _, about = text.partition(" ")
    resource, _, actions = about.partition(":")
    return resource_policies_pb2.ResourcePolicy(
        name=name,
        resource=resource,
        actions=actions.split(",") if actions else [],
        conditions=value(conditions),
        effect=f"POLICY_EFFECT_{effect.upper()}",
        **fields,
    )


async def write(person: Person, *args: Any, **fields: Any) -> resource_policies_pb2.ResourcePolicy:
    """Stores a draft."""
    request = resource_policies_pb2.CreateResourcePolicyRequest(policy=policy(*args, **fields))
    return await policies_of(person).CreateResourcePolicy(request)


async def change(person: Person, written: Any, *paths: str, **fields: Any) -> resource_policies_pb2.ResourcePolicy:
    """Changes fields of the policy, or those of the paths."""
    sent = resource_policies_pb2.ResourcePolicy(id=written.id, **fields)
    request = resource_policies_pb2.UpdateResourcePolicyRequest(policy=sent)
    request.update_mask.paths.extend(paths)
    return await policies_of(person).UpdateResourcePolicy(request)


async def do(person: Person, verb: str, written: Any, **fields: Any) -> Any:
    """One of the RPCs that take the policy's id: Get, Activate, Deactivate, Delete, Undelete."""
    request = getattr(resource_policies_pb2, f"{verb}ResourcePolicyRequest")(id=written.id, **fields)
    return await getattr(policies_of(person), f"{verb}ResourcePolicy")(request)


async def put_in_force(person: Person, *args: Any, **fields: Any) -> resource_policies_pb2.ResourcePolicy:
    """Stores a policy and activates it."""
    return await do(person, "Activate", await write(person, *args, **fields))


async def restore(person: Person, written: Any, version: int, **fields: Any) -> Any:
    """Rolls the policy back to what the version said."""
    request = resource_policies_pb2.RestoreResourcePolicyVersionRequest(id=written.id, version=version, **fields)
    return await policies_of(person).RestoreResourcePolicyVersion(request)
