"""Operators at a service's own command line: who it is, and what the audit log is told of what they do."""

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kit import audit
from kit.access import denied
from kit.auth import Principal, TokenVerifier, refuse_suspended
from kit.call import Call, enter, leave
from kit.errors import Unauthenticated
from kit.ids import NIL, SYSTEM_TENANT
from kit.pagination import Sealer
from kit.trust import remote_trust

if TYPE_CHECKING:
    from kit.server import Service


async def identify(service: "Service", token: str) -> Principal:
    """Whose access token it is. Raises what an RPC that takes `tenant:operate` would be refused with: such operators
    are staff of the platform."""
    settings, trust = service.settings, remote_trust(service.clients)
    verifier = TokenVerifier(trust.keys, issuer=settings.token_issuer, audience=settings.token_audience)
    claims = await verifier.verify(token)
    snapshot = await trust.snapshots(claims.tenant_id, claims.user_id)
    if claims.session_id in snapshot.revoked_sessions or not snapshot.active:
        raise Unauthenticated("The session has ended; sign in again.")
    found = Principal(
        tenant_id=claims.tenant_id, home_tenant_id=claims.tenant_id, user_id=claims.user_id, snapshot=snapshot
    )
    refuse_suspended(found)
    if claims.tenant_id != SYSTEM_TENANT or not snapshot.grants("tenant", "operate"):
        raise denied("tenant", "operate")
    return found


async def note(
    service: "Service", action: str, entity_type: str, new: dict[str, Any], operator: Principal | None
) -> None:
    """Records in the log of the platform's own tenant what is about to be done, by the operator, or by whoever has the
    service's credential when none has signed in."""
    name = service.settings.service
    who = operator or Principal(tenant_id=SYSTEM_TENANT, home_tenant_id=SYSTEM_TENANT, service=name)
    sealer = Sealer(service.settings.secret)
    call = Call(rpc="", request_id=str(uuid4()), access=service.access, sealer=sealer, principal=who)
    entered = enter(call)
    try:
        async with service.db.write(SYSTEM_TENANT) as session:
            audit.write(session, action, entity_type, NIL, new={"service": name, **new})
    finally:
        leave(entered)
