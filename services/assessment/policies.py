"""What people may do in assessment without any role: see published quizzes, and take them for themselves."""

from kit.access import Compare, Ref, Rule

RULES = (
    Rule(
        "everyone sees published quizzes",
        "quiz",
        frozenset({"read", "list"}),
        Compare("quiz.status", "eq", "published"),
    ),
    Rule(
        "everyone reads exercises that are no drafts",
        "exercise",
        frozenset({"read", "list"}),
        Compare("exercise.status", "ne", "draft"),
    ),
    Rule(
        "learner takes quizzes and sees own attempts",
        "attempt",
        frozenset({"create", "read", "list", "update", "submit"}),
        Compare("attempt.user_id", "eq", Ref("user.id")),
    ),
    Rule(
        "learner sees own extensions",
        "extension",
        frozenset({"read", "list"}),
        Compare("extension.user_id", "eq", Ref("user.id")),
    ),
)
