"""A small school that leaves, and a second installation to go to: a database with the same tables and other keys."""

import asyncio
import csv
import io
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import pyrage

from deploy.backups.programs import connection, program
from deploy.tenants.archive import SIGNATURE, SUMS, Writer
from deploy.tenants.installation import Installation
from deploy.tenants.tables import carried, connect, write_rows
from kit.migrations import in_database, revisions
from kit.settings import Settings, decoded_key
from kit.signing import Keyring
from services.audit.sealing import Wrapper
from services.audit.signing import Signer
from services.content.storage import Storage
from tests.contract.population import ask, fresh, publish_audio
from tests.postgres import Cluster
from tests.stack import PASSWORD, Person, Stack, add_person

ELSEWHERE = "elsewhere"
LANGUAGES = {"language": "vi", "learning_language": "en"}
WORD = {"term": "con mèo", "translation": "cat", "part_of_speech": "PART_OF_SPEECH_NOUN", **LANGUAGES}
TEXT = 'Con mèo đi chợ, và nói:\n"Tên tôi là, \\N." Con mèo về nhà.'


@dataclass
class Leaving:
    """A tenant with a little of what triggers, trees, keys and storage have to do with."""

    slug: str
    tenant_id: UUID
    admin: Person
    teacher: Person
    student: Person
    course: str
    title: str = "Mèo"


async def found(root: Person, slug: str) -> Leaving:
    administrator = {"email": f"admin@{slug}.example", "display_name": "Admin", "password": PASSWORD}
    made = await ask(root, "CreateTenant", tenant={"slug": slug, "name": "A, “B”"}, administrator=administrator)
    admin = await root.stack.sign_in(slug, administrator["email"])
    admin.tenant_id = made.id
    teacher = await add_person(admin, slug, "teacher", "teacher")
    student = await add_person(admin, slug, "student", "student")
    course = {"title": "Mèo", "story_language": "vi", "learning_language": "en"}
    begun = await ask(teacher, "CreateCourse", course=course)
    one = Leaving(slug, UUID(made.id), admin, teacher, student, begun.id)
    await _teach(one)
    return one


async def _teach(one: Leaving) -> None:
    await ask(one.teacher, "PublishCourse", id=one.course)
    unit = await ask(one.teacher, "CreateUnit", unit={"course_id": one.course, "title": "1"})
    lesson = await ask(one.teacher, "CreateLesson", lesson={"unit_id": unit.id, "title": "1"})
    await ask(one.teacher, "PublishLesson", id=lesson.id)
    word = await ask(one.teacher, "CreateVocabulary", vocabulary=WORD)
    story = {"title": "Mèo", "text": TEXT, "lesson_id": lesson.id, **LANGUAGES}
    made = await ask(one.teacher, "CreateStory", story=story)
    audio = await ask(one.teacher, "CreateAudio", audio={"story_id": made.id, "title": "Mèo", "voice": "Lan"})
    await publish_audio(one.teacher, audio.id)
    enrollment = {"course_id": one.course, "user_id": one.student.user_id}
    await ask(one.teacher, "CreateEnrollment", enrollment=enrollment)
    await one.admin.stack.settle()
    progress = {"lesson_id": lesson.id, "status": "PROGRESS_STATUS_COMPLETED", "position_percent": 100}
    await ask(one.student, "UpdateProgress", progress=progress)
    session = await ask(one.student, "CreateLearningSession", learning_session={"lesson_id": lesson.id})
    await ask(one.student, "EndLearningSession", id=session.id)
    review = {"vocabulary_id": word.id, "rating": "REVIEW_RATING_GOOD"}
    await ask(one.student, "CreateVocabularyReview", vocabulary_review=review)
    await one.admin.stack.settle()


async def populated(stack: Stack) -> Leaving:
    """One with something in nearly every table."""
    made = (await fresh(stack)).ours
    people = made.admin, made.teacher, made.student
    return Leaving(made.canary, UUID(made.admin.tenant_id), *people, made.ids["course"][0], f"{made.canary} title")


def of(stack: Stack) -> Installation:
    """The installation that a stack is."""
    settings = Settings.from_environment("content", stack.environments["content"])
    return Installation(
        owner_url=stack.cluster.owner_url,
        wrapper=Wrapper(decoded_key("AUDIT_KEY_ENCRYPTION_KEY", settings.audit_key_encryption_key)),
        signer=Signer.of(settings.audit_signing_key, settings.audit_earlier_keys),
        storage=Storage(settings),
    )


class Elsewhere(Cluster):
    """A second database of the same server."""

    def url(self, role: str) -> str:
        return in_database(Cluster.url(self, role), ELSEWHERE)

    @property
    def superuser_url(self) -> str:
        return in_database(self.admin_url, ELSEWHERE)


async def elsewhere(cluster: Cluster) -> Elsewhere:
    """The tables of the first database, empty. Copied, which takes a fraction of what all migrations take."""
    made = Elsewhere(cluster.admin_url, cluster.passwords)
    admin = await asyncpg.connect(cluster.admin_url)
    await admin.execute(f"DROP DATABASE IF EXISTS {ELSEWHERE} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {ELSEWHERE} OWNER storyloom_owner")
    await admin.close()
    await asyncio.to_thread(_copy_schemas, cluster.superuser_url, made.superuser_url)
    here, there = await connect(cluster.owner_url), await connect(made.owner_url)
    for service, revision in (await revisions(here)).items():
        await there.execute(f"INSERT INTO {service}.alembic_version VALUES ('{revision}')")
    await here.close()
    await there.close()
    return made


def _copy_schemas(url: str, into: str) -> None:
    place, environment = connection(url)
    dump = [program("pg_dump"), "--schema-only", place]
    made = subprocess.run(dump, env=environment, check=True, capture_output=True).stdout
    place, environment = connection(into)
    psql = [program("psql"), "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", place]
    subprocess.run(psql, env=environment, check=True, input=made)


async def rows_of(url: str, tenant_id: UUID) -> dict[str, bytes]:
    """All rows of the tenant as archives have them, by member."""
    database = await connect(url)
    try:
        found = {}
        for one in await carried(database):
            out = io.BytesIO()
            await write_rows(database, one, tenant_id, out)
            found[one.member] = out.getvalue()
        return found
    finally:
        await database.close()


def members(path: Path, identity: Path | None = None) -> dict[str, bytes]:
    """What is in an archive, as any program sees it."""
    data = path.read_bytes()
    if identity is not None:
        data = pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(identity.read_text().strip())])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]


def forged(path: Path, parts: dict[str, bytes], keys: Keyring) -> Path:
    """An archive of these members whose digests are right, and signed."""
    with path.open("wb") as out:
        archive = Writer(out, 0)
        for name, data in parts.items():
            if name not in {SUMS, SIGNATURE}:
                archive.add(name, io.BytesIO(data))
        archive.close(keys)
    return path


def keys_of(rows: bytes, opened: Callable[[UUID, UUID, bytes], bytes] | None = None) -> dict[str, bytes]:
    """The keys of what the log says of people, by their ids; as they are, unless they have to be opened."""
    opened = opened or (lambda _id, _subject, octets: octets)
    found = csv.DictReader(rows.decode().splitlines())
    return {
        row["id"]: opened(UUID(row["id"]), UUID(row["subject_id"]), bytes.fromhex(row["wrapped_key"][2:]))
        for row in found
        if row["wrapped_key"]
    }
