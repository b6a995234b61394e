"""The catalogue: the permissions that the RPCs of all services ask for, the resources they are about, and what
conditions may look at."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

import storyloom
from kit.access import Attribute, attributes_of
from storyloom.type.v1.options_pb2 import Requires, requires

Permission = tuple[str, str]

# Deciding on an approval also asks for `<resource>:approve` of what is approved, which no RPC declares: the resources
# and their packages. No policy is about that; those about approvals decide on it too.
APPROVABLE = {
    "story_version": "storyloom.content.v1",
    "lesson": "storyloom.content.v1",
    "resource_policy": "storyloom.identity.v1",
}
# Parts of other resources, which nothing else is done to.
ONLY_APPROVED = frozenset({"story_version"})


class Resource(NamedTuple):
    """A kind of resource: the service that owns it, what may be done to it, and its attributes by name."""

    owner: str
    actions: frozenset[str]
    attributes: Mapping[str, Attribute]


@cache
def resources() -> Mapping[str, Resource]:
    """Every kind of resource of the platform.

    Read from the descriptor set that is made with the stubs: it names the RPCs of every service, and reading it costs
    a few milliseconds once, where importing all stubs would keep every service's messages in memory.
    """
    files = FileDescriptorSet.FromString(_descriptor_set().read_bytes()).file
    packages, actions = dict(APPROVABLE), {name: {"approve"} for name in APPROVABLE}
    for file in files:
        for asked in (_requires(method) for service in file.service for method in service.method):
            if asked.resource:
                packages[asked.resource] = file.package
                actions.setdefault(asked.resource, set()).add(asked.action)
    pool = DescriptorPool()
    for file in files:
        pool.Add(file)
    return {name: _resource(pool, name, package, actions[name]) for name, package in packages.items()}


def _resource(pool: DescriptorPool, name: str, package: str, actions: set[str]) -> Resource:
    message = pool.FindMessageTypeByName(f"{package}.{name.title().replace('_', '')}")
    return Resource(package.split(".")[1], frozenset(actions), attributes_of(message))


@cache
def catalogue() -> frozenset[Permission]:
    """Every (resource, action) of the platform."""
    return frozenset((name, action) for name, found in resources().items() for action in found.actions)


def owner_of(resource: str) -> str:
    """The service that owns a resource of the catalogue."""
    return resources()[resource].owner


def attributes(resource: str) -> Mapping[str, Attribute]:
    """What conditions may look at of a resource of the catalogue; of `all`, nothing."""
    return {} if resource == "all" else resources()[resource].attributes


def is_known(permission: Permission) -> bool:
    """Whether a role may hold it: an entry, or one with `all` for the resource or `manage` for the action."""
    resource, action = permission
    if resource == "all":
        return action == "manage" or any(action in one.actions for one in resources().values())
    found = resources().get(resource)
    return found is not None and (action == "manage" or action in found.actions)


def _requires(method: Any) -> Requires:
    asked: Requires = method.options.Extensions[requires]
    return asked


def _descriptor_set() -> Path:
    return Path(next(iter(storyloom.__path__))).parent / "descriptors.binpb"
