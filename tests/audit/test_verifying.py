"""The offline verifier: what it takes for proof, what it refuses, and how it says so."""

import base64
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.audit import merkle
from services.audit.signing import Signer
from tests.audit.exporting import Export, Line, Log, make_leaf, verified
from tests.contract.tree import ROOT
from tools import verify_audit

TOOL = ROOT / "tools" / "verify_audit.py"


@pytest.fixture
def log() -> Log:
    random = Random(6962)
    made = Log.random(random)
    leaves = [make_leaf(random, made.tenant_id, number) for number in range(40)]
    return replace(made, leaves=leaves, sizes=[7, 16, 40])


@pytest.fixture
def place(log: Log, tmp_path: Path) -> Path:
    """A folder with what an auditor has."""
    (tmp_path / "export.jsonl").write_bytes(b"\n".join(log.export().file()) + b"\n")
    (tmp_path / "key.txt").write_text(log.key + "\n")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / f"{log.tenant_id}.txt").write_text("".join(log.kept))
    return tmp_path


def run(place: Path, *arguments: str) -> tuple[int, str]:
    """Its exit code and what it said, run as a program of its own, without anything of the platform on its path."""
    command = [sys.executable, "-I", str(TOOL), "export.jsonl", *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


class TestCommand:
    def test_verifies_what_is_right(self, place: Path) -> None:
        code, said = run(place, "--key", "key.txt", "--checkpoints", "kept")
        assert (code, said) == (0, "verified: 40 entries are what was signed; 3 checkpoints agree\n")

    def test_says_when_no_checkpoint_was_kept_elsewhere(self, place: Path, log: Log) -> None:
        code, said = run(place, "--key", log.key)
        assert code == 0
        assert "no checkpoint was kept" in said

    def test_names_the_first_bad_entry(self, place: Path) -> None:
        lines = (place / "export.jsonl").read_bytes().splitlines()
        changed = json.loads(lines[12])
        changed["entry"]["action"] = "delete"
        lines[12] = json.dumps(changed).encode()
        (place / "export.jsonl").write_bytes(b"\n".join(lines))
        code, said = run(place, "--key", "key.txt", "--checkpoints", "kept")
        assert code == 1
        where = f"entry 11 ({changed['entry']['id']})"
        assert said == f"NOT VERIFIED: {where}: edited: action is not what the entry's leaf says\n"

    @pytest.mark.parametrize(
        "arguments", [["--key", "missing"], ["--key", "storyloom/audit/x+00000000+AAAA"], ["--key", "export.jsonl"]]
    )
    def test_says_when_it_cannot_tell(self, place: Path, arguments: list[str]) -> None:
        assert run(place, *arguments)[0] == 2

    def test_refuses_a_file_that_is_no_export(self, place: Path) -> None:
        for content, code in ((b"", 2), (b"{}", 2), (b"\xff\xfe", 1), (b"[1]", 1), (b'{"export": {}}', 1)):
            (place / "export.jsonl").write_bytes(content)
            assert run(place, "--key", "key.txt")[0] == code, content

    def test_needs_nothing_but_cryptography(self) -> None:
        lines = (line.split() for line in TOOL.read_text().splitlines() if line.startswith(("import ", "from ")))
        imported = {words[1].partition(".")[0] for words in lines}
        assert imported - set(sys.stdlib_module_names) == {"cryptography"}


class TestKeys:
    def test_are_read_and_checked_as_every_other_verifier_does(self) -> None:
        """By the example of Go's sumdb, whose format C2SP's signed-note is."""
        key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
        signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
        line = f"\u2014 PeterNeumann {signature}"
        assert verify_audit.Keys([key])._signed(text, line)
        assert not verify_audit.Keys([key])._signed(text + "\n", line)

    @pytest.mark.parametrize(
        "text", ["", "a+b", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "x+00+!!"]
    )
    def test_that_are_none_are_refused(self, text: str) -> None:
        with pytest.raises(verify_audit.Unverifiable):
            verify_audit.Keys([text])

    def test_of_another_log_verify_nothing(self, log: Log) -> None:
        other = Log.random(Random(1))
        assert "tenant" in verified(log.export(), other.key, [])

    def test_that_signed_earlier_verify_too(self, log: Log) -> None:
        newer = Signer(b"n" * 32, [base64.b64decode(log.key.split("+", 2)[2])[1:]])
        keys = verify_audit.Keys(newer.verifier_keys(log.tenant_id))
        texts = [*log.kept[:2], log.checkpoint(40, signer=newer)]
        assert [one.size for text in texts for one in keys.checkpoints(text, "")] == [7, 16, 40]


class TestCheckpoints:
    def test_are_found_among_those_of_others_and_what_a_crash_left(self, log: Log) -> None:
        text = log.kept[0] + Log.random(Random(1)).kept[0] + log.kept[1][:60] + "\n" + log.kept[1] + log.kept[2]
        assert [one.size for one in verify_audit.Keys([log.key]).checkpoints(text, "")] == [7, 16, 40]

    def test_of_two_histories_are_noticed(self, log: Log) -> None:
        forked = log.checkpoint(16, [log.leaves[0], *log.leaves[:15]])
        assert "two histories" in verified(log.export(), log.key, [*log.kept, forked])

    def test_later_than_the_export_mean_that_something_is_missing(self, log: Log) -> None:
        assert verified(log.export(16), log.key, log.kept).startswith("entry 16: it is missing")

    def test_later_than_the_export_may_be_left_out(self, log: Log) -> None:
        keys = verify_audit.Keys([log.key])
        kept = [one for text in log.kept for one in keys.checkpoints(text, "")]
        assert verify_audit.Verifier(keys, kept, older=True).run(log.export(16).file())

    def test_that_nothing_covers_leave_it_open(self, log: Log) -> None:
        with pytest.raises(verify_audit.Unverifiable, match="covers"):
            verified(log.export(5), log.key, [])


class TestExports:
    def test_need_not_be_in_the_order_of_the_tree(self, log: Log) -> None:
        export = log.export()
        lines = list(export.lines)
        Random(3).shuffle(lines)
        assert verified(replace(export, lines=lines), log.key, log.kept) == ""

    def test_may_lack_dropped_months_of_which_the_hashes_are_left(self, log: Log) -> None:
        export = log.export()
        old = [replace(gone(line), id="019aa000" + line.entry["id"][8:]) for line in export.lines[:9]]
        assert verified(replace(export, lines=[*old, *export.lines[9:]]), log.key, log.kept) == ""
        with_hole = [*export.lines[:9], gone(export.lines[9]), *export.lines[10:]]
        assert verified(replace(export, lines=with_hole), log.key, log.kept).startswith("entry 9 ")
        no_id = [replace(gone(export.lines[0]), id=""), *export.lines[1:]]
        assert verified(replace(export, lines=no_id), log.key, log.kept).startswith("entry 0")

    def test_of_some_entries_are_verified_by_their_proofs(self, log: Log) -> None:
        for indexes in ([3, 20, 39], []):
            (said,) = verified_partially(log, indexes)
            assert said.startswith(f"{len(indexes)} entries are in the log")
        with pytest.raises(verify_audit.Changed, match="proof"):
            verified_partially(log, [3, 20], proofs_of=[3, 21])

    def test_of_some_entries_without_proofs_leave_it_open(self, log: Log) -> None:
        with pytest.raises(verify_audit.Unverifiable, match="some entries only"):
            verified_partially(log, [3, 20], proofs_of=[])

    def test_say_how_much_is_not_proven_yet(self, log: Log) -> None:
        export = replace(log.export(), checkpoint=log.kept[1])
        keys = verify_audit.Keys([log.key])
        said = verify_audit.Verifier(keys, []).run(export.file())
        assert said[1] == "24 entries after the last checkpoint are not proven yet"

    def test_that_were_cut_short_are_noticed(self, log: Log) -> None:
        lines = list(log.export().file())
        keys = verify_audit.Keys([log.key])
        with pytest.raises(verify_audit.Changed, match="missing"):
            verify_audit.Verifier(keys, []).run(lines[:30])
        with pytest.raises(verify_audit.Changed, match="can't be read"):
            verify_audit.Verifier(keys, []).run([*lines[:30], lines[30][:50]])

    @pytest.mark.parametrize("name", ["action", "entityType", "userId", "requestId", "occurTime", "newValues"])
    def test_show_what_the_leaves_say(self, log: Log, name: str) -> None:
        export = log.export()
        index = next(index for index, line in enumerate(export.lines) if name in line.entry)
        line = export.lines[index]
        for changed in ({**line.entry, name: "x"}, {key: value for key, value in line.entry.items() if key != name}):
            lines = [*export.lines[:index], replace(line, entry=changed), *export.lines[index + 1 :]]
            assert verified(replace(export, lines=lines), log.key, log.kept).startswith(f"entry {index} ")


def gone(line: Line) -> Line:
    return replace(line, leaf=None, id=line.entry["id"])


def verified_partially(log: Log, indexes: list[int], proofs_of: list[int] | None = None) -> list[str]:
    hashes = [merkle.leaf_hash(leaf) for leaf in log.leaves]
    nodes = {(0, place): one for place, one in enumerate(hashes)} | dict(merkle.grow(0, [], hashes))
    lines: list[dict[str, Any]] = [json.loads(Line.of(index, log.leaves[index]).text) for index in indexes]
    for line, index in zip(lines, indexes if proofs_of is None else proofs_of, strict=False):
        path = merkle.proof(merkle.inclusion_path(index, 40), nodes)
        line["proof"] = [base64.b64encode(one).decode() for one in path]
    header = json.loads(next(Export(log.tenant_id, [], log.kept[2], 40).file()))
    header["export"]["filters"] = {"action": "update"}
    keys = verify_audit.Keys([log.key])
    return verify_audit.Verifier(keys, []).run(json.dumps(one).encode() for one in (header, *lines))
