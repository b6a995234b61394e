"""Who opens connections to whom: what network policies let through. A test holds it against what services build."""

from kit.settings import SERVICES

# Own RPCs, events, and identity's access data; `services/callers.py` says which internal RPCs these may be.
CALLS = {
    "identity": frozenset({"content", "learning", "assessment", "audit"}),
    "content": frozenset({"identity", "learning", "audit"}),
    "learning": frozenset({"identity", "content", "audit"}),
    "assessment": frozenset({"identity", "content", "learning", "audit"}),
    # To itself: its own changes are events like those of the others.
    "audit": frozenset({"identity", "content", "audit"}),
    "gateway": frozenset(SERVICES),
}


def callers(service: str) -> list[str]:
    """Who may connect to the service."""
    return [caller for caller, called in CALLS.items() if service in called]
