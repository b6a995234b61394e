"""What people may do with approvals without any role: see and withdraw those they asked for."""

from kit.access import Compare, Ref, Rule

RULES = (
    Rule(
        "requester sees and withdraws own approval",
        "approval",
        frozenset({"read", "list", "withdraw"}),
        Compare("approval.requester_id", "eq", Ref("user.id")),
    ),
)
