"""The audit service: the log of who did what, and approvals."""

from google.protobuf.message import Message

from kit.decisions import Decided
from kit.inbox import Together
from kit.server import Service, run
from kit.settings import Settings, decoded_key
from services.audit import policies
from services.audit.approvals import ApprovalService, on_approvable_edited, on_policy_edited
from services.audit.audit_logs import AuditLogService
from services.audit.checkpoints import CheckpointService
from services.audit.exporting import Exports
from services.audit.legal_holds import LegalHoldService
from services.audit.models import Approval, AuditLog, LegalHold
from services.audit.publishing import Publisher
from services.audit.recording import Seals
from services.audit.retention import Months
from services.audit.signing import Signer
from services.audit.subjects import HOLDINGS
from services.audit.tailing import Tails
from services.audit.trees import Trees
from services.callers import may_call
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.content.v1.events_pb2 import ApprovableEdited
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.identity.v1.events_pb2 import ResourcePolicyEdited

PUBLISHES: dict[type[Message], tuple[str, ...]] = {ApprovalDecided: ("content", "identity")}


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, publishes=PUBLISHES, callers=may_call)
    seals = Seals(decoded_key("AUDIT_KEY_ENCRYPTION_KEY", settings.audit_key_encryption_key))
    signer = Signer.of(settings.audit_signing_key, settings.audit_earlier_keys)
    exports, tails = Exports(service.db, seals, signer), Tails(service.db, seals)
    service.add(AuditLogService(service.db, seals, exports, tails), ApprovalService(service.db, service.clients))
    service.add(LegalHoldService(service.db), CheckpointService(service.db, signer))
    service.holds(HOLDINGS, {"audit_logs": seals.shown})
    service.decides(Decided(model=AuditLog), Decided(model=Approval), Decided(model=LegalHold))
    service.consume(
        {
            ChangeRecorded: Together(seals.on_changes_recorded),
            ApprovableEdited: on_approvable_edited,
            ResourcePolicyEdited: on_policy_edited,
        }
    )
    publisher = Publisher(settings.audit_checkpoint_directory)
    service.run_in_background(Trees(service.db, signer, publisher, seconds=settings.audit_checkpoint_seconds).run)
    service.run_in_background(Months(service.db, keep=settings.audit_retention_months).run)
    service.run_in_background(tails.run)
    return service


if __name__ == "__main__":
    run("audit", build)
