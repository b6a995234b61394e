"""Verifies an export of an audit log against checkpoints that were kept elsewhere: `verify_audit.py --help`.

One file that needs Python 3.11 and `cryptography`, nothing of the platform: read it, copy it, run it anywhere.
"""

import argparse
import base64
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFIED, CHANGED, UNVERIFIABLE = 0, 1, 2
EPILOG = """\
Exit codes: 0 all entries are what was signed; 1 they are not: the first bad one is named; 2 it can't be told, because
a file can't be read, the key is none, or no checkpoint covers the export.
Get the key and keep checkpoints where you trust: the export's own shows only what the service signed in the end.
"""
ORIGIN, ED25519 = "storyloom/audit/", 1
DECODER = json.JSONDecoder()
CHECKPOINT = re.compile(
    r"^(?P<text>(?P<origin>\S+)\n(?P<size>0|[1-9][0-9]*)\n(?P<root>[A-Za-z0-9+/]{43}=)\n)\n"
    r"(?P<signatures>(?:\u2014 \S+ \S+\n)+)",
    re.MULTILINE,
)
# What the readable entry repeats of the leaf, under the names of the API's JSON.
NAMES = ("id", "action", "service", "rpc", "entity_type", "entity_id", "user_id", "acting_tenant_id", "request_id")
SHOWN = {
    name: re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
    for name in (*NAMES, "trace_id", "client_address", "old_values", "new_values")
}


class Unverifiable(Exception):
    """Nothing can be said, and why."""


class Changed(Exception):
    """Something is not what was signed: the first bad entry, and what is wrong with it."""


def bad(index: int | None, entry_id: str, what: str) -> Changed:
    where = "the log" if index is None else f"entry {index}" + (f" ({entry_id})" if entry_id else "")
    return Changed(f"{where}: {what}")


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


class Tree:
    """A Merkle tree of RFC 6962 that keeps only its right edge: the hashes of the complete subtrees it consists of."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []

    def add(self, found: bytes) -> None:
        place, edge = self.size, self._edge
        while place & 1:
            found = node_hash(edge.pop(), found)
            place >>= 1
        edge.append(found)
        self.size += 1

    @property
    def root(self) -> bytes:
        *rest, found = self._edge
        for left in reversed(rest):
            found = node_hash(left, found)
        return found


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof leads from the leaf's hash to the root (RFC 9162, section 2.1.3.2)."""
    place, last, found = index, size - 1, leaf
    for one in proof:
        if place & 1 or place == last:
            found = node_hash(one, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, one)
        place, last = place >> 1, last >> 1
    return 0 <= index < size and last == 0 and found == root


class Checkpoint(NamedTuple):
    """A signed root; `source` says where it is from."""
    size: int
    root: bytes
    source: str


class Keys:
    """Public keys of one log, as C2SP signed-note writes them: name+key id+key."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._keys: dict[bytes, Ed25519PublicKey] = {}
        self.origin = ""
        for text in texts:
            try:
                name, key_id, encoded = text.split("+", 2)
                octets = base64.b64decode(encoded, validate=True)
                if octets[0] != ED25519 or sha256(f"{name}\n".encode() + octets).digest()[:4].hex() != key_id:
                    raise ValueError
                self._keys[bytes.fromhex(key_id)] = Ed25519PublicKey.from_public_bytes(octets[1:])
            except (ValueError, IndexError):
                raise Unverifiable(f"this is no public key: {text[:100]!r}") from None
            if self.origin not in {"", name}:
                raise Unverifiable(f"the keys are of two logs: {self.origin} and {name}")
            self.origin = name
        if not self._keys:
            raise Unverifiable("no key is given")

    def checkpoints(self, text: str, source: str) -> Iterator[Checkpoint]:
        """Those of this log in the text, which may hold others. Raises Changed for one that no key of these signed."""
        for found in CHECKPOINT.finditer(text):
            if found["origin"] == self.origin:
                if not any(self._signed(found["text"], line) for line in found["signatures"].splitlines()):
                    raise Changed(f"the checkpoint of size {found['size']} ({source}) is not signed by the key given")
                yield Checkpoint(int(found["size"]), base64.b64decode(found["root"]), source)

    def _signed(self, text: str, line: str) -> bool:
        _, name, signature = line.split(" ", 2)
        try:
            octets = base64.b64decode(signature)
            self._keys[octets[:4]].verify(octets[4:], text.encode())
        except (KeyError, ValueError, InvalidSignature):
            return False
        return name == self.origin


class Verifier:
    """Goes through an export once. Entries are compared one by one, roots at the size of each checkpoint."""

    def __init__(self, keys: Keys, kept: Sequence[Checkpoint], *, older: bool = False) -> None:
        self.keys, self.kept, self.older = keys, kept, older
        self.tree = Tree()
        self.own: Checkpoint | None = None
        self.roots: dict[int, dict[bytes, str]] = {}
        self.seen: set[str] = set()
        # The number of the first entry after the last root that was right, and its id.
        self.right = 0, ""
        self.matched: list[int] = []
        self.wrong: Changed | None = None
        self.early: dict[int, tuple[str, bytes]] = {}
        self.alone = self.gone = 0
        self.oldest, self.last_gone = sys.maxsize, (0, 0, "")

    def run(self, lines: Iterable[bytes]) -> list[str]:
        """Raises Changed with the first bad entry; returns what was found to be right."""
        numbered = enumerate(lines, 1)
        header = read(next(numbered, (1, b"{}"))[1], 1).get("export")
        if not isinstance(header, dict):
            raise Unverifiable("the first line is not the beginning of an export")
        try:
            self._begin(header)
            return self._finish(*self._read_all(numbered))
        except Changed as error:
            # What a root showed to be wrong comes before whatever is found after it.
            raise self.wrong or error from None

    def _read_all(self, numbered: Iterable[tuple[int, bytes]]) -> tuple[int, dict[str, Any] | None]:
        end, rows = None, 0
        for number, line in numbered:
            if end is not None:
                raise Changed(f"line {number} comes after the end of the export")
            one = read(line, number)
            if "end" in one:
                end = one["end"]
            else:
                rows += 1
                self._entry(one, number)
        return rows, end

    def _begin(self, header: dict[str, Any]) -> None:
        self.tenant, self.size = header["tenant_id"], header["tree_size"]
        if ORIGIN + self.tenant != self.keys.origin:
            raise Changed(f"the export is of tenant {self.tenant}, and the key of {self.keys.origin}")
        checkpoints = list(self.keys.checkpoints(header["checkpoint"] or "", "the export's own"))
        self.own = next(iter(checkpoints), None)
        if header["checkpoint"] and self.own is None:
            raise Changed("the export's own checkpoint is none of this log")
        for one in (*self.kept, *checkpoints):
            self.roots.setdefault(one.size, {})[one.root] = one.source
        for size, roots in sorted(self.roots.items()):
            if len(roots) > 1:
                raise Changed(f"two histories were signed: {' and '.join(roots.values())} differ at size {size}")
        self.partial = bool(header.get("from") or header.get("to") or header.get("filters"))

    def _entry(self, one: dict[str, Any], number: int) -> None:
        index: Any = one.get("index")
        if "leaf" not in one and "hash" in one:
            self._add_gone(index, str(one.get("id", "")), octets(one, "hash", number))
            return
        leaf = octets(one, "leaf", number)
        content, found = read(leaf, number), sha256(b"\0" + leaf).digest()
        entry_id = str(content["id"])
        if entry_id in self.seen:
            raise bad(index, entry_id, "inserted: it is there twice")
        self.seen.add(entry_id)
        if content.get("tenant_id") != self.tenant:
            raise bad(index, entry_id, "edited: it is another tenant's")
        if differs := difference(content, one.get("entry")):
            raise bad(index, entry_id, f"edited: {differs} is not what the entry's leaf says")
        if "hash" in one and octets(one, "hash", number) != found:
            raise bad(index, entry_id, "edited: the tree has another hash for it")
        if index is None:
            raise bad(None, "", f"inserted: {entry_id} is in no tree")
        if "proof" in one:
            self._prove(index, entry_id, found, one["proof"])
        elif self.partial:
            raise Unverifiable("the export is of some entries only, and has no proofs: export all of them")
        else:
            self.oldest = min(self.oldest, moment(entry_id))
            self._add(index, entry_id, found)

    def _add_gone(self, index: int, entry_id: str, found: bytes) -> None:
        """An entry of which only the hash is left: months are dropped as a whole."""
        self.gone += 1
        self.last_gone = max(self.last_gone, (moment(entry_id) or sys.maxsize, index, entry_id))
        self._add(index, entry_id, found)

    def _prove(self, index: int, entry_id: str, found: bytes, proof: Iterable[str]) -> None:
        path, own = [base64.b64decode(one) for one in proof], self.own
        if own is None or not includes(found, index, own.size, path, own.root):
            raise bad(index, entry_id, "edited: its proof does not lead to the export's checkpoint")
        self.alone += 1

    def _add(self, index: int, entry_id: str, found: bytes) -> None:
        """Exports need not be in the order of the tree: what comes early waits for what is before it."""
        if index < self.tree.size or index in self.early:
            raise bad(index, entry_id, "swapped or inserted: there are two of this number")
        self.early[index] = entry_id, found
        while (size := self.tree.size) in self.early:
            entry_id, found = self.early.pop(size)
            if size == self.right[0]:
                self.right = size, entry_id
            self.tree.add(found)
            if size + 1 in self.roots:
                self._compare_root(size + 1)

    def _compare_root(self, size: int) -> None:
        if self.tree.root in self.roots[size]:
            self.matched.append(size)
            self.right = self.right if self.wrong else (size, "")
        elif self.wrong is None:
            (source,) = self.roots[size].values()
            what = f"it{self._up_to(size - 1)} was edited, inserted, removed or swapped"
            self.wrong = bad(*self.right, f"{what}: the checkpoint of size {size} ({source}) has another root")

    def _up_to(self, last: int) -> str:
        return f" or one of those up to {last}" if last > self.right[0] else ""

    def _finish(self, rows: int, end: dict[str, Any] | None) -> list[str]:
        self._look_for_what_is_gone(rows, end)
        if self.partial:
            return [f"{self.alone} entries are in the log as it was signed; others may match the filters too"]
        if not self.matched:
            raise Unverifiable("no checkpoint covers the export")
        said = [f"{self.matched[-1]} entries are what was signed; {len(self.matched)} checkpoints agree"]
        if unproven := self.tree.size - self.matched[-1]:
            said.append(f"{unproven} entries after the last checkpoint are not proven yet")
        if self.gone:
            said.append(f"of {self.gone} entries of months that were dropped only the hashes are left")
        if end is None:
            said.append("the export does not say that it is complete: what is missing at its end is not proven yet")
        return said

    def _look_for_what_is_gone(self, rows: int, end: dict[str, Any] | None) -> None:
        size, (made, index, entry_id) = self.tree.size, self.last_gone
        if self.wrong is not None:
            fits = self.own is not None and self.own.size in self.matched
            self.wrong = Changed(f"{self.wrong}{'; history was rewritten and signed anew' if fits else ''}")
            raise self.wrong
        if self.early:
            raise bad(size, "", f"it is missing, but entry {min(self.early)} is there")
        if self.gone and self.seen and made >= month_of(self.oldest):
            raise bad(index, entry_id, "removed: only its hash is there, and all of others of its month")
        if end is not None and end.get("rows", rows) != rows:
            raise Changed(f"the export says that it has {end['rows']} entries, and it has {rows}")
        whole = max(self.size, 0 if self.older else max(self.roots, default=0))
        if size < whole and not self.partial:
            raise bad(*self.right, f"it{self._up_to(size)} is missing: removed, truncated or rolled back from {whole}")


def difference(leaf: dict[str, Any], entry: Any) -> str:
    """The name of the first part of the readable entry that is not what the leaf says; '' when there is none."""
    if not isinstance(entry, dict):
        return "the readable entry"
    # The API leaves out the zeros at the end of the second's fraction.
    if str(leaf.get("occur_time")).rstrip(".0Z") != str(entry.get("occurTime")).rstrip(".0Z"):
        return "occur_time"
    for name, shown in SHOWN.items():
        stored, told = leaf.get(name), entry.get(shown)
        # Most of them are texts.
        if (stored != told or isinstance(told, dict)) and not shows(stored, told):
            return name
    return ""


def shows(stored: Any, shown: Any) -> bool:
    """Whether a value is shown as it is stored. What is sealed can be opened, or erased: only its seal is proven."""
    if stored is shown or isinstance(stored, str):
        return bool(stored == shown)
    match stored:
        case {"sealed": _} if len(stored) == 1:
            return True
        case dict():
            alike = isinstance(shown, dict) and stored.keys() == shown.keys()
            return alike and all(shows(value, shown[name]) for name, value in stored.items())
        case list():
            alike = isinstance(shown, list) and len(stored) == len(shown)
            return alike and all(map(shows, stored, shown))
        case int() if not isinstance(stored, bool):
            # The API's numbers are doubles, and text what is beyond them.
            return not isinstance(shown, bool) and shown in (stored, float(str(stored)), str(stored))
    return isinstance(stored, float) and bool(stored == shown)


def moment(entry_id: str) -> int:
    """When the id, a UUIDv7, was made: milliseconds since 1970."""
    return int(entry_id.replace("-", "")[:12] or "0", 16)


def month_of(milliseconds: int) -> int:
    at = datetime.fromtimestamp(milliseconds / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(at.timestamp() * 1000)


def read(line: bytes, number: int) -> dict[str, Any]:
    try:
        found = DECODER.decode(line.decode())
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    raise Changed(f"line {number} can't be read: it is no JSON object")


def octets(one: dict[str, Any], name: str, number: int) -> bytes:
    try:
        return base64.b64decode(one[name], validate=True)
    except (KeyError, TypeError, ValueError):
        raise Changed(f"line {number} can't be read: it has no {name}") from None


def key_texts(given: Sequence[str]) -> Iterator[str]:
    """Each is a key, or a file with one in each line."""
    for one in given:
        yield from (one if one.startswith(ORIGIN) else Path(one).read_text()).split()


def kept_checkpoints(keys: Keys, given: Sequence[Path]) -> list[Checkpoint]:
    files = [file for one in given for file in (sorted(one.glob("*.txt")) if one.is_dir() else [one])]
    found = [checkpoint for file in files for checkpoint in keys.checkpoints(file.read_text(), file.name)]
    if given and not found:
        raise Unverifiable(f"no checkpoint of {keys.origin} was kept there")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description="Verifies an audit log.", epilog=EPILOG, formatter_class=form)
    add = parser.add_argument
    add("export", type=Path, help="the exported file, JSON lines")
    add("--key", action="append", required=True, help="public key of the log, or a file of such")
    add("--checkpoints", action="append", type=Path, default=[], help="file or directory of checkpoints that were kept")
    add("--older", action="store_true", help="the export was made before some of the checkpoints")
    given = parser.parse_args(arguments)
    try:
        keys = Keys(key_texts(given.key))
        verifier = Verifier(keys, kept_checkpoints(keys, given.checkpoints), older=given.older)
        with given.export.open("rb") as file:
            said = verifier.run(file)
    except Changed as error:
        print(f"NOT VERIFIED: {error}")
        return CHANGED
    except (Unverifiable, OSError, UnicodeDecodeError) as error:
        print(f"can't be verified: {error}", file=sys.stderr)
        return UNVERIFIABLE
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        print(f"NOT VERIFIED: the export is not formed as exports are: {error!r}")
        return CHANGED
    if not given.checkpoints:
        said.append("no checkpoint was kept elsewhere: an older or rewritten log would look the same")
    print("verified: " + "\n          ".join(said))
    return VERIFIED


if __name__ == "__main__":
    sys.exit(main())
