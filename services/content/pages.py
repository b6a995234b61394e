"""Pages of stories, put together of messages that were serialised once, when one was first shown as it is now."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kit.access import may
from kit.db import ReadSession
from services.content.queries import stories
from storyloom.content.v1.stories_pb2 import ListStoriesResponse, Story

# Of less than a kilobyte each.
MOST = 4000
# Field 1 of the response, `stories`: what stands in the wire format before the length of each.
TAG = bytes([ListStoriesResponse.STORIES_FIELD_NUMBER << 3 | 2])
SEVEN_BITS = 0x7F


class Pages:
    """What stories look like in BASIC view, by their id, the versions of their rows, and which version is shown.

    Filling a message takes longer than everything else that a page costs, and nearly all that is shown was shown
    before. PostgreSQL tells by a row's `xmin` that it has changed, whatever changed it.
    """

    def __init__(self, to_proto: Callable[[Any], Story]) -> None:
        self._to_proto = to_proto
        self._known: dict[Sequence[Any], bytes] = {}

    async def fill(self, session: ReadSession, rows: Iterable[Any]) -> ListStoriesResponse:
        """The page of these rows of `list_stories`."""
        states = list(map(_state, rows))
        try:
            parts = [self._known[state] for state in states]
        except KeyError:
            parts = await self._completed(session, states)
        return ListStoriesResponse.FromString(b"".join(parts))

    async def _completed(self, session: ReadSession, states: Sequence[Any]) -> list[bytes]:
        """The parts of all of them, as far as they can be shown."""
        found = {state: part for state in states if (part := self._known.get(state))}
        found |= await self._load(session, [state for state in states if state not in found])
        return [found[state] for state in states if state in found]

    async def _load(self, session: ReadSession, missing: Sequence[Any]) -> dict[Any, bytes]:
        """The parts of those that are not known, without those that are out of the caller's sight since the page was
        looked up."""
        found: dict[Any, bytes] = {}
        asked = {state[0]: state for state in missing}
        for row in await stories.list_by_ids(session, list(asked)):
            state = _state(row)
            if state == asked[row.id] or may("list", row, resource="story"):
                found[asked[row.id]] = part = _part(self._to_proto(row).SerializeToString())
                self._keep(state, part)
        return found

    def _keep(self, state: Sequence[Any], part: bytes) -> None:
        while len(self._known) >= MOST:
            # The one kept first; most have changed since, or are on no page that is read often.
            del self._known[next(iter(self._known))]
        self._known[state] = part


def _state(row: Any) -> tuple[Any, ...]:
    """What the story looks like changes only with this."""
    shows_current = row.published_version_id == row.current_version_id or may("update", row, resource="story")
    return (row.id, row.story_xmin, row.current_xmin, row.published_xmin, shows_current)


def _part(message: bytes) -> bytes:
    """The message as an element of the response's field."""
    length, size = len(message), bytearray()
    while length > SEVEN_BITS:
        size.append(length & SEVEN_BITS | SEVEN_BITS + 1)
        length >>= 7
    return TAG + bytes(size) + bytes([length]) + message
