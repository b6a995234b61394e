"""A life of everything: calls, in an order in which each succeeds, that together are every RPC that changes something.

Texts in braces stand for ids and other values of earlier answers: `{course}` is the id of the last course.
"""

from tests.e2e.assessment_mutations import ASSESSMENT
from tests.e2e.classes import CLASSES
from tests.e2e.learning_mutations import PHONES
from tests.e2e.recordings import AUDIOS
from tests.e2e.steps import Step, create, on, purge, reorder, update

# Why a call leaves more than one entry, or one about something else than what it was called with.
SEVERAL = {
    "CreateUser": "the roles that a user starts with are given as they are later: `set_roles`",
    "CreateTenant": "its first administrator is an entry of their own",
    "AcceptInvitation": "the invitation ends and the user begins",
    "BatchCreateVocabularies": "one for each word",
    "ImportVocabularyText": "one for each word",
    "ImportVocabularies": "as above",
    "CreatePublication": "one for each story and lesson",
    "DeleteCourse": "one for each thing that is hidden with it",
    "UndeleteCourse": "one for each thing that comes back with it",
    "DeleteUnit": "as above",
    "UndeleteUnit": "as above",
    "ReorderUnits": "one for each that moves, and one for the order",
    "ReorderLessons": "as above",
    "ReorderStories": "as above",
    "ImportUsers": "one for each user, and one for the import",
    "CopyCourse": "one for each thing in the course",
    "CopyCourseToTenant": "the same in the other tenant, and one here",
    "ImportPackage": "one for each thing in the package",
    "ImportQuestions": "one for each question and for their quiz, and one for the file",
    "CreateStoryQuiz": "one for each question and for their quiz",
    "CreateExtension": "the learner's open attempt gets another deadline",
    "CreateRegrade": "one for each result that changes",
}
# What changes rows and leaves no entry.
SILENT = {
    "HeartbeatLearningSession": "the clock of a session, several times a minute: its end says how long it was",
    "ExportVocabularyProgress": "a learner's own words, which changes nothing",
    "ExportAnalysis": "what follows from results, as GetAnalysis tells it",
    "ExportVocabularies": "what anybody may list who may export it",
    "RefreshSession": "goes on with a session whose beginning is an entry; a token used twice is one as well",
}
# Not what users do: who calls has written down why, in an entry of their own.
INTERNAL = {
    "EventInboxService.DeliverEvents": "what is delivered was written down where it happened",
    "OutboxService.ReplayEvents": "asked for by ReplayParkedEvents",
    "SubjectService.ExportUser": "asked for by ErasureService.ExportUser",
    "SubjectService.EraseUser": "asked for by PurgeUser; the end is an entry too, `erase`",
    "SubjectService.PurgeTenant": "asked for by ErasureService.PurgeTenant; the end is an entry too, `erase`",
}

NIL = "00000000-0000-0000-0000-000000000000"
LANGUAGES = {"language": "vi", "learning_language": "en"}
COURSE = {"title": "t", "story_language": "vi", "learning_language": "en"}
WORD = {"translation": "cat", "part_of_speech": "PART_OF_SPEECH_NOUN", **LANGUAGES}
# The first row is new, the second about a word that is there.
WORDS = "term,part_of_speech,translation\ncon ong,noun,bee\ncon mèo,noun,kitty\n"
POLICY = {"name": "p", "resource": "story", "actions": ["read"], "effect": "POLICY_EFFECT_DENY"}
NOBODY = [{"field": "user.id", "operator": "eq", "value": NIL}]
SOMEBODYS = "01a20400-0000-7000-8000-000000000001"
REVIEW = {"event_id": SOMEBODYS, "rating": "REVIEW_RATING_AGAIN", "review_time": "2026-01-01T00:00:00Z"}
VERSION = {"entity_type": "story_version", "entity_id": "{version}"}
PASSWORD = "a new pass phrase"

CONTENT = (
    create("course", "teacher", COURSE),
    update("course", "teacher", {"title": "u"}),
    *on("course", "teacher", "Publish"),
    create("unit", "teacher", {"course_id": "{course}", "title": "t"}),
    update("unit", "teacher", {"title": "u"}),
    create("lesson", "teacher", {"unit_id": "{unit}", "title": "t"}),
    update("lesson", "teacher", {"title": "u"}),
    Step("PublishLesson", "teacher", {"id": "{lesson}"}, "publish", "lesson", settle=True),
    create("vocabulary", "teacher", {"term": "con mèo", **WORD}),
    update("vocabulary", "teacher", {"translation": "kitten"}),
    *on("vocabulary", "teacher", "Delete", "Undelete", "Delete"),
    Step("PurgeVocabulary", "admin", {"id": "{vocabulary}"}, "purge", "vocabulary", entity="{vocabulary}"),
    Step("ExportVocabularies", "teacher", {}, "", ""),
    create("vocabulary", "teacher", {"term": "con mèo", **WORD}),
    Step(
        "ImportVocabularyText",
        "teacher",
        {"options": {"on_existing": "ON_EXISTING_VOCABULARY_UPDATE"}, "text": WORDS},
        "create",
        "vocabulary",
        entity="*",
        more=(("update", "vocabulary"),),
    ),
    Step(
        "BatchCreateVocabularies",
        "teacher",
        {"vocabularies": [{"term": "con chó", **WORD}, {"term": "con gà", **WORD}]},
        "create",
        "vocabulary",
        entity="*",
        more=(("create", "vocabulary"),),
    ),
    create("story", "teacher", {"title": "t", "text": "Con mèo.", **LANGUAGES}, keep={"first": "current_version.id"}),
    update("story", "teacher", {"text": "Con mèo và con chó."}),
    Step(
        "RestoreStoryVersion",
        "teacher",
        {"story_id": "{story}", "version_id": "{first}"},
        "restore",
        "story",
        entity="{story}",
    ),
    Step(
        "WeaveStory",
        "teacher",
        {"id": "{story}", "targets": [{"part_of_speech": "PART_OF_SPEECH_NOUN", "ratio": "0.5"}]},
        "weave",
        "story",
        keep={"version": "current_version.id"},
    ),
)
COPIES = (
    create("course", "teacher", COURSE),
    create("unit", "teacher", {"course_id": "{course}", "title": "t"}),
    Step(
        "CopyCourse",
        "teacher",
        {"course_id": "{course}"},
        "copy",
        "course",
        entity="{copied}",
        keep={"copied": "course.id"},
        more=(("create", "unit"),),
    ),
    Step("ExportPackage", "admin", {"course_id": "{course}"}, "export", "course", entity="{course}"),
)
ORDER = (
    create("course", "teacher", COURSE),
    create("unit", "teacher", {"course_id": "{course}", "title": "t"}, keep={"other_unit": "id"}),
    create("unit", "teacher", {"course_id": "{course}", "title": "t"}),
    reorder("course", "Units", "unit"),
    create("lesson", "teacher", {"unit_id": "{unit}", "title": "t"}, keep={"other_lesson": "id"}),
    create("lesson", "teacher", {"unit_id": "{unit}", "title": "t"}),
    reorder("unit", "Lessons", "lesson"),
    create("story", "teacher", {"title": "t", "text": "Mèo.", "lesson_id": "{lesson}"}, keep={"other_story": "id"}),
    create("story", "teacher", {"title": "t", "text": "Mèo.", "lesson_id": "{lesson}"}),
    reorder("lesson", "Stories", "story"),
    *purge("story", "{other_story}"),
    *purge("lesson", "{other_lesson}"),
    *purge("unit", "{other_unit}"),
    create("course", "teacher", COURSE),
    *purge("course", "{course}"),
)
TOGETHER = (
    create("course", "teacher", COURSE),
    create("unit", "teacher", {"course_id": "{course}", "title": "t"}),
    create("lesson", "teacher", {"unit_id": "{unit}", "title": "t"}),
    create(
        "story",
        "teacher",
        {"title": "t", "text": "Con mèo.", "lesson_id": "{lesson}", **LANGUAGES},
        keep={"version": "current_version.id"},
    ),
    create("approval", "teacher", VERSION),
    Step("ApproveApproval", "teacher2", {"id": "{approval}"}, "approve", "approval", settle=True),
    Step(
        "CreatePublication",
        "teacher",
        {"items": [{"lesson_id": "{lesson}"}]},
        "publish",
        "lesson",
        entity="{lesson}",
        more=(("publish", "story"),),
    ),
)
TAGS = (
    create("tag", "teacher", {"name": "Tết"}),
    update("tag", "teacher", {"name": "Lễ Tết"}),
    *on("tag", "teacher", "Delete", "Undelete"),
    *(
        Step(
            f"{verb}{kind.title()}",
            "teacher",
            {f"{kind}_id": f"{{{kind}}}", "tag_id": "{tag}"},
            verb.lower(),
            kind,
            entity=f"{{{kind}}}",
        )
        for kind in ("course", "lesson", "story")
        for verb in ("Tag", "Untag")
    ),
)
APPROVALS = (
    create("approval", "teacher", VERSION),
    *on("approval", "teacher", "Withdraw"),
    create("approval", "teacher", VERSION),
    *on("approval", "teacher2", "Reject"),
    create("approval", "teacher", VERSION),
    Step("ApproveApproval", "teacher2", {"id": "{approval}"}, "approve", "approval", settle=True),
    *on("story", "teacher", "Publish", "Archive", "Delete", "Undelete"),
)
LEARNING = (
    create("enrollment", "teacher", {"course_id": "{course}", "user_id": "{student}"}, settle=True),
    Step(
        "UpdateProgress",
        "student",
        {"progress": {"lesson_id": "{lesson}", "status": "PROGRESS_STATUS_COMPLETED", "position_percent": 100}},
        "create",
        "progress",
        entity="*",
    ),
    create("learning_session", "student", {"lesson_id": "{lesson}"}),
    Step("HeartbeatLearningSession", "student", {"id": "{learning_session}"}, "", ""),
    *on("learning_session", "student", "End"),
    Step(
        "UpdateLearnerSettings",
        "student",
        {"learner_settings": {"user_id": "{student}", "new_words_per_day": 5}},
        "create",
        "learner_settings",
        entity="*",
    ),
    create("vocabulary_review", "student", {"vocabulary_id": "{vocabulary}", "rating": "REVIEW_RATING_GOOD"}),
    Step(
        "BatchCreateVocabularyReviews",
        "student",
        {"vocabulary_reviews": [{**REVIEW, "vocabulary_id": "{vocabulary}"}]},
        "batch_create",
        "vocabulary_review",
        entity=NIL,
    ),
    Step(
        "ImportKnownVocabulary",
        "student",
        {"vocabulary_ids": ["{vocabulary}"]},
        "import_known",
        "vocabulary_review",
        entity=NIL,
    ),
    Step(
        "RecordVocabularyExposures",
        "student",
        {"exposures": [{"event_id": SOMEBODYS, "vocabulary_ids": ["{vocabulary}"]}]},
        "expose",
        "vocabulary_progress",
        entity=NIL,
    ),
    Step("ExportVocabularyProgress", "student", {}, "", ""),
)
ENDINGS = (
    *on("enrollment", "teacher", "Withdraw"),
    Step(
        "DeleteCourse",
        "teacher",
        {"id": "{course}"},
        "delete",
        "course",
        more=(("delete", "unit"), ("delete", "lesson")),
    ),
    Step(
        "UndeleteCourse",
        "teacher",
        {"id": "{course}"},
        "undelete",
        "course",
        more=(("undelete", "unit"), ("undelete", "lesson")),
    ),
    *on("course", "teacher", "Archive"),
    *on("lesson", "teacher", "Delete", "Undelete"),
    Step("DeleteUnit", "teacher", {"id": "{unit}"}, "delete", "unit", more=(("delete", "lesson"),)),
    Step("UndeleteUnit", "teacher", {"id": "{unit}"}, "undelete", "unit", more=(("undelete", "lesson"),)),
)
RESET = {"user_id": "{user}", "kind": "INVITATION_KIND_RESET"}
ROLE = {"slug": "aide", "name": "Aide", "permissions": [{"resource": "course", "action": "read"}]}
PEOPLE = (
    create("role", "admin", ROLE),
    update("role", "admin", {"name": "Aides"}),
    Step("DeleteRole", "admin", {"id": "{role}"}, "delete", "role", entity="{role}"),
    create("role", "admin", {**ROLE, "slug": "aide2"}),
    Step(
        "CreateUser",
        "admin",
        {"user": {"email": "lan@x.example", "display_name": "Lan", "roles": ["student"]}, "password": PASSWORD},
        "create",
        "user",
        more=(("set_roles", "user"),),
    ),
    update("user", "admin", {"display_name": "Lan Anh"}),
    Step("SetUserRoles", "admin", {"id": "{user}", "role_ids": ["{role}"]}, "set_roles", "user"),
    *on("user", "admin", "Deactivate", "Reactivate"),
    Step(
        "CreateUserPermission",
        "admin",
        {"user_permission": {"user_id": "{user}", "permission": {"resource": "story", "action": "list"}}},
        "grant_permission",
        "user",
        entity="{user}",
    ),
    Step("DeleteUserPermission", "admin", {"id": "{user_permission}"}, "revoke_permission", "user", entity="{user}"),
    Step(
        "CreateSession",
        "stranger",
        {"tenant": "{slug}", "email": "lan@x.example", "password": PASSWORD},
        "sign_in",
        "user",
        entity="{user}",
        keep={"refresh": "refresh_token", "token": "access_token"},
    ),
    Step("RefreshSession", "stranger", {"refresh_token": "{refresh}"}, "", "", keep={"token": "access_token"}),
    Step(
        "ChangePassword",
        "lan",
        {"current_password": PASSWORD, "new_password": f"{PASSWORD} 2"},
        "change_password",
        "user",
        entity="{user}",
    ),
    Step("DeleteSession", "lan", {}, "sign_out", "user", entity="{user}"),
    Step("CreateInvitation", "admin", RESET, "create", "invitation"),
    *on("invitation", "admin", "Revoke"),
    Step("CreateInvitation", "admin", RESET, "create", "invitation", keep={"invited": "token"}),
    Step(
        "AcceptInvitation",
        "stranger",
        {"token": "{invited}", "password": PASSWORD},
        "accept",
        "invitation",
        entity="{invitation}",
        more=(("reset_password", "user"),),
    ),
    Step("ExportUser", "admin", {"user_id": "{user}"}, "export", "user", entity="{user}"),
    *on("user", "admin", "Delete", "Undelete", "Delete"),
    Step("PurgeUser", "admin", {"user_id": "{user}"}, "purge", "user", entity="{user}"),
)
POLICIES = (
    Step("CreateResourcePolicy", "admin", {"policy": {**POLICY, "conditions": NOBODY}}, "create", "resource_policy"),
    Step(
        "UpdateResourcePolicy",
        "admin",
        {"policy": {"id": "{resource_policy}", "name": "q"}},
        "update",
        "resource_policy",
    ),
    Step(
        "RestoreResourcePolicyVersion",
        "admin",
        {"id": "{resource_policy}", "version": 1},
        "restore_version",
        "resource_policy",
    ),
    Step("ActivateResourcePolicy", "admin", {"id": "{resource_policy}"}, "activate", "resource_policy"),
    Step("DeactivateResourcePolicy", "admin", {"id": "{resource_policy}"}, "deactivate", "resource_policy"),
    Step("DeleteResourcePolicy", "admin", {"id": "{resource_policy}"}, "delete", "resource_policy"),
    Step("UndeleteResourcePolicy", "admin", {"id": "{resource_policy}"}, "undelete", "resource_policy"),
)
AUDIT = (
    create("legal_hold", "admin", {"reason": "case 7"}),
    *on("legal_hold", "admin", "Release"),
    Step("ExportAuditLogs", "auditor", {}, "export_audit_log", "audit_log", entity=NIL),
)
ADMINISTRATOR = {"email": "chief@x.example", "display_name": "Chief", "password": PASSWORD}
PLATFORM = (
    Step(
        "CreateTenant",
        "root",
        {"tenant": {"slug": "{slug}x", "name": "X"}, "administrator": ADMINISTRATOR},
        "create",
        "tenant",
        more=(("create", "user"),),
        where="{tenant}",
    ),
    Step("UpdateTenant", "root", {"tenant": {"id": "{tenant}", "name": "Y"}}, "update", "tenant", where="{tenant}"),
    *(
        Step(f"{verb}Tenant", "root", {"id": "{tenant}"}, verb.lower(), "tenant", where="{tenant}")
        for verb in ("Suspend", "Resume", "Suspend")
    ),
    Step("PurgeTenant", "root", {"id": "{tenant}"}, "purge", "tenant", entity="{tenant}", where=NIL),
    Step("ReplayParkedEvents", "root", {"service": "content"}, "replay", "parked_event", entity=NIL, where=NIL),
    Step("RotateSigningKey", "root", {}, "rotate", "signing_key", where=NIL),
)
LIFE = (
    *(*COPIES, *ORDER, *TOGETHER, *CLASSES, *CONTENT, *AUDIOS, *TAGS),
    *(*APPROVALS, *LEARNING, *PHONES, *ASSESSMENT, *ENDINGS, *PEOPLE, *POLICIES, *AUDIT, *PLATFORM),
)
