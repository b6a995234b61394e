"""What learners may do without any role: see what is theirs, and record it in the lessons of the courses they take."""

from kit.access import All, Compare, Condition, Ref, Rule


def _own(resource: str) -> Condition:
    return Compare(f"{resource}.user_id", "eq", Ref("user.id"))


def _own_in_taken_course(resource: str) -> Condition:
    # `user.lesson_ids` are lessons of the courses the caller is enrolled in, as far as the call is about them.
    return All((_own(resource), Compare(f"{resource}.lesson_id", "in", Ref("user.lesson_ids"))))


RULES = (
    Rule("learner sees own enrolments", "enrollment", frozenset({"read", "list"}), _own("enrollment")),
    Rule("learner sees own progress", "progress", frozenset({"read", "list"}), _own("progress")),
    Rule(
        "learner records own progress in a course they take",
        "progress",
        frozenset({"update"}),
        _own_in_taken_course("progress"),
    ),
    Rule(
        "learner opens sessions in a course they take",
        "learning_session",
        frozenset({"create"}),
        _own_in_taken_course("learning_session"),
    ),
    Rule(
        "learner sees and continues own sessions",
        "learning_session",
        frozenset({"read", "list", "update"}),
        _own("learning_session"),
    ),
    Rule(
        "learner sees and adds to own progress with words",
        "vocabulary_progress",
        frozenset({"read", "list", "update"}),
        _own("vocabulary_progress"),
    ),
    Rule("learner reviews words", "vocabulary_review", frozenset({"create", "list"}), _own("vocabulary_review")),
    Rule("learner exports own statements", "statement", frozenset({"export"}), _own("statement")),
    Rule("learner sees own days", "daily_activity", frozenset({"read"}), _own("daily_activity")),
    Rule(
        "learner sees and changes own settings",
        "learner_settings",
        frozenset({"read", "update"}),
        _own("learner_settings"),
    ),
)
