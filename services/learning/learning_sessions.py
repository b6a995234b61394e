"""The time learners spend in lessons."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import Range

from kit import audit
from kit.access import denied, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.enums import stored_name
from kit.errors import NotFound
from kit.models import check_etag, now
from kit.pagination import Page
from services.learning import rules
from services.learning.models import LearningSession
from services.learning.progress import taken_lessons
from services.learning.projections import LessonIndex
from services.learning.queries import learning_sessions as queries
from services.learning.queries.daily_activity import tally_time
from services.learning.queries.learners import lock_learner
from services.learning.queries.progress import get_standing
from services.learning.rules import Activity, Span
from storyloom.content.v1.stories_pb2 import GetStoryRequest
from storyloom.content.v1.story_versions_pb2 import View
from storyloom.learning.v1 import learning_sessions_pb2
from storyloom.learning.v1.learning_sessions_pb2 import LearningSession as SessionMessage
from storyloom.learning.v1.learning_sessions_pb2 import LearningSessionState


class LearningSessionService:
    SERVICE = learning_sessions_pb2.DESCRIPTOR.services_by_name["LearningSessionService"]

    def __init__(self, db: Database, index: LessonIndex, *, stories: Any) -> None:
        self.db, self._index, self._stories = db, index, stories

    async def CreateLearningSession(
        self, request: learning_sessions_pb2.CreateLearningSessionRequest, context: Any
    ) -> SessionMessage:
        opened = _opened(request.learning_session)
        await self._check_story(opened)
        await self._index.ensure(opened.lesson_id)
        async with self.db.write() as session:
            opened.change = await lock_learner(session, opened.user_id)
            standing = await get_standing(session, opened.user_id, opened.lesson_id)
            require("create", opened, known=taken_lessons(standing))
            rules.check_open(published=standing.published, enrolled=standing.enrolled)
            await _end_earlier(session, opened)
            audit.record(session, Action.CREATE, opened)
            await queries.insert_session(session, opened)
        return session_to_proto(opened, opened.start_time)

    async def GetLearningSession(
        self, request: learning_sessions_pb2.GetLearningSessionRequest, context: Any
    ) -> SessionMessage:
        async with self.db.read() as session:
            row = await queries.get_session(session, UUID(request.id))
        require("read", row, resource="learning_session")
        return session_to_proto(row, now())

    async def ListLearningSessions(
        self, request: learning_sessions_pb2.ListLearningSessionsRequest, context: Any
    ) -> learning_sessions_pb2.ListLearningSessionsResponse:
        page, at = Page.of(request), now()
        async with self.db.read() as session:
            rows = await queries.list_sessions(
                session,
                page,
                lesson_id=request.lesson_id,
                user_id=request.user_id,
                state=stored_name(LearningSessionState, request.state),
                at=at,
            )
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return learning_sessions_pb2.ListLearningSessionsResponse(
            learning_sessions=[session_to_proto(row, at) for row in rows], next_page_token=token
        )

    async def HeartbeatLearningSession(
        self, request: learning_sessions_pb2.HeartbeatLearningSessionRequest, context: Any
    ) -> SessionMessage:
        at = now()
        async with self.db.write() as session:
            running = await _get_own(session, request.id)
            rules.check_running(rules.state_at(running.state, running.last_seen_time, at))
            await accrue(session, running, at, request.interactions)
        return session_to_proto(running, at)

    async def EndLearningSession(
        self, request: learning_sessions_pb2.EndLearningSessionRequest, context: Any
    ) -> SessionMessage:
        at = now()
        async with self.db.write() as session:
            running = await _get_own(session, request.id)
            if running.state != "ended":
                check_etag(running, request.etag)
                rules.check_running(rules.state_at(running.state, running.last_seen_time, at))
                await _end(session, running, at)
        return session_to_proto(running, at)

    async def _check_story(self, opened: LearningSession) -> None:
        if opened.story_id is None:
            return
        request = GetStoryRequest(id=str(opened.story_id), view=View.BASIC)
        story = await self._stories.GetStory(request)
        if story.lesson_id != str(opened.lesson_id):
            raise NotFound("story")


def _opened(wanted: SessionMessage) -> LearningSession:
    at = now()
    return LearningSession(
        user_id=current().subject,
        lesson_id=UUID(wanted.lesson_id),
        story_id=UUID(wanted.story_id) if wanted.story_id else None,
        start_time=at,
        last_seen_time=at,
    )


async def _get_own(session: WriteSession, session_id: str) -> LearningSession:
    """The session to change, locked. Whatever their rights, nobody lives through another's session."""
    change = await lock_learner(session, current().subject)
    found = await queries.get_session_to_change(session, UUID(session_id))
    require("update", found)
    if found.user_id != current().subject:
        raise denied("learning_session", "update")
    if found.state == "open":
        found.change = change
    return found


async def _end_earlier(session: WriteSession, opened: LearningSession) -> None:
    earlier = await queries.find_open_session(session, opened.user_id)
    if earlier is not None:
        earlier.change = opened.change
        # It is written before the new one is added: only one may be open, at every moment.
        await _end(session, earlier, opened.start_time)


async def _end(session: WriteSession, running: LearningSession, at: datetime) -> None:
    """Ends a session that is stored as open; one that was left alone ended when it was last heard of."""
    spans = []
    if rules.state_at(running.state, running.last_seen_time, at) == "abandoned":
        running.state = "abandoned"
    else:
        spans = [_accrued(running, at)]
        running.state = "ended"
    running.end_time = running.last_seen_time
    audit.record(session, "end", running)
    await session.flush()
    await tally_time(session, running.user_id, spans)


async def accrue(session: WriteSession, running: LearningSession, at: datetime, interactions: int = 0) -> None:
    """Writes a sign of life down, and what it adds to the day of the learner, who must be locked."""
    span = _accrued(running, at, interactions)
    await session.flush()
    await tally_time(session, running.user_id, [span])


def _accrued(running: LearningSession, at: datetime, interactions: int = 0) -> Span:
    """Changes the session by a sign of life; answers with the time that this is about."""
    before = running.last_seen_time
    account = Activity(running.active_duration, before, running.interactions).accrue(at, interactions)
    times = running.active_times
    if times is None:
        times = [Range(running.start_time, running.start_time + running.active_duration)]
    spans = [(one.lower, one.upper) for one in times if one.lower and one.upper]
    spans += rules.active_times((before, account.last_seen))
    running.active_times = [Range(*one) for one in rules.joined(spans)]
    running.active_duration, running.last_seen_time = account.active, account.last_seen
    running.interactions = account.interactions
    return before, account.last_seen


def session_to_proto(row: Any, at: datetime) -> SessionMessage:
    """The session as it is at the time given: one that is stored as open may be abandoned by then."""
    state = rules.state_at(row.state, row.last_seen_time, at)
    message = SessionMessage(
        id=str(row.id),
        user_id=str(row.user_id),
        lesson_id=str(row.lesson_id),
        story_id=str(row.story_id or ""),
        interactions=row.interactions,
        state=f"LEARNING_SESSION_STATE_{state.upper()}",
        etag=str(row.revision),
        client_session_id=str(row.client_session_id or ""),
    )
    message.start_time.FromDatetime(row.start_time)
    message.last_seen_time.FromDatetime(row.last_seen_time)
    message.active_duration.FromTimedelta(row.active_duration)
    if state != "open":
        message.end_time.FromDatetime(row.end_time or row.last_seen_time)
    return message
