"""Two tenants with at least one of everything, made through the API: what isolation is tested with."""

import asyncio
import base64
import secrets
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from kit.settings import SERVICES
from tests.content.recording import sha256, tone
from tests.contract import api
from tests.learning.crowds import crowd
from tests.stack import PASSWORD, Person, School, Stack, found_school

# Whether this is the long run of `make proof`.
RENEW_SECONDS = 240
LANGUAGES = {"language": "vi", "learning_language": "en"}
_made: WeakKeyDictionary[Stack, "Population"] = WeakKeyDictionary()


@dataclass
class Tenancy:
    """A tenant's people, the text that none but its people may ever see, and the ids of its rows by their kind."""

    admin: Person
    teacher: Person
    student: Person
    canary: str
    ids: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, kind: str, message: Any) -> Any:
        self.ids.setdefault(kind, []).append(message if isinstance(message, str) else message.id)
        return message


@dataclass
class Population:
    school: School
    ours: Tenancy
    theirs: Tenancy
    since: float = field(default_factory=time.monotonic)


@cache
def rpc_named(name: str) -> MethodDescriptor:
    (found,) = (rpc for rpc in api.rpcs() if rpc.name == name)
    return found


def implementer(rpc: MethodDescriptor) -> str:
    """The service to call; audit for what several implement."""
    return api.owner(rpc) if api.owner(rpc) in SERVICES else "audit"


async def send(person: Person, rpc: MethodDescriptor, request: Any) -> Any:
    """The answer, or the first message of a stream of them; `request` is a message or its bytes."""
    channel, path = person.stack.channel(implementer(rpc)), api.path_of(rpc)
    data = request if isinstance(request, bytes) else request.SerializeToString()
    answer = GetMessageClass(rpc.output_type).FromString
    if rpc.server_streaming:
        stream = channel.unary_stream(path, response_deserializer=answer)(data, metadata=person.metadata, timeout=10)
        first = await stream.read()
        # What is watched goes on for ever, and each tenant watches only so much at once.
        stream.cancel()
        return GetMessageClass(rpc.output_type)() if first is grpc.aio.EOF else first
    return await channel.unary_unary(path, response_deserializer=answer)(data, metadata=person.metadata, timeout=10)


async def ask(person: Person, name: str, **request: Any) -> Any:
    """Calls the RPC of this name with the request's fields."""
    rpc = rpc_named(name)
    return await send(person, rpc, json_format.ParseDict(request, GetMessageClass(rpc.input_type)()))


async def populate(stack: Stack) -> Population:
    """The same two tenants for all tests of a stack."""
    if stack not in _made:
        _made[stack] = await fresh(stack)
    await _renew(_made[stack])
    return _made[stack]


async def fresh(stack: Stack) -> Population:
    """Two tenants for a test that leaves them in ruins."""
    mark = secrets.token_hex(6)
    school = await found_school(stack, f"kanari{mark}", f"visitor{mark}")
    ours = Tenancy(school.admin, school.teacher, school.student, f"kanari{mark}")
    theirs = Tenancy(school.outsider_admin, school.outsider_teacher, school.outsider, f"visitor{mark}")
    for tenancy in (ours, theirs):
        await _people(tenancy)
        await _course(tenancy)
        await _stories(tenancy)
        await _audios(tenancy)
        await _tags(tenancy)
        await _quizzes(tenancy)
        await _learning(tenancy)
    await stack.settle()
    for tenancy in (ours, theirs):
        logs = await ask(tenancy.admin, "ListAuditLogs", page_size=100)
        tenancy.ids["audit_log"] = [one.id for one in logs.audit_logs][:2]
        await _checkpoints(tenancy)
    return Population(school, ours, theirs)


async def _checkpoints(one: Tenancy) -> None:
    """Two of the tenant's log, and one that covers the entries: they come by themselves, moments after these."""
    async with asyncio.timeout(10):
        while len((await ask(one.admin, "ListCheckpoints")).checkpoints) < 2 or not await _is_covered(one):
            await ask(one.admin, "ListAuditLogs")
            await asyncio.sleep(0.2)


async def _is_covered(one: Tenancy) -> bool:
    """Whether there is a proof of the newest of the entries."""
    try:
        await ask(one.admin, "GetInclusionProof", audit_log_id=one.ids["audit_log"][0])
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            return False
        raise
    return True


async def _renew(population: Population) -> None:
    """Tokens are good for ten minutes; the long run takes more."""
    if time.monotonic() - population.since < RENEW_SECONDS:
        return
    population.since = time.monotonic()
    for one in (population.ours, population.theirs):
        for person in (one.admin, one.teacher, one.student):
            person.token = (await person.stack.sign_in(one.canary, person.email)).token


async def _people(one: Tenancy) -> None:
    one.keep("tenant", one.admin.tenant_id)
    # First, because rows that belong to a user belong to this one.
    one.keep("user", one.student.user_id)
    session = await ask(one.admin, "CreateSession", tenant=one.canary, email=one.student.email, password=PASSWORD)
    one.keep("session", session.session_id)
    permissions = [{"resource": "course", "action": "read"}]
    for n in range(2):
        role = {"slug": f"aide{n}", "name": f"{one.canary} aide", "description": one.canary, "permissions": permissions}
        one.keep("role", await ask(one.admin, "CreateRole", role=role))
    for n in range(2):
        user = {"email": f"spare{n}@{one.canary}.example", "display_name": one.canary, "attributes": {"x": one.canary}}
        one.keep("user", await ask(one.admin, "CreateUser", user=user))
        one.keep("invitation", await ask(one.admin, "CreateInvitation", user_id=one.ids["user"][-1]))
    for action in ("read", "list"):
        # What students may do anyway: how roles work is tested with them.
        given = {"permission": {"resource": "vocabulary", "action": action}, "user_id": one.student.user_id}
        made = await ask(one.admin, "CreateUserPermission", user_permission={**given, "reason": one.canary})
        one.keep("user_permission", made)
        # Drafts, which change nothing for the others.
        policy = {"name": f"{one.canary} {action}", "description": one.canary, "conditions": {"always": True}}
        policy |= {"resource": "story", "actions": [action], "effect": "POLICY_EFFECT_DENY"}
        made = one.keep("resource_policy", await ask(one.admin, "CreateResourcePolicy", policy=policy))
        await ask(one.admin, "UpdateResourcePolicy", policy={"id": made.id, "priority": 1})
    for _ in range(2):
        # In the past, so that it keeps nothing of what other tests erase.
        hold = {"reason": one.canary, "start_time": "2001-01-01T00:00:00Z", "end_time": "2001-01-02T00:00:00Z"}
        one.keep("legal_hold", await ask(one.admin, "CreateLegalHold", legal_hold=hold))
    # Two deleted users on their way out: what they leave are the erasures.
    for n in range(2):
        user = await ask(one.admin, "CreateUser", user={"email": f"gone{n}@{one.canary}.example", "display_name": "x"})
        await ask(one.admin, "DeleteUser", id=user.id)
        one.keep("erasure", await ask(one.admin, "PurgeUser", user_id=user.id))


async def _course(one: Tenancy) -> None:
    text = {"title": f"{one.canary} title", "description": f"{one.canary} description"}
    languages = {"story_language": "vi", "learning_language": "en"}
    for _ in range(2):
        course = one.keep("course", await ask(one.teacher, "CreateCourse", course=text | languages))
        await ask(one.teacher, "PublishCourse", id=course.id)
    for _ in range(2):
        one.keep("unit", await ask(one.teacher, "CreateUnit", unit={"course_id": one.ids["course"][0], **text}))
    for _ in range(2):
        made = {"unit_id": one.ids["unit"][0], "prerequisite_ids": one.ids.get("lesson", []), **text}
        lesson = one.keep("lesson", await ask(one.teacher, "CreateLesson", lesson=made))
        await ask(one.teacher, "PublishLesson", id=lesson.id)


async def _stories(one: Tenancy) -> None:
    for term, translation in (("con mèo", "cat"), ("con chó", "dog")):
        word = {"term": term, "translation": translation, "part_of_speech": "PART_OF_SPEECH_NOUN", **LANGUAGES}
        made = await ask(one.teacher, "CreateVocabulary", vocabulary={**word, "explanation": one.canary})
        one.keep("vocabulary", made)
    for n in range(2):
        text = f"Ngày xưa có con mèo và con chó. {one.canary} là tên của con mèo. Con chó đi chợ."
        story = {"title": one.canary, "text": text, "lesson_id": one.ids["lesson"][0], **LANGUAGES}
        made = one.keep("story", await ask(one.teacher, "CreateStory", story=story))
        targets = [{"part_of_speech": "PART_OF_SPEECH_NOUN", "ratio": "0.5"}]
        woven = await ask(one.teacher, "WeaveStory", id=made.id, targets=targets)
        version = one.keep("story_version", woven.current_version)
        wanted = {"entity_type": "story_version", "entity_id": version.id, "comment": one.canary}
        approval = one.keep("approval", await ask(one.teacher, "CreateApproval", approval=wanted))
        if n == 0:
            await ask(one.admin, "ApproveApproval", id=approval.id, comment=one.canary)
            await one.admin.stack.settle()
            await ask(one.teacher, "PublishStory", id=made.id)


async def _tags(one: Tenancy) -> None:
    for n in range(2):
        tag = one.keep("tag", await ask(one.teacher, "CreateTag", tag={"name": f"{one.canary} {n}"}))
        for kind in ("course", "lesson", "story"):
            await ask(one.teacher, f"Tag{kind.title()}", tag_id=tag.id, **{f"{kind}_id": one.ids[kind][0]})


async def _audios(one: Tenancy) -> None:
    for n, story in enumerate(one.ids["story"]):
        audio = {"story_id": story, "title": one.canary, "voice": one.canary}
        made = one.keep("audio", await ask(one.teacher, "CreateAudio", audio=audio))
        if n == 0:
            await publish_audio(one.teacher, made.id)
            heard = f"WEBVTT\n\n00:00.000 --> 00:00.100\n{one.canary} là tên của\n"
            await ask(one.teacher, "SetAudioTimestamps", id=made.id, captions=heard)


async def publish_audio(person: Person, audio_id: str) -> None:
    """Gives the recording a file, and publishes it."""
    data = tone(0.1)
    file = {"content_type": "audio/wav", "data": base64.b64encode(data).decode()}
    await ask(person, "UploadAudio", audio_id=audio_id, size_bytes=len(data), sha256=sha256(data), file=file)
    await ask(person, "PublishAudio", id=audio_id)


async def _quizzes(one: Tenancy) -> None:
    choices = [{"text": f"{one.canary} {n}", "correct": n == 0, "feedback": one.canary} for n in range(3)]
    for _ in range(2):
        asked = {"type": "QUESTION_TYPE_MULTIPLE_CHOICE", "prompt": one.canary, "explanation": one.canary}
        question = await ask(one.teacher, "CreateQuestion", question={**asked, "choices": choices})
        await ask(one.teacher, "UpdateQuestion", question={"id": question.id, **asked})
        one.keep("question", question)
        one.keep("choice", question.choices[0].id)
        exercise = {"title": one.canary, "instructions": one.canary, "passage": one.canary}
        made = one.keep("exercise", await ask(one.teacher, "CreateExercise", exercise=exercise))
        await ask(one.teacher, "PublishExercise", id=made.id)
    items = [{"question_id": question, "points": "1"} for question in one.ids["question"]]
    for _ in range(2):
        quiz = {"title": one.canary, "lesson_id": one.ids["lesson"][0], "items": items}
        made = one.keep("quiz", await ask(one.teacher, "CreateQuiz", quiz=quiz))
        await ask(one.teacher, "PublishQuiz", id=made.id)


async def _learning(one: Tenancy) -> None:
    for course in one.ids["course"]:
        enrollment = {"course_id": course, "user_id": one.student.user_id}
        one.keep("enrollment", await ask(one.teacher, "CreateEnrollment", enrollment=enrollment))
    for _ in range(2):
        cohort = one.keep("cohort", await ask(one.teacher, "CreateCohort", cohort={"name": one.canary}))
        await ask(one.teacher, "AddCohortMembers", id=cohort.id, user_ids=[one.student.user_id, one.teacher.user_id])
    # Lessons and enrolments arrive as events where progress and reading are decided on.
    await one.admin.stack.settle()
    for lesson in one.ids["lesson"]:
        progress = {"lesson_id": lesson, "status": "PROGRESS_STATUS_COMPLETED", "position_percent": 100}
        await ask(one.student, "UpdateProgress", progress=progress)
        session = await ask(one.student, "CreateLearningSession", learning_session={"lesson_id": lesson})
        one.keep("learning_session", session)
        await ask(one.student, "EndLearningSession", id=session.id)
    for word in one.ids["vocabulary"]:
        said = {"vocabulary_id": word, "rating": "REVIEW_RATING_GOOD"}
        review = await ask(one.student, "CreateVocabularyReview", vocabulary_review=said)
        one.keep("vocabulary_review", review)
        one.keep("vocabulary_progress", review.vocabulary_progress)
    await crowd(one.admin.stack, one.admin.tenant_id, one.ids["vocabulary"], one.ids["story"])
    settings = {"user_id": one.student.user_id, "new_words_per_day": 5}
    await ask(one.student, "UpdateLearnerSettings", learner_settings=settings)
    # The first one twice, so that a regrade of it changes two results.
    for quiz in (one.ids["quiz"][0], *one.ids["quiz"]):
        attempt = one.keep("attempt", await ask(one.student, "CreateAttempt", quiz_id=quiz))
        answer = {"question_id": one.ids["question"][0], "choice_ids": [one.ids["choice"][0]]}
        await ask(one.student, "SubmitAttempt", id=attempt.id, responses=[answer])
    for quiz in one.ids["quiz"]:
        given = {"quiz_id": quiz, "user_id": one.student.user_id, "extra_attempts": 1, "reason": one.canary}
        one.keep("extension", await ask(one.teacher, "CreateExtension", extension=given))
        for kind in ("FULL_MARKS", "DROP"):
            regrade = {"quiz_id": quiz, "question_id": one.ids["question"][1], "kind": f"REGRADE_KIND_{kind}"}
            one.keep("regrade", await ask(one.teacher, "CreateRegrade", regrade=regrade))

