"""Packages of QTI as archives: the same bytes for the same questions, and refused when they mean harm."""

import io
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest

from services.assessment.exchange import archives, qti
from services.assessment.exchange.archives import packed
from services.assessment.exchange.drafts import LIMITS, Limits, Unreadable
from services.assessment.exchange.report import Kind
from tests.assessment.packages import corners, item, sources, zipped

GOOD = sources()
# Archives that are not in memory by then are not read in it either.
MOST_MEMORY = 40 << 20
LONGEST_SECONDS = 3.0
BOMB = b"<a>" + b" " * (30 << 20) + b"</a>"


def with_entry(name: str, data: bytes = b"x", **facts: int) -> bytes:
    """The corners, and one entry more."""
    target = io.BytesIO(zipped(GOOD))
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        for fact, value in facts.items():
            setattr(info, fact, value)
        archive.writestr(info, data)
    return target.getvalue()


def twice() -> bytes:
    target = io.BytesIO(zipped(GOOD))
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("imsmanifest.xml", b"<manifest/>")
    return target.getvalue()


def flagged(bit: int) -> bytes:
    """With this bit set in what each entry says of itself."""
    data = bytearray(zipped({"imsmanifest.xml": GOOD["imsmanifest.xml"]}))
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(sign) + at
        struct.pack_into("<H", data, place, bit)
    return bytes(data)


def overlapping() -> bytes:
    """Two entries of the list that are one in the file."""
    data = bytearray(packed({"a": b"1", "b": b"2"}))
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<L", data, second + 42, 0)
    return bytes(data)


def lying(size: int) -> bytes:
    """Whose first entry says that it has another size than it has."""
    data = bytearray(zipped({"imsmanifest.xml": GOOD["imsmanifest.xml"]}))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, size)
    return bytes(data)


def many() -> bytes:
    return packed({f"{n}": b"" for n in range(archives.MOST_ENTRIES + 1)})


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "out of the archive": (lambda: with_entry("../evil.xml"), "leads out"),
    "out of the archive in the middle": (lambda: with_entry("items/../../evil.xml"), "leads out"),
    "from the root": (lambda: with_entry("/etc/passwd"), "absolute"),
    "from a drive": (lambda: with_entry("C:/evil"), "absolute"),
    "with a backslash": (lambda: zipped(GOOD).replace(b"images/map.png", b"images\\map.png"), "backslash"),
    "a link": (lambda: with_entry("link", external_attr=0o120777 << 16, create_system=3), "is a link"),
    "a name twice": (twice, "twice"),
    "a name twice but for its case": (lambda: with_entry("IMSMANIFEST.XML"), "twice"),
    "a name that cannot be seen": (lambda: with_entry("a\u202eb"), "no name for a file"),
    "a long name": (lambda: with_entry("a" * 300), "no name for a file"),
    "a bomb": (lambda: with_entry("bomb.xml", BOMB), "compressed more than"),
    "entries in one another": (overlapping, "overlaps"),
    "an encrypted entry": (lambda: flagged(1), "encrypted"),
    "more entries than any package": (many, "entries"),
    "half an archive": (lambda: zipped(GOOD)[:-40], "cut off"),
    "something after its end": (lambda: zipped(GOOD) + b"x" * 30, "cut off"),
    "no manifest": (lambda: zipped({"a/imsmanifest.xml": GOOD["imsmanifest.xml"]}), "no imsmanifest.xml"),
    "another manifest": (lambda: zipped({"imsmanifest.xml": b"<html/>"}), "no manifest"),
    "a manifest of entities": (
        lambda: zipped({"imsmanifest.xml": b'<!DOCTYPE m [<!ENTITY a "b">]><manifest>&a;</manifest>'}),
        "document type",
    ),
    "a manifest that is no text": (lambda: zipped({"imsmanifest.xml": b"\xff<manifest/>"}), "not UTF-8"),
    "more than it says": (lambda: lying(10), "imsmanifest.xml: it is"),
    "less than it says": (lambda: lying(60_000), "imsmanifest.xml: it is"),
    "a way to pack that few know": (lambda: zipped(GOOD, zipfile.ZIP_BZIP2), "in a way that few"),
}


class TestHostile:
    @pytest.mark.parametrize("what", [*HOSTILE])
    def test_archives_are_refused_by_what_they_are(self, what: str) -> None:
        make, why = HOSTILE[what]
        data = make()
        began = time.perf_counter()
        tracemalloc.start()
        with pytest.raises(Unreadable, match=why):
            qti.read(data)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
        tracemalloc.stop()
        assert time.perf_counter() - began < LONGEST_SECONDS

    def test_items_are_refused_and_those_around_them_read(self) -> None:
        bad = {
            "items/capital.xml": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
            "items/fruit.xml": b"<assessmentItem>" + b"<div>" * 5_000,
            "items/pi.xml": GOOD["items/pi.xml"].decode().encode("utf-16")[:-3],
        }
        made = qti.read(zipped(GOOD | bad))
        assert {draft.name for draft in made.drafts} == {"Animals", "Sentence", "Days", "Drag", "Colour"}
        said = {found.element: found.message for found in made.report.findings if found.element in bad}
        assert "document type" in said["items/capital.xml"]
        assert "deep" in said["items/fruit.xml"]
        assert "not UTF-8" in said["items/pi.xml"]

    @pytest.mark.slow
    @pytest.mark.parametrize("what", ["choices", "feedback", "resources", "blocks"])
    def test_many_things_take_a_time_that_grows_with_them(self, what: str) -> None:
        modal = '<qti-modal-feedback outcome-identifier="F" identifier="a"/>'
        shown = '<qti-set-outcome-value identifier="F"><qti-variable identifier="RESPONSE"/></qti-set-outcome-value>'
        declared = '<qti-response-declaration identifier="RESPONSE" cardinality="single" base-type="identifier"/>'
        ask = '<qti-choice-interaction response-identifier="RESPONSE">{}</qti-choice-interaction>'
        pick = '<qti-simple-choice identifier="a">x</qti-simple-choice>'
        processing = f"<qti-response-processing>{shown}</qti-response-processing>"
        manifest = f"<manifest><resources>{'<r/>' * 100_000}</resources></manifest>"
        data = {
            "choices": item(declared, ask.format(pick * 6_000)),
            "feedback": item(declared, ask.format(pick * 20), processing + modal * 6_000),
            "resources": zipped({"imsmanifest.xml": manifest.encode()}, zipfile.ZIP_STORED),
            "blocks": item(declared, "<p><b>x</b></p>" * 9_000 + ask.format(pick * 2)),
        }[what]
        began = time.process_time()
        made = qti.read(data)
        assert made.report.findings or made.drafts
        assert time.process_time() - began < 2 * LONGEST_SECONDS

    def test_names_that_make_long_paths_are_refused(self) -> None:
        with pytest.raises(Unreadable, match="names that are too long"):
            qti.read(item("", f"<{'x' * 200}>" * 20))

    def test_packages_in_packages_are_not_opened(self) -> None:
        made = qti.read(zipped(GOOD | {"inner.zip": zipped(GOOD)}))
        assert len(made.drafts) == len(qti.read(corners()).drafts)
        [found] = [found for found in made.report.findings if found.element == "inner.zip"]
        assert found.kind is Kind.REFUSED

    def test_names_in_the_manifest_lead_nowhere_else(self) -> None:
        manifest = GOOD["imsmanifest.xml"]
        for name in (b"../items/capital.xml", b"/etc/passwd", b"file:///etc/passwd", b"http://127.0.0.1/x", b""):
            data = manifest.replace(b'"items/capital.xml">\n      <m', b'"' + name + b'">\n      <m')
            made = qti.read(zipped(GOOD | {"imsmanifest.xml": data}))
            assert data != manifest
            assert "Capital" not in {draft.name for draft in made.drafts}

    def test_much_that_is_little_when_packed_is_refused(self) -> None:
        text = "".join(f"<p>{n % 1000}</p>" for n in range(500_000)).encode()
        files = {f"items/{n}.xml": b"<a>" + text + b"</a>" for n in range(20)}
        row = '<resource identifier="r{0}" type="imsqti_item_xmlv3p0" href="items/{0}.xml"/>'
        rows = "".join(row.format(n) for n in range(20))
        files["imsmanifest.xml"] = f"<manifest><resources>{rows}</resources></manifest>".encode()
        with pytest.raises(Unreadable, match="too much is in the archive"):
            qti.read(zipped(files), Limits(bytes=8 << 20, elements=100))

    def test_more_questions_than_the_limit_are_refused(self) -> None:
        with pytest.raises(Unreadable, match="more than 2 questions"):
            qti.read(corners(), Limits(questions=2))

    @pytest.mark.parametrize("data", [b"PK", b"PK\x03\x04", b"", b"\xff\xfe", b"<qti-assessment-test/>", b"\0"])
    def test_what_is_none_is_refused(self, data: bytes) -> None:
        with pytest.raises(Unreadable):
            qti.read(data)

    def test_a_file_that_is_too_long_is_refused(self) -> None:
        with pytest.raises(Unreadable, match="MiB"):
            qti.read(b"x" * (LIMITS.bytes + 1))


class TestWritten:
    def test_archives_are_the_same_for_the_same_questions(self) -> None:
        made = qti.read(corners())
        first, second = qti.write(made.drafts, made.title), qti.write(made.drafts, made.title)
        assert first.data == second.data
        with zipfile.ZipFile(io.BytesIO(first.data)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == sorted(archive.namelist())
            for info in archive.infolist():
                assert (info.date_time, info.compress_type) == ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)

    def test_archives_of_other_packers_are_read(self) -> None:
        whole = [draft.content() for draft in qti.read(corners()).drafts]
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
            assert [draft.content() for draft in qti.read(zipped(GOOD, method)).drafts] == whole
