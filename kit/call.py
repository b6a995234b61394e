"""The call being served: its RPC, its caller and what the pipeline learned of it. A context variable holds it."""

import hmac
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from kit.access import Access
    from kit.auth import Principal
    from kit.db import WriteSession
    from kit.idempotency import Key
    from kit.limiter import Slot
    from kit.pagination import Sealer

LONGEST_REQUEST_ID = 64


@dataclass(slots=True, kw_only=True)
class Call:
    """One RPC from its first byte to its last.

    `deadline` is in the event loop's time, None for streams without one. `principal` is None for public RPCs. `renew`,
    of streams that take a permission, looks again at what the caller may do. `identify`, of users' calls, tells whose
    another access token is.
    """

    rpc: str
    request_id: str
    access: "Access"
    sealer: "Sealer"
    metadata: dict[str, Any] = field(default_factory=dict)
    client_address: str = ""
    deadline: float | None = None
    principal: "Principal | None" = None
    code: str = "OK"
    reason: str = ""
    key: "Key | None" = None
    slot: "Slot | None" = None
    uncommitted: "WriteSession | None" = None
    renew: Callable[[], Awaitable[None]] | None = None
    identify: "Callable[[str], Awaitable[Principal]] | None" = None

    @property
    def tenant_id(self) -> UUID | None:
        return self.principal.tenant_id if self.principal else None


_current: ContextVar[Call | None] = ContextVar("storyloom_call", default=None)
enter = _current.set
leave = _current.reset


def current_call() -> Call | None:
    """The call being served, or None in background work."""
    return _current.get()


def new_call(rpc: str, context: Any, access: "Access", sealer: "Sealer", gateway_secret: str) -> Call:
    """The call of an incoming RPC. A client's `x-request-id` is kept when it is short and printable ASCII: other text
    cannot be sent on."""
    metadata = dict(context.invocation_metadata() or ())
    request_id = metadata.get("x-request-id", "")
    if not 0 < len(request_id) <= LONGEST_REQUEST_ID or not (request_id.isascii() and request_id.isprintable()):
        request_id = str(uuid4())
    # Only the gateway knows the client's address, and proves that it is the gateway; others speak for their connection.
    proof = metadata.pop("x-gateway-secret", "")
    if gateway_secret and hmac.compare_digest(proof.encode(), gateway_secret.encode()):
        address = metadata.get("x-envoy-external-address", "")
    else:
        kind, _, peer = unquote(context.peer()).partition(":")
        address = peer.rpartition(":")[0].strip("[]") if kind.startswith("ipv") else ""
    return Call(
        rpc=rpc, request_id=request_id, access=access, sealer=sealer, metadata=metadata, client_address=address
    )
