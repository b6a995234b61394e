"""The part of a life of everything that is about classes, and about what a teacher decides for a learner."""

from tests.e2e.steps import Step, create, on, update

COURSE = {"title": "t", "story_language": "vi", "learning_language": "en"}
MEMBERS = {"id": "{cohort}", "user_ids": ["{student}"]}
CLASSES = (
    create("course", "teacher", COURSE),
    *on("course", "teacher", "Publish"),
    create("cohort", "teacher", {"name": "6A"}),
    update("cohort", "teacher", {"name": "6B"}),
    Step("AddCohortMembers", "teacher", MEMBERS, "add_members", "cohort"),
    Step("EnrollCohort", "teacher", {"id": "{cohort}", "course_id": "{course}"}, "create", "enrollment", entity="*"),
    Step("RemoveCohortMembers", "teacher", MEMBERS, "remove_members", "cohort"),
    *on("cohort", "teacher", "Delete", "Undelete"),
    create("course", "teacher", COURSE),
    *on("course", "teacher", "Publish"),
    create("unit", "teacher", {"course_id": "{course}", "title": "t"}),
    create("lesson", "teacher", {"unit_id": "{unit}", "title": "t"}),
    Step("PublishLesson", "teacher", {"id": "{lesson}"}, "publish", "lesson"),
    Step(
        "BatchCreateEnrollments",
        "teacher",
        {"course_id": "{course}", "user_ids": ["{student}"]},
        "create",
        "enrollment",
        entity="{enrolled}",
        keep={"enrolled": "enrollments.0.id"},
        settle=True,
    ),
    Step(
        "OverrideProgress",
        "teacher",
        {"lesson_id": "{lesson}", "user_id": "{student}", "status": "PROGRESS_STATUS_COMPLETED", "reason": "ill"},
        "override",
        "progress",
        entity="*",
    ),
)
