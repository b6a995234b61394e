"""Links to single files that work for a while: those of the bucket, or the gateway's with a sealed token."""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlencode
from uuid import UUID

from kit.errors import InvalidArgument, Unauthenticated
from kit.models import now
from kit.pagination import Sealer
from services.content.storage import Storage

Purpose = Literal["GET", "PUT"]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token lets its holder do with one file, which has or may have `size` bytes."""

    key: str
    size: int
    mime_type: str

    @property
    def tenant(self) -> str:
        return self.key.partition("/")[0]


class Links:
    """Makes links, and opens the tokens of its own. A token is good for one purpose, file and recording."""

    def __init__(self, storage: Storage, secret: bytes) -> None:
        self._storage, self._sealer = storage, Sealer(secret)

    async def make(self, purpose: Purpose, audio_id: UUID, grant: Grant) -> tuple[str, datetime]:
        """A URL, and when it ends. One without host is below the gateway's."""
        ends = now() + self._storage.lifetime
        if self._storage.signs:
            return await self._storage.sign(purpose, grant.key), ends
        says = json.dumps([grant.key, grant.size, grant.mime_type, int(ends.timestamp())]).encode()
        token = self._sealer.seal(says, _binding(purpose, audio_id))
        return f"/v1/audios/{audio_id}/file?{urlencode({'token': token})}", ends

    def opened(self, purpose: Purpose, audio_id: str, token: str) -> Grant:
        """What the token grants; UNAUTHENTICATED unless it was made for this and has not ended."""
        try:
            key, size, mime_type, ends = json.loads(self._sealer.open(token, _binding(purpose, UUID(audio_id))))
        except (InvalidArgument, ValueError) as error:
            raise _refusal() from error
        if ends < time.time():
            raise _refusal()
        return Grant(key, size, mime_type)


def _binding(purpose: Purpose, audio_id: UUID) -> bytes:
    # Page tokens are sealed with the same key, and bound to 32 bytes.
    return f"audio file|{purpose}|{audio_id}".encode()


def _refusal() -> Unauthenticated:
    return Unauthenticated("The link is damaged or has expired; ask for a new one.")
