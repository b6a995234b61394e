"""What is personal in the audit service: who did what, and what people wrote when they asked for or gave approval."""

from kit.holdings import NOBODY, SOMEBODY, Held, Holdings, destroyed, kept, loses_name, suspended
from services.audit.models import Approval, ApprovalAuthor, ApprovalDecision, AuditLog, Base, LegalHold, SubjectKey

PROOF = kept("the log is append-only, and proof; what is personal in it is sealed with the subject's key")
ORDER = kept("who put the log on hold, and who released it, belongs to a legal order")
# Whether nothing of the tenant's log may go: then keys are destroyed with the release of the last hold.
ON_HOLD = "EXISTS (SELECT FROM audit.legal_holds h WHERE h.tenant_id = $1 AND h.release_time IS NULL)"

HOLDINGS = Holdings(
    metadata=Base.metadata,
    held=(
        Held(AuditLog, "user_id", PROOF),
        Held(AuditLog, "entity_id", PROOF),
        Held(
            SubjectKey,
            "subject_id",
            destroyed(
                "no second key may be made for who is erased",
                pending=f"destroyed_at IS NULL AND NOT {ON_HOLD}",
                wrapped_key="NULL",
                destroyed_at="now()",
            ),
            omit=("wrapped_key",),
        ),
        Held(
            SubjectKey,
            "subject_id",
            suspended(
                "a legal hold keeps what the log says of people readable until it is released",
                pending="destroyed_at IS NULL AND condemned_at IS NULL",
                condemned_at="now()",
            ),
            omit=("wrapped_key",),
        ),
        Held(LegalHold, "creator_id", ORDER),
        Held(LegalHold, "releaser_id", ORDER),
        Held(
            Approval,
            "requester_id",
            loses_name(
                "that it was approved belongs to the story",
                requester_id=NOBODY,
                comment="''",
                withdrawal_comment="''",
            ),
        ),
        Held(Approval, "author_id", loses_name("as above", author_id=NOBODY)),
        # Several people write one thing: they stay several.
        Held(ApprovalAuthor, "user_id", loses_name("as above", user_id=SOMEBODY)),
        Held(
            ApprovalDecision,
            "user_id",
            # Two people decide on one approval: they stay two.
            loses_name("that different people approved belongs to the story", user_id=SOMEBODY, comment="''"),
        ),
    ),
    excused={
        "legal_holds.reason": "part of the order, in the words of who gave it",
        "approvals.entity_id": "what is approved is a story version, a lesson or a policy",
    },
    immortal={
        "legal_holds": "a tenant does not escape a hold by its own end",
        "audit_logs": "append-only, and the only proof of what was done to the tenant",
        "tree_leaves": "hashes only, and part of that proof",
        "tree_nodes": "as above",
        "checkpoints": "as above",
    },
)
