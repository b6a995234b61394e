"""Who may hand out permissions, and which there are."""

from collections.abc import Iterable
from typing import Any

from kit.access import Snapshot
from kit.auth import current
from kit.db import WriteSession, in_tenant
from kit.errors import InvalidArgument
from services.identity import queries, rules
from services.identity.catalogue import Permission, is_known


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
