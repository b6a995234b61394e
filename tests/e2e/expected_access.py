"""Who may call what with whose rows, written down once more: nothing here is read from the product.

Who widens a role, a rule or a declaration has to say so here as well."""

from collections.abc import Mapping

from google.protobuf.descriptor import MethodDescriptor

from tests.contract import api

# Which rows a call is about. Drafts are what others do not see yet: of each kind every person has one of both.
ROWS = ("own", "own draft", "same tenant", "same tenant's draft", "other tenant", "absent")
OURS, OWN = frozenset(ROWS[:4]), frozenset(ROWS[:2])
STRANGE = ("other tenant", "absent")

WITH_DRAFTS = {"course", "unit", "lesson", "story", "story_version", "quiz", "audio"}

HELD: Mapping[str, Mapping[str, str]] = {
    "admin": {"all": "manage"},
    "teacher": {
        "course": "create read list update delete undelete publish archive",
        "unit": "create read list update delete undelete",
        "lesson": "create read list update delete undelete publish",
        "story": "create read list update delete undelete weave publish archive",
        "audio": "create read list update delete undelete publish",
        "vocabulary": "create read list update delete undelete",
        "tag": "create read list update delete undelete",
        "exercise": "create read list update delete undelete publish archive",
        "question": "create read list update delete undelete import export",
        "quiz": "create read list update delete undelete publish archive regrade analyze",
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
    "student": {"vocabulary": "read list", "tag": "read list"},
    "auditor": {"audit_log": "read list export watch"},
    "nobody": {},
    "super_admin": {"all": "manage"},
    "system_admin": {
        "tenant": "create read list update suspend resume",
        "user": "read list",
        "role": "read list",
        "audit_log": "read list",
        "erasure": "read list",
    },
}
PLATFORM = {"super_admin", "system_admin"}
# Besides them, whoever asks stands before the same door: no token, and a platform's person in a tenant.
ROLES = (*HELD, "anonymous", "super_admin acting", "system_admin acting")

PUBLIC = {"CreateSession", "RefreshSession", "GetJwks", "AcceptInvitation", "GetAudioFile", "PutAudioFile"}
AUTHENTICATED = {
    *("DeleteSession", "GetMe", "ChangePassword", "GetMyTenant", "ListMyPermissions"),
    *("CheckAccess", "BatchCheckAccess"),
    # Of what the caller may list.
    "Search",
    # Each event is decided on by itself, and answered for.
    "SyncClientEvents",
}
# By service too, for some have the names of RPCs that users call.
INTERNAL = {
    "AccessService": {"GetAccessSnapshot", "GetPoliciesInForce", "WatchRevisions", "GetUserSummaries"},
    "DecisionService": {"CheckResources", "ExplainDecision", "PreviewPolicy"},
    "EnrollmentService": {"CheckEnrollment"},
    "EventInboxService": {"DeliverEvents"},
    "OutboxService": {"GetOutbox", "ReplayEvents"},
    "SubjectService": {"ExportUser", "EraseUser", "PurgeTenant"},
}
# Where the permission is not the RPC's own name.
PERMISSIONS = {
    "BatchCreateVocabularies": "vocabulary:create",
    "BatchGetVocabularies": "vocabulary:read",
    "CreatePublication": "story:publish",
    "DeactivateResourcePolicy": "resource_policy:activate",
    "EndLearningSession": "learning_session:update",
    "ExplainAccess": "resource_policy:explain",
    "ExportUser": "user:export",
    "ExportVocabularies": "vocabulary:list",
    "GetCheckpoint": "audit_log:read",
    "GetConsistencyProof": "audit_log:read",
    "GetInclusionProof": "audit_log:read",
    "GetVerifierKey": "audit_log:read",
    "ListCheckpoints": "audit_log:list",
    "GetCourseProgress": "progress:read",
    "GetCoverage": "story:read",
    "GetStoryVersion": "story:read",
    "GetStoryVersionDiff": "story:read",
    "HeartbeatLearningSession": "learning_session:update",
    "ImportUsers": "user:import",
    "ImportVocabularies": "vocabulary:create",
    "ImportVocabularyText": "vocabulary:create",
    "ListPermissions": "role:list",
    "ListResourcePolicyVersions": "resource_policy:read",
    "ListStoryVersions": "story:list",
    "PreviewPolicy": "resource_policy:test",
    "PreviewPublication": "story:publish",
    "PurgeTenant": "tenant:purge",
    "PurgeUser": "user:purge",
    "RejectApproval": "approval:approve",
    "RestoreResourcePolicyVersion": "resource_policy:update",
    "RestoreStoryVersion": "story:update",
    "SaveResponses": "attempt:update",
    "DuplicateQuiz": "quiz:create",
    "PreviewQuiz": "quiz:update",
    "SetUserRoles": "user:set_roles",
    "TestPolicy": "resource_policy:test",
}
OF_QUESTIONS = ("BatchGetQuestions", "GetQuestionVersion", "ListQuestionUses", "ListQuestionVersions")
PERMISSIONS |= dict.fromkeys(OF_QUESTIONS, "question:read")
PERMISSIONS |= {"ImportQuestions": "question:import"}
PERMISSIONS |= dict.fromkeys(("ExportQuestions", "PreviewExport"), "question:export")
PERMISSIONS |= {"CopyCourse": "course:create", "ImportPackage": "course:create", "GetCourseOrigin": "course:update"}
PERMISSIONS |= {"CopyCourseToTenant": "course:export", "ExportPackage": "course:export"}
PERMISSIONS |= {f"BatchGet{kind.title()}s": f"{kind}:read" for kind in ("course", "unit", "lesson")}
PERMISSIONS |= {"BatchGetStories": "story:read"}
PERMISSIONS |= {"GetAudioCaptions": "audio:read", "GetAudioDownload": "audio:read"}
PERMISSIONS |= dict.fromkeys(
    ("SetAudioTimestamps", "CreateAudioUpload", "CompleteAudioUpload", "UploadAudio"), "audio:update"
)
PERMISSIONS |= {"ReorderUnits": "course:update", "ReorderLessons": "unit:update", "ReorderStories": "lesson:update"}
PERMISSIONS |= {
    "BatchCreateVocabularyReviews": "vocabulary_review:create",
    "BatchGetVocabularyProgress": "vocabulary_progress:read",
    "ExportVocabularyProgress": "vocabulary_progress:list",
    "GetReviewQueue": "vocabulary_progress:list",
    "ImportKnownVocabulary": "vocabulary_review:create",
    "RecordVocabularyExposures": "vocabulary_progress:update",
}
PERMISSIONS |= {"ListWordDifficulties": "word_difficulty:list", "ListStoryDifficulties": "story_difficulty:list"}
PERMISSIONS |= dict.fromkeys(("GetTenantActivity", "GetTenantRetention"), "tenant_activity:read")
PERMISSIONS |= dict.fromkeys(("PreviewRegrade", "CreateRegrade", "GetRegrade"), "quiz:regrade")
PERMISSIONS |= dict.fromkeys(("ListRegrades", "ListRegradeChanges"), "quiz:regrade")
PERMISSIONS |= dict.fromkeys(("GetAnalysis", "ExportAnalysis"), "quiz:analyze")
PERMISSIONS |= {"AddCohortMembers": "cohort:update", "RemoveCohortMembers": "cohort:update"}
PERMISSIONS |= {"ListCohortMembers": "cohort:read", "EnrollCohort": "enrollment:create"}
PERMISSIONS |= {"GetCohortAnalytics": "cohort:read", "ListCohortLearners": "cohort:read"}
PERMISSIONS |= {"GetLearnerAnalytics": "daily_activity:read"}
PERMISSIONS |= {"BatchCreateEnrollments": "enrollment:create", "GetHome": "enrollment:list"}
# By everybody, of their own; words that there are not are left out.
LEAVING_OUT = {"BatchCreateVocabularyReviews", "ImportKnownVocabulary", "RecordVocabularyExposures"}
# What everybody of a tenant may do without any role, and with whose rows.
SEEN = frozenset({"own", "same tenant"})
SEEN_OR_WRITTEN = SEEN | {"own draft"}
EVERYBODY: Mapping[str, frozenset[str]] = {
    "GetUser": OWN,
    "UpdateUser": OWN,
    "ExportUser": OWN,
    # What the caller may not see is left out.
    **dict.fromkeys(("BatchGetCourses", "BatchGetUnits", "BatchGetLessons", "BatchGetStories"), OURS),
    "GetCourse": SEEN,
    "ListCourses": OURS,
    "GetUnit": SEEN,
    "ListUnits": SEEN,
    "GetLesson": frozenset({"own"}),
    "ListLessons": OURS,
    "GetStory": SEEN_OR_WRITTEN,
    "RenderStory": SEEN_OR_WRITTEN,
    "ListStories": OURS,
    "GetStoryVersion": SEEN_OR_WRITTEN,
    "ListStoryVersions": SEEN_OR_WRITTEN,
    "GetStoryVersionDiff": SEEN_OR_WRITTEN,
    "GetCoverage": SEEN_OR_WRITTEN,
    **dict.fromkeys(("GetAudio", "GetAudioCaptions", "GetAudioDownload"), SEEN_OR_WRITTEN),
    "ListAudios": OURS,
    "UpdateStory": frozenset({"own draft"}),
    "TagStory": frozenset({"own draft"}),
    "UntagStory": frozenset({"own draft"}),
    "WeaveStory": frozenset({"own draft"}),
    "RestoreStoryVersion": frozenset({"own draft"}),
    "DeleteStory": frozenset({"own draft"}),
    "GetExercise": SEEN,
    "ListExercises": OURS,
    "GetQuiz": SEEN,
    "ListQuizzes": OURS,
    "CreateAttempt": SEEN,
    "GetAttempt": OWN,
    "ListAttempts": OURS,
    "SaveResponses": OWN,
    "SubmitAttempt": OWN,
    "GetExtension": OWN,
    "ListExtensions": OURS,
    "GetHome": OURS,
    "GetEnrollment": OWN,
    "ListEnrollments": OURS,
    "GetProgress": OWN,
    "UpdateProgress": OWN,
    "ListProgress": OURS,
    "GetCourseProgress": frozenset({"own"}),
    "CreateLearningSession": OWN,
    "GetLearningSession": OWN,
    "ListLearningSessions": OURS,
    "HeartbeatLearningSession": OWN,
    "EndLearningSession": OWN,
    "GetVocabularyProgress": OWN,
    "BatchGetVocabularyProgress": OURS,
    "ListVocabularyProgress": OURS,
    "GetReviewQueue": OURS,
    "ExportVocabularyProgress": OURS,
    "CreateVocabularyReview": OURS,
    "ListVocabularyReviews": OURS,
    "ExportStatements": OWN,
    "GetLearnerAnalytics": OWN,
    "GetLearnerSettings": OWN,
    "UpdateLearnerSettings": OWN,
    "GetApproval": OWN,
    "ListApprovals": OURS,
    "WithdrawApproval": OWN,
}
# Whatever the role: these are about the caller's own doings.
PERSONAL: Mapping[str, frozenset[str]] = {
    name: EVERYBODY[name]
    for name in (
        *("HeartbeatLearningSession", "EndLearningSession", "SaveResponses", "SubmitAttempt"),
        *("GetProgress", "GetCourseProgress", "UpdateLearnerSettings"),
    )
} | {"ExplainAccess": OURS}
PERMISSIONS |= {"WeaveStory": "story:weave", "RenderStory": "story:read", "CreateStoryQuiz": "quiz:create"}
OPERATIONS = {"GetOutboxStandings", "ListParkedEvents", "ReplayParkedEvents", "RotateSigningKey"}
PERMISSIONS |= dict.fromkeys(OPERATIONS, "tenant:operate")
TAGGED = ("course", "lesson", "story")
PERMISSIONS |= {f"{verb}{kind.title()}": f"{kind}:update" for verb in ("Tag", "Untag") for kind in TAGGED}
STAFF_ONLY = {"CreateTenant", "SuspendTenant", "ResumeTenant", "PurgeTenant", *OPERATIONS}
# No etag keeps these from being done, and then others find nothing.
ENDS_ROWS = {"DeleteUserPermission"}
# To the platform's people, every tenant is one of theirs.
OF_ANY_TENANT = {"GetTenant", "UpdateTenant", "SuspendTenant", "ResumeTenant", "PurgeTenant"}

def is_internal(rpc: MethodDescriptor) -> bool:
    return rpc.name in INTERNAL.get(rpc.containing_service.name, ())


def permission_of(rpc: MethodDescriptor) -> str:
    """By the name of the RPC and of its service."""
    if rpc.name in PERMISSIONS:
        return PERMISSIONS[rpc.name]
    resource = rpc.containing_service.name.removesuffix("Service")
    forms = (resource, f"{resource}s", f"{resource}es", f"{resource}zes", f"{resource[:-1]}ies")
    verb = next(rpc.name.removesuffix(form) for form in reversed(forms) if rpc.name.endswith(form))
    return f"{api.snake(resource)}:{'read' if verb == 'Get' else api.snake(verb)}"


def holds(role: str, permission: str) -> bool:
    resource, _, action = permission.partition(":")
    actions = HELD[role].get(resource, "").split()
    return action in actions or "manage" in actions or HELD[role].get("all") == "manage"


def allowed(rpc: MethodDescriptor, role: str) -> frozenset[str]:
    """The rows with which the role may call the RPC."""
    name, base = rpc.name, role.partition(" ")[0]
    everything = OURS | {"other tenant", "absent"}
    if name in PUBLIC:
        return everything
    if is_internal(rpc) or base == "anonymous" or role == "system_admin acting":
        return frozenset()
    if name in AUTHENTICATED | LEAVING_OUT:
        return everything
    if name in STAFF_ONLY and base not in PLATFORM:
        return frozenset()
    if holds(base, permission_of(rpc)):
        if base in PLATFORM and name in OF_ANY_TENANT:
            return OURS | {"other tenant"}
        return OURS if name not in PERSONAL else PERSONAL[name] if base == role else frozenset()
    # Whoever reads drafts of quizzes hears that they cannot be taken yet.
    more = OURS if name == "CreateAttempt" and holds(base, "quiz:read") else frozenset()
    return EVERYBODY.get(name, frozenset()) | more
