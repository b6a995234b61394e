"""Words woven into stories."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID

from kit.access import require
from kit.auth import current
from kit.db import Database, ReadSession
from kit.errors import Aborted
from kit.models import check_etag
from services.content import rules, versioning
from services.content.enums import PART_OF_SPEECH
from services.content.models import StoryVersion
from services.content.queries import stories, story_versions, vocabularies
from services.content.stories import answer, ids, supersede
from services.content.story_versions import make_version
from services.content.versioning import Draft, Wish
from services.content.weaving import Target
from storyloom.content.v1 import weaves_pb2
from storyloom.content.v1.stories_pb2 import Story as StoryMessage

# One at a time: a weave takes a processor for a while, and one that its caller gives up goes on to its end.
WEAVER = ThreadPoolExecutor(1, thread_name_prefix="weave")


class WeaveService:
    SERVICE = weaves_pb2.DESCRIPTOR.services_by_name["WeaveService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def WeaveStory(self, request: weaves_pb2.WeaveStoryRequest, context: Any) -> StoryMessage:
        async with self.db.read() as session:
            row = await stories.get_story(session, UUID(request.id))
            require("weave", row, resource="story")
            rules.check_open("story", row.status)
            source = await story_versions.get_source(session, row.id, row.current_version_id)
            wish = _wish(request, source)
            words = await _words(session, row, request, wish)
        # Outside of any transaction and off the event loop: a long story takes a while.
        loop = asyncio.get_running_loop()
        version, draft = await loop.run_in_executor(WEAVER, _weave, source, words, wish, current().subject)
        async with self.db.write() as session:
            story = await stories.lock_story(session, row.id)
            require("weave", story)
            check_etag(story, request.etag)
            rules.check_open("story", story.status)
            if story.current_version_id != source.id:
                raise Aborted("The story got another version meanwhile; try again.")
            await supersede(session, "weave", story, source, version, draft)
            return await answer(session, story, full=True)


def _wish(request: weaves_pb2.WeaveStoryRequest, source: Any) -> Wish:
    """What the request asks for, on top of the pins and bans of the version that it starts from."""
    pinned, banned = rules.merge_pins(
        set(source.pinned_vocabulary_ids),
        set(source.banned_vocabulary_ids),
        set(ids(request.pinned_vocabulary_ids)),
        set(ids(request.banned_vocabulary_ids)),
        replace=request.replace_pins,
    )
    return Wish(
        targets=[Target(PART_OF_SPEECH.word[one.part_of_speech], Decimal(one.ratio)) for one in request.targets],
        seed=request.seed if request.HasField("seed") else None,
        paragraphs=request.paragraphs,
        pinned=pinned,
        banned=banned,
    )


async def _words(session: ReadSession, story: Any, request: weaves_pb2.WeaveStoryRequest, wish: Wish) -> Sequence[Any]:
    """The words the story may be woven with; REFERENCE_NOT_FOUND when one that the request names is not among its
    languages' words."""
    named = set(ids(request.pinned_vocabulary_ids)) | set(ids(request.banned_vocabulary_ids))
    only = {*story.vocabulary_ids, *wish.pinned, *named} if story.vocabulary_ids else set()
    words = await vocabularies.list_words(session, story.language, story.learning_language, only)
    if not named <= {one.id for one in words}:
        raise rules.missing("vocabulary")
    return words


def _weave(source: Any, words: Sequence[Any], wish: Wish, author_id: UUID) -> tuple[StoryVersion, Draft]:
    """The version after `source`, with words woven in."""
    draft = versioning.woven(source.title, source.text, words, wish)
    return make_version(source.story_id, source.number + 1, author_id, draft), draft
