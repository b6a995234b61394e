"""The audit service: the log of who did what, and approvals."""

from kit.decisions import Decided
from kit.server import Service, run
from kit.settings import Settings
from services.audit import policies
from services.audit.approvals import ApprovalService, on_approvable_edited
from services.audit.audit_logs import AuditLogService, on_change_recorded
from services.audit.models import Approval, AuditLog
from services.audit.subjects import HOLDINGS
from services.callers import may_call
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.content.v1.events_pb2 import ApprovableEdited
from storyloom.event.v1.changes_pb2 import ChangeRecorded


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, publishes={ApprovalDecided: ("content",)}, callers=may_call)
    service.add(AuditLogService(service.db), ApprovalService(service.db, service.clients))
    service.holds(HOLDINGS)
    service.decides(Decided(model=AuditLog), Decided(model=Approval))
    service.consume({ChangeRecorded: on_change_recorded, ApprovableEdited: on_approvable_edited})
    return service


if __name__ == "__main__":
    run("audit", build)
