"""The permission catalogue: what the RPCs of all services declare that they ask for."""

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

import storyloom
from storyloom.type.v1.options_pb2 import Requires, requires

Permission = tuple[str, str]

# Deciding on an approval also asks for `<resource>:approve` of what is approved, which no RPC declares.
APPROVABLE = ("story_version",)


@cache
def catalogue() -> frozenset[Permission]:
    """Every (resource, action) of the platform.

    Read from the descriptor set that is made with the stubs: it names the RPCs of every service, and reading it costs
    a few milliseconds once, where importing all stubs would keep every service's messages in memory.
    """
    found = FileDescriptorSet.FromString(_descriptor_set().read_bytes())
    methods = (method for file in found.file for service in file.service for method in service.method)
    declared = {(asked.resource, asked.action) for asked in map(_requires, methods) if asked.resource}
    return frozenset(declared | {(resource, "approve") for resource in APPROVABLE})


def is_known(permission: Permission) -> bool:
    """Whether a role may hold it: an entry, or one with `all` for the resource or `manage` for the action."""
    resource, action = permission
    known = catalogue()
    resources = {"all", *(entry[0] for entry in known)}
    if resource == "all":
        return action == "manage" or action in {entry[1] for entry in known}
    return permission in known or (action == "manage" and resource in resources)


def _requires(method: Any) -> Requires:
    asked: Requires = method.options.Extensions[requires]
    return asked


def _descriptor_set() -> Path:
    return Path(next(iter(storyloom.__path__))).parent / "descriptors.binpb"
