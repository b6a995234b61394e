"""The part of a life of everything that is about questions, quizzes and attempts."""

from tests.e2e.steps import Step, create, on, update

CHOICES = [{"text": "a", "correct": True}, {"text": "b"}]
QUESTION = {"type": "QUESTION_TYPE_MULTIPLE_CHOICE", "prompt": "?", "choices": CHOICES}
EXTENSION = {"quiz_id": "{quiz}", "user_id": "{student}", "close_time": "2050-01-01T00:00:00Z"}
ASSESSMENT = (
    create("exercise", "teacher", {"title": "e", "passage": "p"}),
    update("exercise", "teacher", {"title": "f"}),
    *on("exercise", "teacher", "Delete"),
    Step("PurgeExercise", "admin", {"id": "{exercise}"}, "purge", "exercise", entity="{exercise}"),
    create("exercise", "teacher", {"title": "e", "passage": "p"}),
    *on("exercise", "teacher", "Delete", "Undelete", "Publish", "Archive"),
    create("question", "teacher", QUESTION, keep={"choice": "choices.0.id"}),
    update("question", "teacher", {"prompt": "??"}),
    *on("question", "teacher", "Delete"),
    Step("PurgeQuestion", "admin", {"id": "{question}"}, "purge", "question", entity="{question}"),
    create("question", "teacher", QUESTION, keep={"choice": "choices.0.id"}),
    *on("question", "teacher", "Delete", "Undelete"),
    create("quiz", "teacher", {"title": "q", "items": [{"question_id": "{question}", "points": "1"}]}),
    update("quiz", "teacher", {"title": "r"}),
    *on("quiz", "teacher", "Delete", "Undelete", "Publish"),
    Step("CreateAttempt", "student", {"quiz_id": "{quiz}"}, "create", "attempt"),
    Step(
        "CreateExtension",
        "teacher",
        {"extension": EXTENSION},
        "create",
        "extension",
        more=(("extend", "attempt"),),
    ),
    update("extension", "teacher", {"extra_attempts": 2}),
    Step(
        "SaveResponses",
        "student",
        {"id": "{attempt}", "responses": [{"question_id": "{question}", "blanks": []}]},
        "update",
        "attempt",
    ),
    *on("attempt", "student", "Submit"),
    *on("extension", "teacher", "Delete"),
    Step("DuplicateQuiz", "teacher", {"id": "{quiz}"}, "create", "quiz", keep={"copied_quiz": "id"}),
    Step(
        "CreateRegrade",
        "teacher",
        {"regrade": {"quiz_id": "{quiz}", "question_id": "{question}", "kind": "REGRADE_KIND_FULL_MARKS"}},
        "regrade",
        "quiz",
        entity="{quiz}",
        more=(("regrade", "attempt"),),
    ),
    Step(
        "CreateStoryQuiz",
        "teacher",
        {"story_id": "{story}", "kinds": ["STORY_QUESTION_KIND_TRANSLATION"], "question_count": 1},
        "create",
        "quiz",
        keep={"story_quiz": "quiz.id"},
        entity="{story_quiz}",
        more=(("create", "question"),),
    ),
    Step(
        "ExportQuestions",
        "teacher",
        {"format": "QUESTION_FORMAT_GIFT", "quiz_id": "{quiz}"},
        "export",
        "quiz",
        entity="{quiz}",
    ),
    Step("ExportAnalysis", "teacher", {"quiz_id": "{quiz}"}, "", ""),
    *on("quiz", "teacher", "Archive"),
)
