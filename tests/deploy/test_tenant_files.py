"""Files that are no archive, or not of anybody who is known: refused before anything of them is used."""

import base64
import gzip
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.errors import RunError
from deploy.tenants.archive import SIGNATURE, SUMS, Reader, opened
from deploy.tenants.origin import as_text, signature
from kit.signing import Keyring, public_keys
from services.audit.signing import DASH, ID_BYTES, Head, Signer
from tests.deploy.leaving import forged, members

Parts = dict[str, bytes]
SECRET = os.urandom(32)
MINE, THEIRS = Keyring(SECRET), Keyring(os.urandom(32))
PARTS = {"manifest.json": b"{}", "content/courses.csv": b"id\n" * 5000, "files/audio/1": os.urandom(5000)}
PAGE = Path("docs/tenant-archives.md")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return forged(tmp_path / "willow.tar.gz", PARTS, MINE)


def refuses(path: Path, why: str, keys: Keyring = MINE) -> str:
    with pytest.raises(RunError, match=why) as told, opened(path, None, keys):
        pass
    return str(told.value)


def member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def packed(parts: Parts) -> bytes:
    return gzip.compress(b"".join(member(*one) for one in parts.items()) + bytes(2 * tarfile.BLOCKSIZE))


def told(key: bytes, signed: bytes) -> Callable[[Parts], Parts]:
    """What has the last line tell this key and this signature."""
    return lambda parts: parts | {SIGNATURE: f"{as_text(key)} {as_text(signed)}\n".encode()}


def moved(name: str, *, before: str, data: bytes = b"") -> Callable[[Parts], Parts]:
    """What puts a member before another."""

    def move(parts: Parts) -> Parts:
        items = [one for one in parts.items() if one[0] != name]
        places = [one[0] for one in items]
        at = places.index(before) if before else len(items)
        return dict([*items[:at], (name, parts.get(name, data)), *items[at:]])

    return move


def without(name: str) -> Callable[[Parts], Parts]:
    return lambda parts: {one: data for one, data in parts.items() if one != name}


def by_a_checkpoint(parts: Parts) -> Parts:
    """The signature of a checkpoint whose root is the digest of the digests."""
    note = Signer(SECRET).sign(Head(uuid4(), 1, sha256(parts[SUMS]).digest()))
    return told(MINE.public[0], base64.b64decode(note.split()[-1])[ID_BYTES:])(parts)


CHANGED = "was changed: its signature"
ATTACKS: dict[str, tuple[Callable[[Parts], Parts], str]] = {
    "nothing that signs it": (without(SIGNATURE), f"not signed: {SIGNATURE} should come"),
    "no digests": (without(SUMS), "digests are not those"),
    "the signature of another": (told(MINE.public[0], MINE.sign("storyloom tenant archive v1", b"other")), CHANGED),
    "the signature of a checkpoint": (by_a_checkpoint, CHANGED),
    "a stranger's signature as its own": (
        lambda parts: told(MINE.public[0], base64.urlsafe_b64decode(line_of(parts, THEIRS).split()[1]))(parts),
        CHANGED,
    ),
    "a line that is none": (lambda parts: parts | {SIGNATURE: b"\xff" * 300}, CHANGED),
    "a line too many": (lambda parts: parts | {SIGNATURE: parts[SIGNATURE] * 2}, CHANGED),
    "a key that is none": (told(b"key", bytes(64)), CHANGED),
    "another row": (lambda parts: parts | {"content/courses.csv": b"id\n"}, "digests are not those"),
    "digests that fit another row": (
        lambda parts: digested(parts | {"content/courses.csv": b"id\n"}),
        CHANGED,
    ),
    "a member that no digest names": (moved("more.csv", before=SUMS), "digests are not those"),
    "a member between digests and signature": (moved("more.csv", before=SIGNATURE), "is not signed"),
    "a member behind the signature": (moved("more.csv", before=""), "more behind its end"),
}


def line_of(parts: Parts, keys: Keyring) -> str:
    return signature(keys, sha256(parts[SUMS]).hexdigest())


def digested(parts: Parts) -> Parts:
    """With the digests that its members have now."""
    rest = without(SUMS)(without(SIGNATURE)(parts))
    sums = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in rest.items())
    return parts | {SUMS: sums.encode()}


class TestSignatures:
    def test_of_this_installation_and_of_those_it_trusts_are_good(self, whole: Path) -> None:
        for keys in (MINE, Keyring(os.urandom(32), MINE.public)):
            with opened(whole, None, keys) as reader:
                for name, wanted in PARTS.items():
                    with reader.member(name) as data:
                        assert data.read() == wanted
                reader.end()

    def test_of_others_are_refused_and_it_is_told_what_to_add(self, whole: Path) -> None:
        text = refuses(whole, "signed with a key that this installation does not know", THEIRS)
        assert "add to AUDIT_EARLIER_KEYS" in text
        (known,) = re.findall(r"\[.*\]", text)
        with opened(whole, None, Keyring(os.urandom(32), public_keys("AUDIT_EARLIER_KEYS", known))):
            pass

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_that_are_not_of_what_is_in_it_are_refused(self, whole: Path, attack: str) -> None:
        edit, why = ATTACKS[attack]
        whole.write_bytes(packed(edit(members(whole))))
        refuses(whole, why)

    def test_are_no_checkpoints(self, whole: Path) -> None:
        signer, head = Signer(SECRET), Head(uuid4(), 1, sha256(members(whole)[SUMS]).digest())
        mark, name, octets = signer.sign(head).splitlines()[-1].split()
        ours = base64.urlsafe_b64decode(members(whole)[SIGNATURE].split()[1])
        forgery = base64.b64encode(base64.b64decode(octets)[:ID_BYTES] + ours).decode()
        assert (mark, signer.opened(f"{head.text}\n{mark} {name} {octets}\n")) == (DASH, head)
        with pytest.raises(ValueError, match="not signed"):
            signer.opened(f"{head.text}\n{mark} {name} {forgery}\n")

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="takes openssl")
    def test_are_verified_by_hand_as_the_page_says(self, whole: Path, tmp_path: Path) -> None:
        for name, data in members(whole).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        (block,) = (one for one in PAGE.read_text().split("```") if "openssl" in one)
        typed = "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))

        def verified() -> tuple[int, str]:
            done = subprocess.run(["bash", "-c", typed], check=False, cwd=tmp_path, capture_output=True, text=True)
            return done.returncode, done.stdout.splitlines()[-1]

        assert verified() == (0, block.strip().splitlines()[-1])
        (tmp_path / SUMS).write_text("another")
        assert verified() == (1, "Signature Verification Failure")


class TestFiles:
    def test_that_are_changed_once_they_were_looked_at_are_refused(self, whole: Path, tmp_path: Path) -> None:
        other = forged(tmp_path / "other", PARTS | {"content/courses.csv": b"id\n"}, THEIRS).read_bytes()
        with opened(whole, None, MINE) as reader:
            whole.write_bytes(other)
            with pytest.raises(RunError, match="changed"):
                for name in PARTS:
                    with reader.member(name):
                        pass
                reader.end()

    def test_whose_rows_are_changed_meanwhile_are_refused_before_a_recording_is_taken(
        self, whole: Path, tmp_path: Path
    ) -> None:
        rows, (files,) = list(PARTS)[:2], list(PARTS)[2:]
        other = forged(tmp_path / "other", PARTS | {"content/courses.csv": b"id\n"}, MINE)
        for path, refused in ((whole, nullcontext()), (other, pytest.raises(RunError, match="its rows are others"))):
            with opened(whole, None, MINE) as first:
                data = path.open("rb")
                with data, refused:
                    reader = Reader(data, 1 << 20, rows=first.rows)
                    for name in rows:
                        with reader.member(name):
                            pass
                    reader.before_files()
                    with reader.member(files):
                        pass

    def test_that_have_more_than_is_asked_for_are_refused(self, whole: Path) -> None:
        with opened(whole, None, MINE) as reader, reader.member("manifest.json"):
            pass
        with pytest.raises(RunError, match="more in it"):
            reader.end()

    def test_that_were_cut_off_or_changed_are_refused(self, whole: Path) -> None:
        data = whole.read_bytes()
        for harmed in (b"", data[:100], data[: len(data) // 2], data[:-1], data + b"more", data[:-8] + bytes(8)):
            whole.write_bytes(harmed)
            refuses(whole, "is damaged")

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
    def test_with_links_and_long_names_are_refused(self, whole: Path, kind: bytes) -> None:
        info = tarfile.TarInfo("manifest.json")
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0
        whole.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
        refuses(whole, "is no file")

    def test_that_grow_without_end_are_refused(self, whole: Path) -> None:
        """Rows of ten gigabytes, in a few bytes of the file."""
        info = tarfile.TarInfo("content/courses.csv")
        info.size = 10 << 30
        header = info.tobuf(tarfile.GNU_FORMAT)
        whole.write_bytes(gzip.compress(member("manifest.json", b"{}") + header + bytes(1 << 20)))
        refuses(whole, "hundred times")
