"""What is personal in the audit service: who did what, and what people wrote when they asked for or gave approval."""

from kit.subjects import NOBODY, SOMEBODY, Held, Holdings, kept, loses_name
from services.audit.models import Approval, ApprovalDecision, AuditLog, Base

PROOF = kept("the log is append-only, and proof; it has ids, and no personal values")

HOLDINGS = Holdings(
    metadata=Base.metadata,
    held=(
        Held(AuditLog, "user_id", PROOF),
        Held(AuditLog, "entity_id", PROOF),
        Held(
            Approval,
            "requester_id",
            loses_name("that it was approved belongs to the story", requester_id=NOBODY, comment="''"),
        ),
        Held(Approval, "author_id", loses_name("as above", author_id=NOBODY)),
        Held(
            ApprovalDecision,
            "user_id",
            # Two people decide on one approval: they stay two.
            loses_name("that different people approved belongs to the story", user_id=SOMEBODY, comment="''"),
        ),
    ),
    excused={
        "audit_logs.client_address": "part of the proof; it goes when the month's partition is dropped",
        "approvals.entity_id": "what is approved is a story version",
    },
    immortal={"audit_logs": "append-only, and the only proof of what was done to the tenant"},
)
