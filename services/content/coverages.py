"""How much of a story a vocabulary covers."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from kit.access import require
from kit.auth import current
from kit.db import Database
from kit.turns import in_turn
from services.content import levels, rules
from services.content.covering import cover, occurrences
from services.content.queries import stories, story_versions, vocabularies
from services.content.rules import decimal_text
from services.content.stories import ids
from services.content.versioning import terms_of
from services.content.weaves import WEAVER, WEAVES, seen_version
from storyloom.content.v1 import coverages_pb2
from storyloom.content.v1.coverages_pb2 import Coverage, GetCoverageRequest

MISSING_WORDS, MOST_MISSING_WORDS = 20, 500


class CoverageService:
    SERVICE = coverages_pb2.DESCRIPTOR.services_by_name["CoverageService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetCoverage(self, request: GetCoverageRequest, context: Any) -> Coverage:
        async with in_turn(WEAVES, current().tenant_id):
            return await self._measure(request)

    async def _measure(self, request: GetCoverageRequest) -> Coverage:
        async with self.db.read() as session:
            story = await stories.get_story(session, UUID(request.story_id))
            require("read", story, resource="story")
            source = await story_versions.get_source(session, story.id, seen_version(story))
            pair = story.language, story.learning_language
            words = await vocabularies.list_words(session, *pair, only=(), shown=())
        listed = _listed(words, request)
        # Off the event loop, where one story at a time is looked through.
        most = min(request.missing_words_size or MISSING_WORDS, MOST_MISSING_WORDS)
        coverage = await WEAVER.do(_coverage, source.text, story.language, words, listed, most)
        coverage.story_id, coverage.version_id = str(story.id), str(source.id)
        return coverage


def _listed(words: Sequence[Any], request: GetCoverageRequest) -> Sequence[Any]:
    """The words of the list; REFERENCE_NOT_FOUND when one that it names is not among the words."""
    wanted = set(ids(request.vocabulary_ids))
    if not wanted <= {one.id for one in words}:
        raise rules.missing("vocabulary")
    known: Collection[str] = levels.up_to(request.max_level) if request.max_level else ()
    return [one for one in words if (not wanted or one.id in wanted) and (not known or one.level in known)]


def _coverage(text: str, language: str, words: Sequence[Any], listed: Sequence[Any], most: int) -> Coverage:
    every = occurrences(text, terms_of(words), language)
    found = every if len(listed) == len(words) else occurrences(text, terms_of(listed), language)
    level_of = {str(one.id): one.level for one in words}
    leveled = Counter(level_of[match.term.id] for match in every.matches)
    covered = cover(found)
    return Coverage(
        running_words=covered.running,
        covered_running_words=covered.covered_running,
        running_share=decimal_text(covered.running_share),
        distinct_words=covered.distinct,
        covered_distinct_words=covered.covered_distinct,
        distinct_share=decimal_text(covered.distinct_share),
        missing_words=(
            coverages_pb2.MissingWord(word=word, occurrences=count) for word, count in covered.missing[:most]
        ),
        level=levels.text_level(leveled),
        levels=(
            coverages_pb2.LevelCoverage(level=level, occurrences=count, cumulative_share=decimal_text(share))
            for level, count, share in levels.shares(leveled)
        ),
    )
