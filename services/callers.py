"""Which service may call which gRPC service's internal RPCs: the whole list, in one place."""

ALLOWED: dict[str, frozenset[str]] = {
    "storyloom.identity.v1.AccessService": frozenset({"content", "learning", "assessment", "audit"}),
    "storyloom.learning.v1.EnrollmentService": frozenset({"content"}),
    "storyloom.access.v1.DecisionService": frozenset({"identity"}),
    "storyloom.subject.v1.SubjectService": frozenset({"identity"}),
    "storyloom.event.v1.OutboxService": frozenset({"identity"}),
    "storyloom.event.v1.EventInboxService": frozenset({"identity", "content", "learning", "assessment", "audit"}),
}


def may_call(grpc_service: str, caller: str) -> bool:
    """Whether the caller's credential opens the internal RPCs of the gRPC service."""
    return caller in ALLOWED.get(grpc_service, frozenset())
