"""What an archive says of itself, in its first member."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import IO, Any
from uuid import UUID

from deploy.local.errors import RunError

NAME = "manifest.json"
FORMAT = 1
LONGEST = 1 << 20
# How the keys of what the log says of people are in the archive: as they are, or wrapped with the installation's key.
OPEN, WRAPPED = "open", "wrapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`rows` are counts by table, in the order of the members; `verifier_keys` the public keys of the checkpoints."""

    tenant_id: UUID
    slug: str
    snapshot_time: datetime
    revisions: dict[str, str]
    keys: str
    verifier_keys: list[str]
    rows: dict[str, int]
    files: int
    left_out: dict[str, str] = field(default_factory=dict)

    def text(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, default=_text, indent=1).encode()

    @classmethod
    def read(cls, data: IO[bytes]) -> "Manifest":
        """Of the member; RunError when that is not a manifest of this format."""
        try:
            found: dict[str, Any] = json.loads(data.read(LONGEST))
            if (version := found.pop("format")) != FORMAT:
                raise RunError(f"The archive has format {version!r}; this program knows format {FORMAT}.")
            found["tenant_id"] = UUID(found["tenant_id"])
            found["snapshot_time"] = datetime.fromisoformat(found["snapshot_time"])
            return cls(**found)._checked()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise RunError("The archive's manifest says nothing that could be understood.") from None

    def _checked(self) -> "Manifest":
        mappings = (self.revisions, self.rows, self.left_out)
        numbers = (*self.rows.values(), self.files)
        texts = (self.slug, *self.revisions, *self.revisions.values(), *self.rows, *self.verifier_keys)
        if not (
            all(isinstance(one, dict) for one in mappings)
            and all(type(one) is int and one >= 0 for one in numbers)
            and all(isinstance(one, str) for one in texts)
            and self.keys in {OPEN, WRAPPED}
            and self.snapshot_time.tzinfo is not None
        ):
            raise ValueError
        return self


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
