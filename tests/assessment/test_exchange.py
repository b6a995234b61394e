"""What holds for every format: round trips, reports without gaps, files that mean harm."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.assessment.bodies import violations
from services.assessment.exchange import gift, moodle
from services.assessment.exchange.documents import document, indented, parse, restore, settle
from services.assessment.exchange.drafts import Draft, Format, Limits, Unreadable
from services.assessment.exchange.formats import recognise
from services.assessment.exchange.markup import plain
from services.assessment.exchange.report import Kind, Place, Report
from tests.assessment.drafts import drafts
from tests.assessment.filing import FILES

TEXTUAL: dict[str, Format] = {"gift": gift, "moodle_xml": moodle}
SAMPLES = {"gift": "corners.gift", "moodle_xml": "corners.xml"}
EXAMPLES = 25 if settings.get_current_profile_name() == "default" else settings().max_examples
QUICK = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck])
# Anything that takes longer for a few hundred kilobytes does not grow with the length alone.
LONGEST_SECONDS = 3.0


def contents(found: Sequence[Draft]) -> list[object]:
    return [one.content() for one in found]


@pytest.fixture(params=[*TEXTUAL])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestRoundTrips:
    @given(made=st.lists(drafts(), min_size=1, max_size=3))
    @QUICK
    @pytest.mark.parametrize("name", [*TEXTUAL])
    def test_what_is_written_is_read_as_the_same_or_told(self, name: str, made: list[Draft]) -> None:
        """Questions that a format cannot say, or only otherwise, are in the report; others come back as they are."""
        written = TEXTUAL[name].write(made)
        told = {one.place.line for one in written.report.findings}
        left_out = {one.place.line for one in written.report.findings if one.element == "question"}
        read = TEXTUAL[name].read(written.data)
        assert not read.report.findings or {one.kind for one in read.report.findings} == {Kind.MAPPED}
        sent = [one for number, one in enumerate(made, 1) if number not in left_out]
        numbers = [number for number in range(1, len(made) + 1) if number not in left_out]
        assert len(read.drafts) == len(sent)
        for number, before, after in zip(numbers, sent, read.drafts, strict=True):
            if number not in told:
                assert before.content() == after.content()
            assert not list(violations(after.body))

    @given(made=st.lists(drafts(), min_size=1, max_size=3))
    @QUICK
    @pytest.mark.parametrize("name", [*TEXTUAL])
    def test_what_was_read_once_never_changes_again(self, name: str, made: list[Draft]) -> None:
        once = TEXTUAL[name].read(TEXTUAL[name].write(made).data)
        data = TEXTUAL[name].write(once.drafts)
        assert not data.report.findings
        again = TEXTUAL[name].read(data.data)
        assert contents(again.drafts) == contents(once.drafts)
        assert TEXTUAL[name].write(again.drafts).data == data.data

    def test_of_the_corners_of_each_format_change_nothing(self, name: str) -> None:
        read = TEXTUAL[name].read((FILES / SAMPLES[name]).read_bytes())
        written = TEXTUAL[name].write(read.drafts)
        assert not written.report.findings
        assert contents(TEXTUAL[name].read(written.data).drafts) == contents(read.drafts)

    def test_are_the_same_whatever_ends_lines_and_begins_the_file(self, name: str) -> None:
        data = (FILES / SAMPLES[name]).read_bytes().removeprefix(b"\xef\xbb\xbf")
        whole = contents(TEXTUAL[name].read(data).drafts)
        for same in (data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data, data.decode().encode("utf-16")):
            assert contents(TEXTUAL[name].read(same).drafts) == whole

    def test_from_one_format_into_the_other_keep_what_both_can_say(self) -> None:
        read = moodle.read((FILES / "corners.xml").read_bytes())
        short = [one for one in read.drafts if one.name in ("three", "number", "match")]
        through = gift.read(gift.write(short).data)
        assert [one.body for one in through.drafts] == [one.body for one in short]


class TestRecognise:
    def test_tells_each_format(self, name: str) -> None:
        assert recognise((FILES / SAMPLES[name]).read_bytes()) == name

    def test_tells_nothing_of_what_is_none(self) -> None:
        for data in (b"", b"\xff\xff\xff", b"plain text", b"<html>{}</html>", b'{"a": 1}'):
            assert recognise(data) == ""


class TestReports:
    def test_have_every_element_and_attribute_of_xml(self) -> None:
        data = (FILES / "corners.xml").read_bytes()
        read = moodle.read(data)
        found = [*read.report.findings, *(one for draft in read.drafts for one in draft.report.findings)]
        said = {(one.element, one.place.line) for one in found}
        for element in parse(data).walk():
            names = [element.name, *(f"{element.name}/@{one}" for one in element.attributes)]
            for wanted in names:
                assert any(path.endswith(wanted) and line == element.line for path, line in said), wanted

    def test_have_every_line_of_gift_that_says_something(self) -> None:
        data = (FILES / "corners.gift").read_text("utf-8-sig")
        read = gift.read(data.encode())
        found = [*read.report.findings, *(one for draft in read.drafts for one in draft.report.findings)]
        lines = {one.place.line for one in found}
        for number, line in enumerate(data.split("\n"), 1):
            if any(sign.isalnum() for sign in line):
                assert number in lines, line

    def test_have_no_word_that_is_neither_taken_nor_told(self) -> None:
        """Each word of a file is in a draft, or on a line of which something is refused."""
        for name, one in TEXTUAL.items():
            read = one.read((FILES / SAMPLES[name]).read_bytes())
            kept = " ".join(str(draft.content()) for draft in read.drafts).casefold()
            every = [*read.report.findings, *(found for draft in read.drafts for found in draft.report.findings)]
            lost = {found.place.line for found in every if found.kind is Kind.REFUSED}
            for number, line in enumerate((FILES / SAMPLES[name]).read_text("utf-8-sig").split("\n"), 1):
                for word in ("meow", "wolf", "kitten", "purrs", "fish", "unused", "cats-1", "vertical", "0.3333333"):
                    if word in line.casefold():
                        assert word in kept or number in lost, (name, number, word)

    def test_name_what_a_format_cannot_say(self) -> None:
        body = moodle.read((FILES / "corners.xml").read_bytes()).drafts[3].body
        body |= {"most_typos": 2, "scoring": "all_or_nothing"}
        for one in TEXTUAL.values():
            said = {found.element for found in one.write([Draft(body=body)]).report.findings}
            assert {"most_typos", "scoring"} <= said

    def test_refuse_what_is_too_much_to_keep(self) -> None:
        image = "A" * 60_000
        data = (FILES / "corners.xml").read_text().replace("iVBORw0KGgo=", image).encode()
        draft = moodle.read(data).drafts[0]
        files = [one for one in draft.report.findings if "/file" in one.element]
        assert {one.kind for one in files} == {Kind.REFUSED}
        assert image not in str(draft.preserved)


def bomb(levels: int = 9) -> bytes:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, levels))
    return f'<!DOCTYPE quiz [<!ENTITY l0 "ha">{entities}]><quiz>&l{levels - 1};</quiz>'.encode()


HARMFUL = {
    "entities in entities": bomb(),
    "an entity that is a file": b'<!DOCTYPE q [<!ENTITY x SYSTEM "file:///etc/passwd">]><quiz>&x;</quiz>',
    "a parameter entity": b'<!DOCTYPE q [<!ENTITY % x SYSTEM "http://127.0.0.1/x">%x;]><quiz/>',
    "a document type without anything": b"<!DOCTYPE quiz><quiz/>",
    "a document type elsewhere": b'<!DOCTYPE quiz SYSTEM "http://127.0.0.1/quiz.dtd"><quiz/>',
    "an entity that nobody declared": b"<quiz>&x;</quiz>",
    "elements in elements": b"<quiz>" + b"<a>" * 100_000,
    "a long attribute": b'<quiz a="' + b"x" * 200_000 + b'"/>',
    "many attributes": b"<quiz " + b" ".join(b'a%d=""' % n for n in range(5_000)) + b"/>",
    "many elements": b"<quiz>" + b"<a/>" * 200_000 + b"</quiz>",
    "an attribute twice": b'<quiz a="" a=""/>',
    "a NUL character": b"<quiz>\0</quiz>",
    "a reference to NUL": b"<quiz>&#0;</quiz>",
    "bytes that are not UTF-8": b"<quiz>\xff</quiz>",
    "half of UTF-16": "<quiz/>".encode("utf-16")[:-1],
    "a lone surrogate": b"\xff\xfe" + "<quiz>".encode("utf-16-le") + b"\x00\xd8</",
    "another root": b"<html><body/></html>",
    "a root of another namespace": b'<quiz xmlns="urn:x"/>',
    "nothing": b"",
    "two roots": b"<quiz/><quiz/>",
    "no end": b"<quiz><question>",
}


class TestHarmfulXml:
    @pytest.mark.parametrize("what", [*HARMFUL])
    def test_is_refused_at_once(self, what: str) -> None:
        began = time.process_time()
        with pytest.raises(Unreadable):
            moodle.read(HARMFUL[what])
        assert time.process_time() - began < LONGEST_SECONDS

    def test_says_where_it_is(self) -> None:
        with pytest.raises(Unreadable, match="line 3"):
            moodle.read(b"<quiz>\n\n<a></b></quiz>")

    def test_an_encoding_that_is_told_is_not_believed(self) -> None:
        data = b'<?xml version="1.0" encoding="UTF-7"?><quiz>+ADw-</quiz>'
        assert not moodle.read(data).drafts


HOSTILE_GIFT = {
    "braces": "{" * 100_000,
    "closed braces": "}" * 100_000,
    "backslashes": "\\" * 200_001,
    "an escaped question": "q{" + "\\~" * 30_000 + "}",
    "choices": "q{=a " + "~" * 30_000 + "}",
    "answers": "q{" + "=" * 30_000 + "}",
    "feedback": "q{=a" + "#" * 50_000 + "}",
    "a weight": "q{~%" + "9" * 50_000 + "}",
    "a number": "q{#" + "9" * 50_000 + "}",
    "a range": "q{#1" + "." * 50_000 + "2}",
    "a great exponent": "q{#1e99999}",
    "titles": "::" * 30_000,
    "notes": "// " + "[id:" * 50_000 + "\nq{T}",
    "escaped notes": "// [tag:" + "\\]" * 50_000 + "\nq{T}",
    "comments": "// x\n" * 50_000 + "q{T}",
    "formats": "[html]" + "<a " * 20_000 + "{T}",
    "quotes": "[html]" + "<a b='" * 10_000 + "{T}",
    "references": "[html]" + "&#" * 30_000 + "{T}",
    "comments in it": "[html]" + "<!--" * 15_000 + "{T}",
    "categories": "$CATEGORY: " + "a/" * 100_000,
    "pairs": "q{" + "=a->b " * 10_000 + "}",
    "items": "q{>" + "\na" * 20_000 + "}",
    "questions": "q{T}\n\n" * 1_900,
    "control characters": "q\x01\x02{T}\x0b\x0c\u2028",
}


class TestHostileText:
    @pytest.mark.parametrize("what", [*HOSTILE_GIFT])
    def test_takes_a_time_that_grows_with_its_length(self, what: str) -> None:
        began = time.process_time()
        read = gift.read(HOSTILE_GIFT[what].encode())
        assert time.process_time() - began < LONGEST_SECONDS
        assert read.drafts or read.report.findings

    @given(text=st.text(st.sampled_from("aT{}~=#%:\\/[]<>&\n \"'->.0")))
    @QUICK
    def test_is_read_or_refused_whatever_it_is(self, text: str) -> None:
        read = gift.read(text.encode())
        for draft in read.drafts:
            if not list(violations(draft.body)):
                assert contents(gift.read(gift.write([draft]).data).drafts) in ([draft.content()], [])

    def test_is_refused_where_it_is_no_text(self) -> None:
        for data in (b"q{T}\0", b"\xff\xfe\x00\xd8q", b"q{\xff}"):
            with pytest.raises(Unreadable):
                gift.read(data)

    def test_is_refused_where_there_is_too_much_of_it(self) -> None:
        with pytest.raises(Unreadable):
            gift.read(b"q{T}\n\n" * 3, Limits(questions=2))


class TestPlainText:
    def test_is_what_a_reader_sees(self) -> None:
        found = plain("<p>One&nbsp;<b>two</b><br>three</p><ul><li>a</li><li>b &lt; c</li></ul><script>x</script>")
        assert found.text == "One\xa0two\nthree\na\nb < c"
        assert found.lost == ("b", "ul", "li", "script")

    @given(text=st.text("ab <>&;\"'=/!-#x\n"))
    @QUICK
    def test_is_made_of_anything(self, text: str) -> None:
        assert plain(plain(text).text).text is not None


class TestKeptElements:
    def test_come_back_where_they_were(self) -> None:
        data = b'<a x="1" y="2"><b><c z="3">text</c> loose </b><b/><d xmlns="urn:d" e="4"><!-- no --><f/></d></a>'
        root, report = parse(data), Report()
        root.get("x")
        for one in root.all("b"):
            assert one.name == "b"
        kept = settle(root, report)
        again = parse(b'<a x="1"><b/><b/></a>')
        restore(again, kept, report, Place(1))
        fresh = parse(document(indented(again)))
        fresh.get("x")
        fresh.all("b")
        assert settle(fresh, Report()) == kept
        assert not [one for one in report.findings if "no longer" in one.message]

    def test_of_what_is_gone_are_told(self) -> None:
        report = Report()
        restore(parse(b"<a/>"), [["b[2]", "<c/>"], ["b[1]/@x", "1"]], report, Place(7))
        assert [(one.kind, one.place.line) for one in report.findings] == [(Kind.REFUSED, 7)] * 2
