"""Statements of the audit service, by resource."""

from services.audit.queries.approvals import (
    get_approval,
    get_approval_row,
    list_approvals,
    list_authors,
    list_decisions,
    list_open,
)
from services.audit.queries.audit_logs import get_audit_log, list_audit_logs
from services.audit.queries.entries import insert_entries
from services.audit.queries.legal_holds import (
    destroy_condemned_keys,
    find_legal_hold,
    get_legal_hold,
    get_legal_hold_row,
    list_legal_holds,
)
from services.audit.queries.subject_keys import insert_keys, list_keys, list_keys_of_subjects

__all__ = [
    "destroy_condemned_keys",
    "find_legal_hold",
    "get_approval",
    "get_approval_row",
    "get_audit_log",
    "get_legal_hold",
    "get_legal_hold_row",
    "insert_entries",
    "insert_keys",
    "list_approvals",
    "list_audit_logs",
    "list_authors",
    "list_decisions",
    "list_keys",
    "list_keys_of_subjects",
    "list_legal_holds",
    "list_open",
]
