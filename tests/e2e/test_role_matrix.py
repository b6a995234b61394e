"""Every RPC × every built-in role × whose row it is: allowed is exactly what `expected_access` says."""

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from kit.access import Access
from kit.ids import SYSTEM_TENANT, new_id
from kit.options import requires
from tests.contract import api, requests
from tests.contract.answers import Answer, answer
from tests.contract.population import Tenancy, ask, populate, publish_audio, rpc_named
from tests.contract.test_roles import reason
from tests.e2e.expected_access import (
    AUTHENTICATED,
    ENDS_ROWS,
    EVERYBODY,
    HELD,
    OF_ANY_TENANT,
    OWN,
    PERMISSIONS,
    PLATFORM,
    PUBLIC,
    ROLES,
    ROWS,
    STAFF_ONLY,
    STRANGE,
    WITH_DRAFTS,
    allowed,
    holds,
    is_internal,
    permission_of,
)
from tests.profile import PROOF
from tests.stack import Person, Stack, add_person

# As many as the services have patience for.
AT_ONCE = asyncio.Semaphore(3)
# On one worker, for the people and their rows take some time to make.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("roles")]


@dataclass
class Cast:
    """Somebody of each role, the rows that each would call their own, and those of others."""

    people: dict[str, Person]
    own: dict[str, dict[str, list[str]]]
    same: dict[str, dict[str, list[str]]]
    other: dict[str, list[str]]
    calls: Counter[str] = field(default_factory=Counter)

    def id_of(self, role: str, row: str, kind: str) -> str:
        if row == "absent":
            return str(new_id())
        if row == "other tenant":
            return self.other[kind][0]
        ids = (self.own if row in OWN else self.same)[role][kind]
        return ids[-1] if "draft" in row else ids[0]


@pytest.fixture(scope="module")
async def cast(stack: Stack) -> Cast:
    population = await populate(stack)
    boss, slug = population.ours.admin, population.ours.canary
    root = replace(population.school.root, tenant_id=str(SYSTEM_TENANT))
    colleague = join(boss, slug, "colleague", "admin")
    operator = join(root, "platform", f"operator-{slug}", "super_admin")
    joining = (_member(role, boss, root, slug) for role in HELD)
    (_, theirs), (_, operators), *members = await asyncio.gather(colleague, operator, *joining)
    theirs = population.ours.ids | theirs
    people = {role: person for role, (person, _) in zip(HELD, members, strict=True)}
    same = {role: operators if role in PLATFORM else theirs for role in HELD}
    own = {role: same[role] | made for role, (_, made) in zip(HELD, members, strict=True)}
    for role in PLATFORM:
        people[f"{role} acting"] = replace(people[role], extra=(("x-act-in-tenant", boss.tenant_id),))
        own[f"{role} acting"] = same[f"{role} acting"] = theirs
    people["anonymous"] = Person(stack, "", "", "")
    own["anonymous"] = same["anonymous"] = theirs
    await until_in_force(people)
    return Cast(people, own, same, population.theirs.ids)


async def _member(role: str, boss: Person, root: Person, slug: str) -> tuple[Person, dict[str, list[str]]]:
    """Has every right at first, to make rows that are theirs; then those of the role."""
    chief, tenant, first = (root, "platform", "super_admin") if role in PLATFORM else (boss, slug, "admin")
    person, made = await join(chief, tenant, f"{role.replace('_', '-')}-{slug}", first)
    await ask(chief, "SetUserRoles", id=person.user_id, role_ids=await role_ids(person, role))
    return person, made


async def join(chief: Person, tenant: str, name: str, role: str) -> tuple[Person, dict[str, list[str]]]:
    async with AT_ONCE:
        person = await add_person(chief, tenant, name, role)
        return person, await rows_of(chief, person, name)


async def role_ids(person: Person, role: str) -> list[str]:
    roles = (await ask(person, "ListRoles", page_size=100)).roles
    return [one.id for one in roles if one.slug == role]


async def until_in_force(people: Mapping[str, Person]) -> None:
    """Until no service takes anybody for the administrator they have been."""
    reads = ("ListUsers", "ListQuestions", "ListAuditLogs", "CreateCourse", "CreateEnrollment")
    for role in ("nobody", "student", "auditor", "teacher", "system_admin"):
        for name in reads:
            rpc = rpc_named(name)
            while not holds(role, permission_of(rpc)):
                got = await answer(people[role], rpc, b"")
                if got.code is grpc.StatusCode.PERMISSION_DENIED:
                    break
                await asyncio.sleep(0.05)


async def rows_of(boss: Person, person: Person, mark: str) -> dict[str, list[str]]:
    """Of each kind one row that others see and one that they do not, by an administrator."""
    one = Tenancy(boss, person, person, mark)
    one.ids = {"tenant": [person.tenant_id], "user": [person.user_id]}
    languages = {"language": "vi", "learning_language": "en"}
    for n in range(2):
        course = one.keep("course", await ask(person, "CreateCourse", course={"title": mark}))
        if n == 0:
            await ask(person, "PublishCourse", id=course.id)
        one.keep("unit", await ask(person, "CreateUnit", unit={"course_id": course.id, "title": mark}))
        one.keep("role", await ask(person, "CreateRole", role=new_role(f"{mark}{n}")))
        word = {"term": f"{mark} {n}", "translation": "x", "part_of_speech": "PART_OF_SPEECH_NOUN", **languages}
        one.keep("vocabulary", await ask(person, "CreateVocabulary", vocabulary=word))
        review = {"vocabulary_id": one.ids["vocabulary"][-1], "rating": "REVIEW_RATING_GOOD"}
        review = await ask(person, "CreateVocabularyReview", vocabulary_review=review)
        one.keep("vocabulary_progress", review.vocabulary_progress)
        one.keep("cohort", await ask(person, "CreateCohort", cohort={"name": mark}))
        one.keep("tag", await ask(person, "CreateTag", tag={"name": f"{mark} {n}"[-50:]}))
        lesson = {"unit_id": one.ids["unit"][0], "title": mark}
        made = one.keep("lesson", await ask(person, "CreateLesson", lesson=lesson))
        if n == 0:
            await ask(person, "PublishLesson", id=made.id)
    await ask(person, "UpdateLearnerSettings", learner_settings={"user_id": person.user_id, "new_words_per_day": 5})
    await _writings(one, languages)
    wanted = {"course_id": one.ids["course"][0], "user_id": person.user_id}
    one.keep("enrollment", await ask(person, "CreateEnrollment", enrollment=wanted))
    # Approvals, enrolments and lessons arrive as events where they are decided on.
    await person.stack.settle()
    await ask(person, "PublishStory", id=one.ids["story"][0])
    for story in one.ids["story"]:
        one.keep("audio", await ask(person, "CreateAudio", audio={"story_id": story, "title": mark}))
    await publish_audio(person, one.ids["audio"][0])
    opened = {"lesson_id": one.ids["lesson"][0]}
    one.keep("learning_session", await ask(person, "CreateLearningSession", learning_session=opened))
    one.keep("attempt", await ask(person, "CreateAttempt", quiz_id=one.ids["quiz"][0]))
    dropped = {"quiz_id": one.ids["quiz"][0], "question_id": one.ids["question"][0], "kind": "REGRADE_KIND_DROP"}
    one.keep("regrade", await ask(person, "CreateRegrade", regrade=dropped))
    given = {"quiz_id": one.ids["quiz"][0], "user_id": person.user_id, "extra_attempts": 1}
    one.keep("extension", await ask(person, "CreateExtension", extension=given))
    hold = {"reason": mark, "end_time": "2001-01-01T00:00:00Z"}
    one.keep("legal_hold", await ask(person, "CreateLegalHold", legal_hold=hold))
    logs = await ask(person, "ListAuditLogs", page_size=1)
    one.ids["audit_log"] = [entry.id for entry in logs.audit_logs]
    return one.ids


def new_role(mark: str) -> dict[str, object]:
    slug = mark.replace(" ", "-").replace("_", "-")
    return {"slug": slug, "name": mark, "permissions": [{"resource": "course", "action": "read"}]}


async def _writings(one: Tenancy, languages: dict[str, str]) -> None:
    person = one.teacher
    for n in range(2):
        story = {"title": one.canary, "text": "Ngày xưa có con mèo.", "lesson_id": one.ids["lesson"][0], **languages}
        made = one.keep("story", await ask(person, "CreateStory", story=story))
        version = one.keep("story_version", made.current_version)
        wanted = {"entity_type": "story_version", "entity_id": version.id}
        approval = one.keep("approval", await ask(person, "CreateApproval", approval=wanted))
        if n == 0:
            await ask(one.admin, "ApproveApproval", id=approval.id)
    choices = [{"text": "a", "correct": True}, {"text": "b"}]
    for n in range(2):
        asked = {"type": "QUESTION_TYPE_MULTIPLE_CHOICE", "prompt": one.canary, "choices": choices}
        question = one.keep("question", await ask(person, "CreateQuestion", question=asked))
        one.keep("choice", question.choices[0].id)
        exercise = one.keep("exercise", await ask(person, "CreateExercise", exercise={"title": one.canary}))
        quiz = {"title": one.canary, "items": [{"question_id": question.id, "points": "1"}]}
        made = one.keep("quiz", await ask(person, "CreateQuiz", quiz=quiz))
        if n == 0:
            await ask(person, "PublishExercise", id=exercise.id)
            await ask(person, "PublishQuiz", id=made.id)


def request_of(rpc: MethodDescriptor, cast: Cast, role: str, row: str) -> Message:
    """The smallest request about such rows. A stale etag, wherever there is one, keeps what may be done undone."""
    etags = [path for path in requests.leaves(rpc) if path.rpartition(".")[2] == "etag"]
    paths = sorted({*requests.minimal(rpc), *etags})
    # What services ask each other names kinds of things that nobody makes.
    row = "absent" if is_internal(rpc) else row
    request = requests.make(rpc, paths, lambda kind: cast.id_of(role, row, kind))
    for path in etags:
        requests.put(request, path, "987654321")
    return request


def is_refused(rpc: MethodDescriptor, got: Answer) -> bool:
    if got.code is grpc.StatusCode.UNAUTHENTICATED:
        # A wrong password, or a refresh token that is none, is what the RPC itself says.
        return rpc.name not in PUBLIC and reason(got)[0] != "INVALID_CREDENTIALS"
    return got.code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND}


class TestDeclarations:
    def test_are_what_the_names_say(self) -> None:
        """So that an RPC whose declaration is taken away or weakened is noticed."""
        for rpc in api.rpcs():
            who = requires(rpc)
            kinds = {"public": rpc.name in PUBLIC, "authenticated": rpc.name in AUTHENTICATED}
            kinds["internal"] = is_internal(rpc)
            assert {kind: getattr(who, kind) for kind in kinds} == kinds, api.short(rpc)
            if not any(kinds.values()):
                assert f"{who.resource}:{who.action}" == permission_of(rpc), api.short(rpc)

    def test_name_only_rpcs_that_exist(self) -> None:
        names = {rpc.name for rpc in api.rpcs()}
        assert {*PUBLIC, *AUTHENTICATED, *PERMISSIONS, *EVERYBODY, *STAFF_ONLY, *OF_ANY_TENANT, *ENDS_ROWS} <= names


async def sweep(cast: Cast, role: str) -> tuple[list[str], int]:
    """Calls every RPC as the role with each kind of row; what is not as expected, and how many RPCs there were."""
    findings: list[str] = []
    covered = 0
    for rpc in api.rpcs():
        if rpc.name == "DeleteSession" and role != "anonymous":
            # It would end the session with which the next call is made.
            continue
        covered += 1
        strange: dict[str, Answer] = {}
        for row in rows_for(rpc, cast.own[role]):
            may = row in allowed(rpc, role)
            if may and rpc.name in ENDS_ROWS and row not in STRANGE:
                continue
            request = request_of(rpc, cast, role, row)
            got = await answer(cast.people[role], rpc, request)
            cast.calls[role] += 1
            if row in STRANGE:
                strange[row] = got.without(requests.texts(request))
            if row not in STRANGE and is_refused(rpc, got) == may:
                findings.append(f"{api.short(rpc)} with {row}: {'' if may else 'not '}allowed, but {told(got)}")
            if row in STRANGE and got.ok and not may and not rpc.name.startswith(("List", "BatchGet", "Create")):
                findings.append(f"{api.short(rpc)} with {row}: {told(got)}")
        if len(strange) == len(STRANGE) and "other tenant" not in allowed(rpc, role) and not same(strange):
            findings.append(f"{api.short(rpc)}: {[told(one) for one in strange.values()]} tell rows apart")
    return findings, covered


@pytest.mark.parametrize("role", ROLES)
class TestEveryRpc:
    async def test_is_open_to_the_role_for_exactly_these_rows(self, role: str, cast: Cast) -> None:
        findings, covered = await sweep(cast, role)
        sys.stdout.write(f"{cast.calls[role]} calls of {covered} RPCs as {role}, {len(findings)} findings\n")
        assert not findings, "\n" + "\n".join(findings)


class TestMutants:
    """Access wider than it should be is noticed; after all other tests, for then everybody may change everything."""

    @pytest.mark.parametrize("check", ["could", "allows"])
    async def test_are_noticed(self, check: str, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        """`could` is what the RPC's declaration is held against, `allows` what the handler asks for the row."""
        monkeypatch.setattr(Access, check, lambda *args, **kwargs: True)
        findings, _ = await sweep(cast, "nobody")
        sys.stdout.write(f"{len(findings)} findings when {check} says yes to everything\n")
        assert findings


def rows_for(rpc: MethodDescriptor, own: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Every kind of row, as far as the request names one and the kind has drafts."""
    fields = requests.leaves(rpc)
    kinds = {requests.kind_of(rpc, fields[path]) for path in requests.minimal(rpc) if requests.is_id(fields[path])}
    if not kinds or is_internal(rpc):
        return ("own",)
    if kinds - own.keys():
        # The platform's own tenant has some of everything that tenants are for, but no more.
        return STRANGE
    return ROWS if PROOF or kinds & WITH_DRAFTS else tuple(row for row in ROWS if "draft" not in row)


def told(got: Answer) -> str:
    return f"{got.code.name} {got.message!r}"


def same(answers: Mapping[str, Answer]) -> bool:
    first, second = (answers[row] for row in STRANGE)
    return first.same_as(second)
