"""Logs to tamper with: entries, their tree and its checkpoints, exported as the service exports them."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict

from services.audit import merkle, sealing
from services.audit.showing import audit_log_to_proto
from services.audit.signing import Head, Signer
from tools.verify_audit import Changed, Keys, Verifier

BEGAN = datetime(2026, 11, 22, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    """An entry as an export has it: its place, what the tree has for it, its bytes, and the readable form of them."""

    index: int | None
    leaf: bytes | None
    hash: bytes
    entry: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    @classmethod
    def of(cls, index: int | None, leaf: bytes, hash_: bytes | None = None) -> "Line":
        return cls(index, leaf, hash_ or merkle.leaf_hash(leaf), readable(leaf))

    @property
    def text(self) -> bytes:
        shown: dict[str, Any] = {"index": self.index, "hash": base64.b64encode(self.hash).decode()}
        if self.leaf is None:
            return json.dumps({**shown, "id": self.id}).encode()
        return json.dumps({**shown, "leaf": base64.b64encode(self.leaf).decode(), "entry": self.entry}).encode()


@dataclass(frozen=True)
class Export:
    """The file, line by line; `checkpoint` is the export's own."""

    tenant_id: UUID
    lines: Sequence[Line]
    checkpoint: str
    size: int

    def file(self) -> Iterator[bytes]:
        header = {"tenant_id": str(self.tenant_id), "tree_size": self.size, "checkpoint": self.checkpoint}
        yield json.dumps({"export": {**header, "from": None, "to": None}}).encode()
        yield from (line.text for line in self.lines)
        yield json.dumps({"end": {"rows": len(self.lines)}}).encode()

    def with_lines(self, lines: Iterable[Line]) -> "Export":
        """Lines that look as if they had always been these."""
        made = [replace(line, index=index) for index, line in enumerate(lines)]
        return replace(self, lines=made, size=len(made))


def verified(export: Export, key: str, kept: Iterable[str]) -> str:
    """What the verifier finds wrong; '' when nothing is."""
    keys = Keys([key])
    checkpoints = [one for text in kept for one in keys.checkpoints(text, "kept")]
    try:
        Verifier(keys, checkpoints).run(export.file())
    except Changed as error:
        return str(error)
    return ""


def readable(leaf: bytes) -> dict[str, Any]:
    """Without its keys: erased where it was sealed."""
    shown: dict[str, Any] = MessageToDict(audit_log_to_proto(sealing.opened(sealing.parsed(leaf), {}), BEGAN))
    return shown


def make_leaf(random: Random, tenant_id: UUID, number: int) -> bytes:
    """An entry's bytes; the ids are in the order of time."""
    at = BEGAN + timedelta(seconds=number)
    entry_id = UUID(int=int(at.timestamp() * 1000) << 80 | random.getrandbits(76))
    seal = {"sealed": {"subject": str(tenant_id), "key": str(tenant_id), "nonce": "x", "data": f"{number}"}}
    entry = {
        "v": 1,
        "id": str(entry_id),
        "tenant_id": str(tenant_id),
        "action": random.choice(["create", "update", "publish"]),
        "entity_type": "story",
        "entity_id": str(UUID(int=random.getrandbits(128))),
        "user_id": str(UUID(int=random.getrandbits(128))) if random.random() < 0.8 else None,
        "acting_tenant_id": None,
        "service": None,
        "request_id": f"r-{number}",
        "trace_id": None,
        "rpc": "/storyloom.content.v1.StoryService/UpdateStory",
        "occur_time": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "old_values": None if random.random() < 0.3 else {"title": f"chợ {number}", "level": 1, "tags": [True, 2.5]},
        "new_values": {"title": seal, "position": 10**15 + number},
        "client_address": seal if random.random() < 0.5 else None,
    }
    return sealing.canonical(entry)


@dataclass(frozen=True)
class Log:
    """A log as it really was, with the checkpoints that somebody kept: at these sizes, the last one of all of it."""

    tenant_id: UUID
    leaves: Sequence[bytes]
    sizes: Sequence[int]
    signer: Signer

    @classmethod
    def random(cls, random: Random) -> "Log":
        tenant_id, size = UUID(int=random.getrandbits(128)), random.randint(1, 60)
        leaves = [make_leaf(random, tenant_id, number) for number in range(size)]
        sizes = sorted({size, *(random.randint(1, size) for _ in range(random.randint(0, 4)))})
        return cls(tenant_id, leaves, sizes, Signer(random.randbytes(32)))

    @property
    def key(self) -> str:
        return self.signer.verifier_keys(self.tenant_id)[0]

    @property
    def kept(self) -> list[str]:
        return [self.checkpoint(size) for size in self.sizes]

    def checkpoint(self, size: int, leaves: Sequence[bytes] | None = None, signer: Signer | None = None) -> str:
        hashes = [merkle.leaf_hash(leaf) for leaf in (leaves or self.leaves)[:size]]
        nodes = {(0, place): one for place, one in enumerate(hashes)} | dict(merkle.grow(0, [], hashes))
        return (signer or self.signer).sign(Head(self.tenant_id, size, merkle.root(size, nodes)))

    def export(self, size: int | None = None) -> Export:
        """At this size of it, with the last checkpoint until then."""
        whole = len(self.leaves) if size is None else size
        own = max((one for one in self.sizes if one <= whole), default=0)
        lines = [Line.of(index, leaf) for index, leaf in enumerate(self.leaves[:whole])]
        return Export(self.tenant_id, lines, self.checkpoint(own) if own else "", whole)
