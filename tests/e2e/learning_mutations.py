"""What learners do with phones, and what leaves the platform of it, in the life of everything."""

from datetime import UTC, datetime, timedelta

from tests.e2e.steps import Step

NIL = "00000000-0000-0000-0000-000000000000"
PHONE = "01a20400-0000-7000-8000-000000000002"
HAPPENED = "01a20400-0000-7000-8000-000000000003"
# A phone's clock must be about right.
NOW = datetime.now(UTC)
ANSWER = {"vocabulary_id": "{vocabulary}", "rating": "REVIEW_RATING_GOOD"}
EVENT = {"event_id": HAPPENED, "event_time": (NOW - timedelta(hours=1)).isoformat(), "review_answered": ANSWER}

PHONES = (
    Step(
        "SyncClientEvents",
        "student",
        {"device_id": PHONE, "send_time": NOW.isoformat(), "events": [EVENT]},
        "sync",
        "client_event",
        entity=NIL,
    ),
    Step("ExportStatements", "student", {"user_id": "{student}"}, "export", "statement", entity=NIL),
)
