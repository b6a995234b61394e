"""Who may hand out permissions, and which there are."""

from collections.abc import Iterable
from typing import Any

from kit.access import Compare, ConditionError, Ref, Snapshot
from kit.access.conditions import MANY, comparisons
from kit.access.documents import read
from kit.auth import current
from kit.db import WriteSession, in_tenant
from kit.errors import InvalidArgument
from services.identity import queries, rules
from services.identity.catalogue import Permission, attributes, is_known


async def check_grant(session: WriteSession, permissions: Iterable[Permission]) -> None:
    """Refuses the caller to decide about permissions that they do not hold for good.

    What somebody holds for a time they could otherwise give themselves, or somebody else, for ever.
    """
    wanted, snapshot = set(permissions), current().snapshot
    assert snapshot is not None  # noqa: S101  # the RPC asks for a permission, so a user calls
    rules.check_grant(snapshot, wanted)
    if snapshot.expires == float("inf"):
        return
    home, user = snapshot.tenant_id, snapshot.user_id
    async with in_tenant(session, home):
        lasting = frozenset(await queries.list_lasting_permissions(session, user))
    rules.check_grant(Snapshot(tenant_id=home, user_id=user, roles=frozenset(), permissions=lasting), wanted)


def about(policy: Any) -> set[Permission]:
    """The permissions that the policy is about."""
    every = not policy.actions or "manage" in policy.actions
    return {(policy.resource, action) for action in (("manage",) if every else policy.actions)}


async def check_facts(session: WriteSession, paths: Iterable[str] = (), roles: Iterable[str] = ()) -> None:
    """Refuses the caller to change these attributes of a user, or who has the roles of these slugs, as far as policies
    in force look at them: unless the caller holds what those policies allow or refuse, who could otherwise give it, by
    a fact instead of a permission."""
    paths, roles, snapshot = set(paths), set(roles), current().snapshot
    if not (paths or roles) or (snapshot and snapshot.expires == float("inf") and snapshot.grants("all", "manage")):
        return
    for policy in await queries.list_policies_in_force(session):
        try:
            condition = read(policy.conditions, policy.resource, attributes(policy.resource))
        except ConditionError:
            # Of another release: it decides without looking at anything.
            continue
        if any(_looks_at(one, paths, roles) for one in comparisons(condition)):
            await check_grant(session, about(policy))


def _looks_at(one: Compare, paths: set[str], roles: set[str]) -> bool:
    names = {one.field, one.value.path} if isinstance(one.value, Ref) else {one.field}
    if names & paths:
        return True
    if not roles or "user.role" not in names:
        return False
    named = one.value if isinstance(one.value, MANY) else (one.value,)
    return isinstance(one.value, Ref) or not roles.isdisjoint(named)


def known(sent: Iterable[Any], field: str) -> list[Permission]:
    """The permissions sent; INVALID_ARGUMENT names those that are not in the catalogue. `field` says where the one of
    an index is, as `role.permissions[{}]`."""
    pairs = [(one.resource, one.action) for one in sent]
    wrong = [
        (field.format(index), f"{':'.join(pair)} is not in the permission catalogue")
        for index, pair in enumerate(pairs)
        if not is_known(pair)
    ]
    if wrong:
        raise InvalidArgument.fields(wrong)
    return pairs
