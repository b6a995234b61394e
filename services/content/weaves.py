"""Words woven into stories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from kit.access import may, require
from kit.auth import current
from kit.db import Database, ReadSession
from kit.errors import Aborted, StoryloomError, wrong_state
from kit.limiter import Limiter
from kit.models import check_etag, now
from kit.turns import LONGEST_WAIT_SECONDS, Worker, in_turn
from services.content import personalising, rules, versioning
from services.content.enums import PART_OF_SPEECH, WORD_STATUS
from services.content.matching import Found, find
from services.content.models import StoryVersion
from services.content.personalising import State, Status
from services.content.queries import stories, story_versions, vocabularies
from services.content.stories import answer, ids
from services.content.story_versions import add_chunks, make_version, share_to_proto, supersede
from services.content.versioning import Draft, Wish, as_notes
from services.content.weaving import Annotation, Share, Target
from storyloom.content.v1 import weaves_pb2
from storyloom.content.v1.stories_pb2 import Story as StoryMessage
from storyloom.content.v1.weaves_pb2 import FallbackReason, RenderedStory, RenderedWord
from storyloom.learning.v1.vocabulary_progress_pb2 import (
    BatchGetVocabularyProgressRequest,
    BatchGetVocabularyProgressResponse,
    VocabularyStatus,
)

# A weave takes a processor for a while. Readers do not wait for those who weave long stories.
WEAVER, RENDERER = Worker("weave"), Worker("render")
# Whoever waits has no vocabulary in memory yet.
WEAVES, RENDERS = Limiter(2, LONGEST_WAIT_SECONDS), Limiter(2, LONGEST_WAIT_SECONDS)
# How long a reader waits for what learning knows, and of how many words it is asked at most.
PROGRESS_SECONDS = 0.3
MOST_WORDS = 1000
STATUSES: Mapping[int, Status] = {
    VocabularyStatus.VOCABULARY_STATUS_LEARNING: "learning",
    VocabularyStatus.VOCABULARY_STATUS_REVIEWING: "reviewing",
    VocabularyStatus.VOCABULARY_STATUS_MASTERED: "mastered",
}


class WeaveService:
    SERVICE = weaves_pb2.DESCRIPTOR.services_by_name["WeaveService"]

    def __init__(self, db: Database, progress: Any) -> None:
        self.db, self.progress = db, progress

    async def WeaveStory(self, request: weaves_pb2.WeaveStoryRequest, context: Any) -> StoryMessage:
        async with in_turn(WEAVES, current().tenant_id):
            return await self._weave(request)

    async def RenderStory(self, request: weaves_pb2.RenderStoryRequest, context: Any) -> RenderedStory:
        async with in_turn(RENDERS, current().tenant_id):
            return await self._render(request)

    async def _weave(self, request: weaves_pb2.WeaveStoryRequest) -> StoryMessage:
        async with self.db.read() as session:
            row = await stories.get_story(session, UUID(request.id))
            require("weave", row, resource="story")
            rules.check_open("story", row.status)
            source = await story_versions.get_source(session, row.id, row.current_version_id)
            wish = _wish(request, source)
            words = await _words(session, row, request, wish)
        # Outside of any transaction and off the event loop: a long story takes a while.
        with self.db.telemetry.timed("weave"):
            version, draft = await WEAVER.do(_weave, source, row.language, words, wish, current().subject)
        async with self.db.write() as session:
            story = await stories.lock_story(session, row.id)
            require("weave", story)
            check_etag(story, request.etag)
            rules.check_open("story", story.status)
            if story.current_version_id != source.id:
                raise Aborted("The story got another version meanwhile; try again.")
            await supersede(session, "weave", story, source, version, draft)
            return await answer(session, story, full=True)

    async def _render(self, request: weaves_pb2.RenderStoryRequest) -> RenderedStory:
        async with self.db.read() as session:
            story = await stories.get_story(session, UUID(request.id))
            require("read", story, resource="story")
            source = await story_versions.get_source(session, story.id, seen_version(story))
            shares = await story_versions.list_shares(session, source.id)
            words = await _readable_words(session, story, source) if shares else ()
        rendered = RenderedStory(
            story_id=request.id,
            version_id=str(source.id),
            title=source.title,
            variant=request.variant,
            cloze=request.cloze,
        )
        frame = Frame(source, story.language, words, shares)
        with self.db.telemetry.timed("render"):
            rendered.fallback_reason = await self._personal(rendered, frame)
            if rendered.fallback_reason:
                await RENDERER.do(_fill, rendered, source.text, as_notes(source.annotations), shares, {})
        return rendered

    async def _personal(self, rendered: RenderedStory, frame: "Frame") -> Any:
        """Fills the answer with what is for the caller, or tells why it cannot."""
        if not frame.shares:
            return FallbackReason.FALLBACK_REASON_NOT_WOVEN
        found = await RENDERER.do(frame.find)
        known = personalising.most_frequent(found.matches, frame.pins, MOST_WORDS)
        if not known:
            return FallbackReason.FALLBACK_REASON_NO_WORDS
        try:
            request = BatchGetVocabularyProgressRequest(vocabulary_ids=known)
            told = await self.progress.BatchGetVocabularyProgress(request, timeout=PROGRESS_SECONDS)
        except StoryloomError:
            return FallbackReason.FALLBACK_REASON_PROGRESS_UNAVAILABLE
        await RENDERER.do(_fill_personal, rendered, frame, found, states_of(told, now()))
        return FallbackReason.FALLBACK_REASON_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Frame:
    """A woven version and the words that may be woven into it for a reader."""

    source: Any
    language: str
    words: Sequence[Any]
    shares: Sequence[Share]

    @property
    def ratios(self) -> Mapping[str, Decimal]:
        return {share.part_of_speech: share.target for share in self.shares}

    @property
    def pins(self) -> frozenset[str]:
        return frozenset(map(str, self.source.pinned_vocabulary_ids))

    @property
    def bans(self) -> frozenset[str]:
        return frozenset(map(str, self.source.banned_vocabulary_ids))

    def find(self) -> Found:
        return find(
            self.source.text,
            versioning.terms_of(self.words),
            language=self.language,
            ratios=self.ratios,
            scopes=versioning.scopes_of(self.source.text, self.source.paragraphs),
            pins=self.pins,
            bans=self.bans,
        )


def seen_version(story: Any) -> UUID:
    """The current version for those who may update the story, for others the published one."""
    editor = may("update", story, resource="story")
    seen: UUID | None = story.current_version_id if editor else story.published_version_id
    if seen is None:
        raise wrong_state("The story has no version that you may see.", story.status)
    return seen


async def _readable_words(session: ReadSession, story: Any, source: Any) -> Sequence[Any]:
    """The words the story may be woven with for the caller, who may read them or sees them in the version."""
    only = {*story.vocabulary_ids, *source.pinned_vocabulary_ids} if story.vocabulary_ids else set()
    shown = {UUID(note.vocabulary_id) for note in as_notes(source.annotations)}
    return await vocabularies.list_words(session, story.language, story.learning_language, only, shown)


def states_of(told: BatchGetVocabularyProgressResponse, at: datetime) -> dict[str, State]:
    """What learning tells of the caller's words, as it is at that time."""
    return {
        one.vocabulary_id: State(
            STATUSES.get(one.status, "new"), due=one.HasField("due_time") and one.due_time.ToDatetime(UTC) <= at
        )
        for one in told.vocabulary_progress
    }


def _fill_personal(rendered: RenderedStory, frame: Frame, found: Found, states: Mapping[str, State]) -> None:
    seed = f"{frame.source.id}:{rendered.variant}"
    made = personalising.personalise(found, frame.ratios, states, seed=seed, pins=frame.pins, bans=frame.bans)
    rendered.personal, rendered.unknown_share = True, rules.decimal_text(made.unknown)
    _fill(rendered, frame.source.text, made.annotations, made.shares, states)


def _fill(
    rendered: RenderedStory,
    text: str,
    notes: Sequence[Annotation],
    shares: Sequence[Share],
    states: Mapping[str, State],
) -> None:
    add_chunks(rendered, versioning.chunks_of(text, notes, cloze=rendered.cloze))
    rendered.shares.extend(map(share_to_proto, shares))
    words: dict[str, RenderedWord] = {}
    for note in notes:
        word = words.get(note.vocabulary_id)
        if word is None:
            word = words[note.vocabulary_id] = rendered.words.add(vocabulary_id=note.vocabulary_id)
            if rendered.personal:
                state = states.get(note.vocabulary_id, State())
                word.status, word.due = WORD_STATUS.number[state.status], state.due
        word.occurrences += 1
        word.explained |= bool(note.explain) and not rendered.cloze


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


def _weave(source: Any, language: str, words: Sequence[Any], wish: Wish, author_id: UUID) -> tuple[StoryVersion, Draft]:
    """The version after `source`, with words woven in."""
    draft = versioning.woven(source.title, source.text, language, words, wish)
    return make_version(source.story_id, source.number + 1, author_id, draft), draft
