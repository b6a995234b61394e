"""The call being served: its RPC, its caller and what the pipeline learned of it. A context variable holds it."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from kit.access import Access
    from kit.auth import Principal
    from kit.db import WriteSession
    from kit.idempotency import Key
    from kit.limiter import Slot
    from kit.pagination import Sealer


@dataclass(slots=True, kw_only=True)
class Call:
    """One RPC from its first byte to its last.

    `deadline` is in the event loop's time, None for streams without one. `principal` is None for public RPCs.
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

    @property
    def tenant_id(self) -> UUID | None:
        return self.principal.tenant_id if self.principal else None


_current: ContextVar[Call | None] = ContextVar("storyloom_call", default=None)
enter = _current.set
leave = _current.reset


def current_call() -> Call | None:
    """The call being served, or None in background work."""
    return _current.get()
