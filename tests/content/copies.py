"""A course with everything in it, to copy and to pack, and what is in a course."""

from collections.abc import AsyncIterator
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from storyloom.content.v1 import lessons_pb2, stories_pb2, story_versions_pb2, units_pb2, vocabularies_pb2
from storyloom.content.v1.audios_pb2 import SetAudioTimestampsRequest
from storyloom.content.v1.course_copies_pb2 import (
    CopyCourseRequest,
    CopyCourseResponse,
    CopyCourseToTenantRequest,
    CourseOrigin,
    GetCourseOriginRequest,
)
from storyloom.content.v1.course_copies_pb2_grpc import CourseCopyServiceStub
from storyloom.content.v1.courses_pb2 import Course, GetCourseRequest
from storyloom.content.v1.packages_pb2 import ExportPackageRequest, ImportPackageRequest, ImportPackageResponse
from storyloom.content.v1.packages_pb2_grpc import PackageServiceStub
from storyloom.content.v1.tags_pb2 import (
    CreateTagRequest,
    ListTagsRequest,
    Tag,
    TagCourseRequest,
    TagLessonRequest,
    TagStoryRequest,
)
from storyloom.content.v1.tags_pb2_grpc import TagServiceStub
from tests.content.conftest import WORDS, Author
from tests.content.recording import Narrator, Web, tone

REQUESTS: dict[str, Any] = {"Course": TagCourseRequest, "Lesson": TagLessonRequest, "Story": TagStoryRequest}
TEXT = "Sáng sớm, mặt trời lên trên dòng sông.\r\n\r\nÔng nội chèo ghe 🛶 ra chợ nổi; Lan nhìn mặt trời."


async def full_course(author: Author, *, title: str = "Tiếng Anh 6", stories: int = 2) -> Course:
    """Two units; three lessons, of which the last comes after both others; the stories of the first are woven."""
    await author.learn_words(*WORDS)
    ids = {term: word_id for word_id, term in (await terms(author)).items()}
    course = await author.course(title)
    first, second = [await author.unit(course.id, name) for name in ("Chương 1", "Chương 2")]
    one = await author.lesson(first.id, "Bài 1", description="Mở đầu")
    two = await author.lesson(first.id, "Bài 2", prerequisite_ids=[one.id])
    await author.lesson(second.id, "Bài 3", prerequisite_ids=[one.id, two.id])
    for number in range(stories):
        chosen = [ids["ghe"], ids["mặt trời"]]
        made = await author.story(f"Chợ nổi {number}", TEXT, lesson_id=one.id, vocabulary_ids=chosen)
        pins = {"pinned_vocabulary_ids": [ids["ghe"]], "banned_vocabulary_ids": [ids["ngồi"]]}
        await author.weave(made.id, "0.5", seed=number, **pins)
    plain = await author.story("Không chêm", "Một câu.\n\nHai câu.", lesson_id=two.id)
    await tag(author, "Chợ", course_id=course.id)
    await tag(author, "chợ nổi", course_id=course.id)
    await tag(author, "Chợ", lesson_id=one.id)
    await tag(author, "Chợ", story_id=plain.id)
    return course


async def record(author: Author, seconds: float = 0.2, *, captions: str = "", **of: str) -> Any:
    """A published recording."""
    narrator = Narrator.of(author.person)
    made = await narrator.create(title="Đọc", voice="Lan", **of)
    await narrator.upload(made.id, tone(seconds))
    if captions:
        request = SetAudioTimestampsRequest(id=made.id, format="CAPTION_FORMAT_SRT", captions=captions)
        await narrator.audios.SetAudioTimestamps(request)
    return await narrator.act("Publish", made.id)


async def spoken_course(author: Author) -> Course:
    """The same with a recording of its plain story, which tells when its first chunk is heard, and one of a word."""
    course = await full_course(author, stories=1)
    listed = stories_pb2.ListStoriesRequest(query="Không chêm", page_size=1)
    (story,) = (await author.stories.ListStories(listed)).stories
    await record(author, story_id=story.id, captions="1\n00:00:00,010 --> 00:00:00,120\nMột câu.\n")
    ids = {term: word_id for word_id, term in (await terms(author)).items()}
    await record(author, 0.3, vocabulary_id=ids["ghe"])
    return course


async def heard(author: Author, **of: str) -> list[Any]:
    """The recordings of a story or word, with what is heard."""
    narrator = Narrator.of(author.person)
    found = []
    for audio_id in await narrator.list(**of):
        one = await narrator.get(audio_id)
        link = (await narrator.download(audio_id)).url
        data, _ = await Web(author.person.stack.channel("content")).get(link)
        times = [(time.position, time.start_offset.ToMilliseconds()) for time in one.timestamps]
        found.append((one.title, one.voice, one.language, one.mime_type, one.duration.ToMilliseconds(), times, data))
    return sorted(found)


async def tag(author: Author, name: str, **bearer: str) -> None:
    """Puts the tag of this name, which is made if it is not there, on a course, lesson or story."""
    stub: Any = author.person.stub(TagServiceStub, "content")
    found = (await stub.ListTags(ListTagsRequest(query=name, page_size=100))).tags
    known = {one.name: one.id for one in found}
    tag_id = known.get(name) or (await stub.CreateTag(CreateTagRequest(tag=Tag(name=name)))).id
    kind = next(iter(bearer)).removesuffix("_id").title()
    await getattr(stub, f"Tag{kind}")(REQUESTS[kind](tag_id=tag_id, **bearer))


async def tags_of(author: Author, **bearer: str) -> list[str]:
    stub: Any = author.person.stub(TagServiceStub, "content")
    return [one.name for one in (await stub.ListTags(ListTagsRequest(page_size=100, **bearer))).tags]


async def copy(author: Author, course_id: str, title: str = "", **more: Any) -> CopyCourseResponse:
    stub: Any = author.person.stub(CourseCopyServiceStub, "content")
    return await stub.CopyCourse(CopyCourseRequest(course_id=course_id, title=title), **more)


async def copy_to(author: Author, course_id: str, token: str, **more: Any) -> CopyCourseResponse:
    stub: Any = author.person.stub(CourseCopyServiceStub, "content")
    request = CopyCourseToTenantRequest(course_id=course_id, target_access_token=token)
    return await stub.CopyCourseToTenant(request, **more)


async def export(author: Author, course_id: str, **more: Any) -> bytes:
    stub: Any = author.person.stub(PackageServiceStub, "content")
    pieces = [one.file.data async for one in stub.ExportPackage(ExportPackageRequest(course_id=course_id), **more)]
    return b"".join(pieces)


async def bring(
    author: Author, data: bytes, *, dry_run: bool = False, piece: int = 1 << 20, **more: Any
) -> ImportPackageResponse:
    async def requests() -> AsyncIterator[ImportPackageRequest]:
        for start in range(0, len(data), piece):
            file = HttpBody(content_type="application/zip", data=data[start : start + piece])
            yield ImportPackageRequest(dry_run=dry_run and not start, file=file)

    stub: Any = author.person.stub(PackageServiceStub, "content")
    return await stub.ImportPackage(requests(), **more)


async def origin(author: Author, course_id: str) -> CourseOrigin:
    stub: Any = author.person.stub(CourseCopyServiceStub, "content")
    return await stub.GetCourseOrigin(GetCourseOriginRequest(course_id=course_id))


async def told(author: Author, course_id: str) -> dict[str, Any]:
    """All that its author can see of a course, with names in place of ids."""
    course = await author.courses.GetCourse(GetCourseRequest(id=course_id))
    units = (await author.units.ListUnits(units_pb2.ListUnitsRequest(course_id=course_id, page_size=100))).units
    lessons = await author.lessons.ListLessons(lessons_pb2.ListLessonsRequest(course_id=course_id, page_size=100))
    names = {one.id: one.title for one in (*units, *lessons.lessons)}
    words = await terms(author)
    stories: list[Any] = []
    for lesson in lessons.lessons:
        listed = stories_pb2.ListStoriesRequest(lesson_id=lesson.id, page_size=100, order_by="title")
        for story in (await author.stories.ListStories(listed)).stories:
            more = {"tags": await tags_of(author, story_id=story.id), "heard": await heard(author, story_id=story.id)}
            stories.append((lesson.title, story_of(await author.read(story.id), words) | more))
    return {
        "course": (course.title, course.description, course.story_language, course.learning_language),
        "units": [(unit.title, unit.description, unit.position) for unit in units],
        "lessons": [
            (names[one.unit_id], one.title, one.description, sorted(names[id_] for id_ in one.prerequisite_ids))
            for one in lessons.lessons
        ],
        "stories": stories,
        "tags": [await tags_of(author, course_id=course_id)]
        + [await tags_of(author, lesson_id=one.id) for one in lessons.lessons],
        "statuses": {course.status, *(one.status for one in lessons.lessons)},
    }


async def terms(author: Author) -> dict[str, str]:
    """The terms of all words, by their ids."""
    found, token = {}, "first"
    while token:
        request = vocabularies_pb2.ListVocabulariesRequest(page_size=100, page_token=token.removeprefix("first"))
        page = await author.words.ListVocabularies(request)
        found.update({one.id: one.term for one in page.vocabularies})
        token = page.next_page_token
    return found


def story_of(story: stories_pb2.Story, words: dict[str, str]) -> dict[str, Any]:
    """What a story says, with terms in place of the ids of words."""
    version = story_versions_pb2.StoryVersion()
    version.CopyFrom(story.current_version)
    for name in ("pinned_vocabulary_ids", "banned_vocabulary_ids"):
        ids = getattr(version, name)
        ids[:] = sorted(words[one] for one in ids)
    for chunk in version.chunks:
        chunk.vocabulary_id = words.get(chunk.vocabulary_id, "")
    for name in ("id", "story_id", "number", "author_id", "create_time", "content_hash"):
        version.ClearField(name)
    languages = (story.language, story.learning_language)
    return {
        "title": story.title,
        "languages": languages,
        "words": sorted(words[one] for one in story.vocabulary_ids),
        "version": version.SerializeToString(deterministic=True),
    }
