"""Built-in rules of the identity service, and the roles that every tenant and the platform itself start with."""

from collections.abc import Mapping
from dataclasses import dataclass

from kit.access import Compare, Ref, Rule

RULES = (
    Rule(
        "users read, update and export their own account",
        "user",
        frozenset({"read", "update", "export"}),
        Compare("resource.id", "eq", Ref("user.id")),
    ),
)
# What users may change of their own account; the rest of it takes the permission user:update.
OWN_FIELDS = frozenset({"display_name", "locale"})


@dataclass(frozen=True, slots=True)
class DefaultRole:
    """A role as it is first made. `permissions` are actions, separated by spaces, by resource."""

    name: str
    description: str
    permissions: Mapping[str, str]

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset((resource, action) for resource, text in self.permissions.items() for action in text.split())


ADMINISTRATOR = "admin"
SUPER_ADMINISTRATOR = "super_admin"

# A role's permission covers all rows of the tenant. What is published, shared with a class or one's own is opened by
# the built-in rules of the service that has the rows, so students need little here.
TENANT_ROLES: Mapping[str, DefaultRole] = {
    ADMINISTRATOR: DefaultRole("Administrator", "May do everything within the tenant.", {"all": "manage"}),
    "teacher": DefaultRole(
        "Teacher",
        "Writes and publishes content, approves that of others, and follows the learners.",
        {
            "course": "create read list update delete undelete publish archive",
            "unit": "create read list update delete undelete",
            "lesson": "create read list update delete undelete publish approve",
            "story": "create read list update delete undelete weave publish archive",
            "story_version": "approve",
            "audio": "create read list update delete undelete publish",
            "vocabulary": "create read list update delete undelete",
            "tag": "create read list update delete undelete",
            "question": "create read list update delete undelete import export",
            "quiz": "create read list update delete undelete publish archive regrade analyze",
            "exercise": "create read list update delete undelete publish archive",
            "approval": "create read list approve withdraw",
            "enrollment": "manage",
            "cohort": "create read list update delete undelete",
            "progress": "read list override",
            "learning_session": "read list",
            "vocabulary_progress": "read list",
            "daily_activity": "read",
            "vocabulary_review": "list",
            "word_difficulty": "list",
            "story_difficulty": "list",
            "statement": "export",
            "attempt": "read list",
            "extension": "create read list update delete",
            "user": "read list",
            "role": "list",
        },
    ),
    "student": DefaultRole(
        "Student",
        "Learns: reads what is published, and keeps an own record.",
        {"vocabulary": "read list", "tag": "read list"},
    ),
    "auditor": DefaultRole("Auditor", "Reads the audit log and nothing else.", {"audit_log": "read list export watch"}),
}
PLATFORM_ROLES: Mapping[str, DefaultRole] = {
    SUPER_ADMINISTRATOR: DefaultRole("Super administrator", "May do everything in every tenant.", {"all": "manage"}),
    "system_admin": DefaultRole(
        "System administrator",
        "Creates, configures and suspends tenants, without access to their data.",
        {
            "tenant": "create read list update suspend resume",
            "user": "read list",
            "role": "read list",
            "erasure": "read list",
            "audit_log": "read list",
        },
    ),
}
