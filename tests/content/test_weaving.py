"""What a weave replaces, what it leaves alone, and that the source can always be had back."""

import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence, Set
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content import weaving
from services.content.matching import Term
from services.content.segmentation import paragraphs, reading_minutes, word_count
from services.content.weaving import Annotation, Chunk, Share, Target, Weave, chunks

weave = partial(weaving.weave, language="vi")
ALL = [Target("noun", Decimal(1)), Target("verb", Decimal(1))]
CAT = Term("cat", "mèo", "cat", "noun", "con vật kêu meo meo")
LEARN = Term("learn", "học", "learn", "verb")
STUDENT = Term("student", "học sinh", "student", "noun")
ORCHID = Term("orchid", "lan", "orchid", "noun")
PEACE = Term("peace", "an", "peace", "noun")
Form = Literal["NFC", "NFD", "NFKD"]


def undo(chunks: Iterable[Chunk]) -> str:
    """The source text, exactly, from its chunks in the order of their positions."""
    return "".join(chunk.source for chunk in chunks if chunk.kind != "explain")


def woven(text: str, *terms: Term, protected: Sequence[tuple[int, int]] = ()) -> str:
    """The text with everything that may be woven in it woven."""
    annotations = weave(text, terms, ALL, seed="s", protected=protected).annotations
    return "".join(chunk.text for chunk in chunks(text, annotations) if chunk.kind != "explain")


def noun(term: str, translation: str, *forms: str) -> Term:
    return Term(translation, term, translation, "noun", forms=tuple((form, "") for form in forms))


def starts(result: Weave) -> list[int]:
    return [annotation.start for annotation in result.annotations]


def nouns(ratio: str) -> list[Target]:
    return [Target("noun", Decimal(ratio))]


def cases(*rows: tuple[str, str, list[Term], str]) -> pytest.MarkDecorator:
    """Runs a test on each text, terms and wanted weave, named by the first of a row."""
    return pytest.mark.parametrize(("text", "terms", "wanted"), [pytest.param(*row, id=name) for name, *row in rows])


NESTED = ["c d e f", "a b c", "a"]
UP_TO_DATE = [noun("up to date", "y"), noun("date information", "x")]


class TestMatching:
    @cases(
        ("tells_tones_apart", "ma má mà mạ", [noun("má", "mother")], "ma mother mà mạ"),
        ("never_part_of_a_combining_sequence", "bà và bạ", [noun("ba", "three"), noun("b", "bee")], "bà và bạ"),
        ("prefers_the_longest_phrase", "học sinh học", [LEARN, STUDENT], "student learn"),
        ("but_a_shorter_where_that_overlaps", "a b c d e f", [noun(t, t.upper()) for t in NESTED], "A b C D E F"),
        ("even_if_later", "ăn cơm gà rán", [noun("ăn cơm", "x"), noun("cơm gà rán", "y")], "ăn y"),
        ("words_count_before_letters", "up to date information", UP_TO_DATE, "y information"),
        ("finds_forms", "went, gone", [noun("go", "đi", "went", "gone")], "đi, đi"),
        ("expanding_case_pairs", "die STRASSE", [noun("Straße", "street")], "die STREET"),
        ("typographic_apostrophe", "don’t", [noun("don't", "x")], "x"),
        ("typographic_hyphen", "well‑known", [noun("well-known", "x")], "x"),
        ("soft_hyphen", "stu\u00addent", [noun("student", "x")], "x"),
        ("any_order_of_marks", "η α\u0301\u0345", [noun("alpha", "x", "α\u0345\u0301")], "η x"),
        ("six_words", "a b c d e f", [noun("a b c d e f", "x")], "x"),
        ("no_more_than_six_words", "a b c d e f g", [noun("a b c d e f g", "x"), noun("g", "y")], "a b c d e f y"),
        ("ignores_blanks", "mèo !", [noun(" ", "x"), noun("!", "x"), noun("mèo", " ")], "mèo !"),
    )
    @pytest.mark.parametrize("text_form", ["NFC", "NFD"])
    @pytest.mark.parametrize("term_form", ["NFC", "NFD"])
    def test_finds(self, text: str, terms: list[Term], wanted: str, text_form: Form, term_form: Form) -> None:
        terms = [term._replace(term=unicodedata.normalize(term_form, term.term)) for term in terms]
        assert unicodedata.normalize("NFC", woven(unicodedata.normalize(text_form, text), *terms)) == wanted

    @pytest.mark.parametrize(
        "text", ["catalogue", "bobcat", "cat-like", "cat's", "cat’s", "cat_1", "cat2", "cat\u00adalogue", "cat\u200dx"]
    )
    def test_never_weaves_inside_a_word(self, text: str) -> None:
        assert woven(text, noun("cat", "mèo")) == text

    @pytest.mark.parametrize("text", ["(cat)", "“cat”", "dog/cat", "a cat, a", "cat—dog", "cat.", "cat…", "cat🐈"])
    def test_keeps_the_punctuation_around_a_word(self, text: str) -> None:
        assert woven(text, noun("cat", "mèo")) == text.replace("cat", "mèo")

    def test_a_banned_phrase_still_covers_the_words_in_it(self) -> None:
        assert starts(weave("Các học sinh đang học.", [LEARN, STUDENT], ALL, seed="s", bans={"student"})) == [18]

    @pytest.mark.parametrize("gap", ["  ", "\u00a0", "\n", "\r\n", " \n "])
    def test_matches_a_phrase_over_any_white_space(self, gap: str) -> None:
        assert woven(f"các học{gap}sinh", STUDENT) == "các student"

    @pytest.mark.parametrize("gap", ["\n\n", "\r\n\r\n", "\n \t\n"])
    def test_never_matches_a_phrase_across_paragraphs(self, gap: str) -> None:
        assert woven(f"các học{gap}sinh", STUDENT) == f"các học{gap}sinh"


class TestSharedSpelling:
    stone, kick = Term("1", "đá", "stone", "noun"), Term("2", "đá", "kick", "verb")

    @pytest.mark.parametrize(
        ("targets", "pins", "bans", "wanted"),
        [
            pytest.param(ALL, set(), set(), "stone", id="the_first_part_of_speech"),
            pytest.param(ALL[1:], set(), set(), "kick", id="a_part_of_speech_with_a_target"),
            pytest.param(ALL, {"2"}, set(), "kick", id="the_pinned"),
            pytest.param(ALL, set(), {"1"}, "kick", id="the_one_that_is_not_banned"),
        ],
    )
    def test_belongs_to(self, targets: list[Target], pins: Set[str], bans: Set[str], wanted: str) -> None:
        for terms in ([self.stone, self.kick], [self.kick, self.stone]):
            annotations = weave("đá đá", terms, targets, seed="s", pins=pins, bans=bans).annotations
            assert [note.replacement for note in annotations] == [wanted, wanted]

    def test_belongs_to_a_main_spelling_before_a_form(self) -> None:
        assert woven("viên đá", Term("0", "sỏi", "pebble", "noun", forms=(("đá", ""),)), self.stone) == "viên stone"


class TestNames:
    @pytest.mark.parametrize(
        "text",
        [
            *("Hôm nay bạn Nguyễn Văn An đến.", "Nguyễn Văn An đến.", "Bạn ấy tên là An.", "Ông J. K. An viết."),
            *("Tôi gặp thầy TP. An ở đó.", "“Đi đâu?” An hỏi.", "“Đi đâu,” An hỏi.", "Cô gọi An; An thưa."),
            "Bạn An cười. An vui lắm. An và Văn về.",
        ],
    )
    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_never_weaves_inside_a_name(self, text: str, form: Form) -> None:
        text = unicodedata.normalize(form, text)
        assert woven(text, PEACE, noun("văn", "culture")) == text

    @pytest.mark.parametrize(
        "lead",
        [
            *("", "Trời mưa. ", "Thật à? ", "Ôi! ", "Trời mưa… ", "Dạ ạ. ", "Hết.\n\n", "Hết\n\n", "Là Bình\n\n"),
            *("CHUYỆN CỦA TÔI\n\n", "Mẹ nói: “", 'Mẹ nói, "', "Kể rằng:\n– "),
        ],
    )
    def test_a_capital_that_opens_a_sentence_is_no_name(self, lead: str) -> None:
        assert woven(f"{lead}Mèo ngủ.", CAT) == f"{lead}Cat ngủ."

    @cases(
        ("not_a_lone_word_that_opens_a_sentence", "Lan nở.", [ORCHID], "Orchid nở."),
        ("unless_it_is_one_elsewhere", "Lan ở nhà. Bạn Lan đi.", [ORCHID], "Lan ở nhà. Bạn Lan đi."),
        ("not_its_lower_case_word", "Bạn Lan tưới lan.", [ORCHID], "Bạn Lan tưới orchid."),
        ("not_a_form_of_address", "Anh Bình. Anh ơi.", [noun("anh", "bro")], "Anh Bình. Bro ơi."),
        ("with_its_particles", "Bank of England of", [noun("of", "của")], "Bank of England của"),
        ("not_one_the_vocabulary_holds", "ở Hà Nội", [noun("Hà Nội", "Hanoi")], "ở Hanoi"),
        ("unless_it_is_longer", "ở Hà Nội Mới", [noun("Hà Nội", "Hanoi")], "ở Hà Nội Mới"),
        ("not_the_pronoun", "Then I ran. I hid.", [noun("I", "tôi")], "Then tôi ran. Tôi hid."),
    )
    def test_judges_what_is_a_name(self, text: str, terms: list[Term], wanted: str) -> None:
        assert woven(text, *terms) == wanted


class TestProtection:
    @pytest.mark.parametrize(
        "text",
        [
            *("xem https://mèo.vn/mèo?a=mèo nhé", "xem www.mèo.vn/mèo nhé", "xem truyen.vn/mèo nhé"),
            *("gửi mèo@truyen.vn nhé", "gửi mèo.con+mèo@truyen.vn, nhé", "chào @mèo nhé"),
        ],
    )
    def test_never_weaves_inside_an_address(self, text: str) -> None:
        assert woven(text, CAT) == text

    @pytest.mark.parametrize("span", [(4, 7), (5, 6), (0, 5), (6, 11)])
    def test_never_weaves_what_a_protected_span_touches(self, span: tuple[int, int]) -> None:
        assert woven("con mèo và mèo", CAT, protected=[span]) == "con mèo và cat"
        assert woven("con mèo và mèo", CAT, protected=[(0, 4), (7, 11), (5, 5)]) == "con cat và cat"

    def test_weaves_only_the_paragraphs_in_scope(self) -> None:
        text = "con mèo\n\ncon mèo\r\n\r\ncon mèo"
        assert starts(weave(text, [CAT], ALL, seed="s", scopes=[0, 2])) == [4, 24]
        assert weave(text, [CAT], ALL, seed="s", scopes=[1]).shares[0].occurrences == 1
        assert weave(text, [CAT], ALL, seed="s", scopes=[]).annotations == ()


class TestCapitals:
    @cases(
        ("of_the_first_word", "Học sinh ngủ.", [STUDENT], "Student ngủ."),
        ("of_a_heading", "HỌC SINH VÀ MÈO", [STUDENT, CAT], "STUDENT VÀ CAT"),
        ("of_emphasis", "một con MÈO to", [CAT], "một con CAT to"),
        ("one_letter_is_not_all_capitals", "Ý hay!", [noun("ý", "idea")], "Idea hay!"),
        ("past_signs_to_the_first_letter", "Cat!", [noun("cat", "(con) mèo")], "(Con) mèo!"),
        ("of_the_translation_stay", "vào thứ hai", [noun("thứ hai", "Monday")], "vào Monday"),
        ("of_the_vocabulary_do_not_carry", "on Monday", [noun("Monday", "thứ Hai")], "on thứ Hai"),
        ("but_open_a_sentence", "Monday ended", [noun("Monday", "thứ Hai")], "Thứ Hai ended"),
        ("all_capitals_of_the_vocabulary", "the TV", [noun("TV", "ti vi")], "the ti vi"),
    )
    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_carry_over(self, text: str, terms: list[Term], wanted: str, form: Form) -> None:
        assert unicodedata.normalize("NFC", woven(unicodedata.normalize(form, text), *terms)) == wanted


class TestChoice:
    text = "mèo lan an " * 20

    @pytest.mark.parametrize(("ratio", "count"), [("0", 0), ("0.5", 3), ("0.3", 2), ("0.29", 1), ("1", 5), ("0.1", 1)])
    def test_weaves_the_nearest_reachable_number_half_up(self, ratio: str, count: int) -> None:
        (share,) = weave("mèo " * 5, [CAT], nouns(ratio), seed="s").shares
        assert share == Share("noun", 5, count, Decimal(ratio), Decimal(count) / 5)

    def test_counts_each_part_of_speech_on_its_own(self) -> None:
        targets = [Target("verb", Decimal(0)), Target("noun", Decimal(1)), Target("adverb", Decimal(1))]
        shares = weave("mèo học mèo", [CAT, LEARN], targets, seed="s").shares
        counts = [(share.part_of_speech, share.occurrences, share.woven, int(share.realised)) for share in shares]
        assert counts == [("adverb", 0, 0, 0), ("noun", 2, 2, 1), ("verb", 1, 0, 0)]

    def test_weaves_nothing_of_a_part_of_speech_without_a_target(self) -> None:
        assert weave("mèo", [CAT], [], seed="s") == Weave((), (Share("noun", 1, 0, Decimal(0), Decimal(0)),))
        assert len(weave("mèo", [CAT], [], seed="s", pins={"cat"}).annotations) == 1

    @pytest.mark.parametrize(
        ("ratio", "pins", "bans", "cats", "total"),
        [
            pytest.param("0.5", {"cat"}, set(), 20, 30, id="pinned_words_are_woven_and_counted"),
            pytest.param("0.1", {"cat"}, set(), 20, 20, id="pinned_words_are_woven_beyond_the_target"),
            pytest.param("0.5", set(), {"cat"}, 0, 30, id="banned_words_are_made_up_for"),
            pytest.param("1", set(), {"cat"}, 0, 40, id="banned_words_are_never_woven"),
            pytest.param("1", {"cat"}, {"cat"}, 0, 40, id="a_ban_beats_a_pin"),
        ],
    )
    def test_obeys_the_editor(self, ratio: str, pins: Set[str], bans: Set[str], cats: int, total: int) -> None:
        result = weave(self.text, [CAT, ORCHID, PEACE], nouns(ratio), seed="s", pins=pins, bans=bans)
        ids = [note.vocabulary_id for note in result.annotations]
        assert (ids.count("cat"), len(ids), result.shares[0].occurrences) == (cats, total, 60)

    def test_depends_on_the_seed(self) -> None:
        results = {tuple(starts(weave(self.text, [CAT], nouns("0.2"), seed=str(seed)))) for seed in range(40)}
        assert len(results) == 5

    @settings(deadline=None)
    @given(count=st.integers(1, 60), ratio=st.decimals(0, 1, places=3), seed=st.text(max_size=5))
    def test_spreads_evenly(self, count: int, ratio: Decimal, seed: str) -> None:
        chosen = {start // 4 for start in starts(weave("mèo " * count, [CAT], nouns(str(ratio)), seed=seed))}
        assert len(chosen) == int((ratio * count).to_integral_value(ROUND_HALF_UP))
        for end in range(count + 1):
            so_far = sum(index < end for index in chosen)
            assert abs(so_far * count - len(chosen) * end) <= count

    @pytest.mark.parametrize("ratio", ["-0.01", "1.01", "NaN", "Infinity"])
    def test_refuses_a_ratio_outside_its_range(self, ratio: str) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            Target("noun", Decimal(ratio))

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            *(({"protected": [span]}, "protected span") for span in [(-1, 2), (3, 2), (0, 8)]),
            *(({"scopes": [index]}, "paragraph") for index in (-1, 1)),
            ({"targets": ALL + ALL}, "two targets"),
        ],
    )
    def test_refuses_what_does_not_fit_the_text(self, arguments: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            weave("con mèo", [CAT], **{"targets": ALL, "seed": "s"} | arguments)

    def test_is_the_same_in_every_process(self) -> None:
        program = (
            "from decimal import Decimal; from services.content.matching import Term; "
            "from services.content.weaving import Target, weave; "
            "print(weave('mèo lan an ' * 20, [Term('a','mèo','cat','noun'), Term('b','lan','orchid','noun')], "
            "[Target('noun', Decimal('0.7'))], language='vi', seed='s', pins={'b'}))"
        )
        environments = [os.environ | {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"} for seed in ("0", "1", "2")]
        root = Path(__file__).parents[2]
        outputs = {subprocess.check_output([sys.executable, "-c", program], cwd=root, env=env) for env in environments}
        assert len(outputs) == 1
        assert b"Annotation" in outputs.pop()


class TestChunks:
    def test_explain_the_first_appearance_of_each_word(self) -> None:
        terms = [CAT, Term("learn", "học", "learn", "verb", "tiếp thu kiến thức")]
        annotations = weave("mèo học mèo học", terms, ALL, seed="s").annotations
        assert [note.explain for note in annotations] == [CAT.explanation, "tiếp thu kiến thức", "", ""]

    def test_alternate_text_woven_words_and_explanations(self) -> None:
        text = "Con mèo ngủ."
        notes = weave(text, [CAT, noun("ngủ", "sleep")], ALL, seed="s").annotations
        assert chunks(text, notes) == [
            Chunk(0, "normal", "Con ", "Con ", ""),
            Chunk(1, "chem", "cat", "mèo", "cat"),
            Chunk(2, "explain", "con vật kêu meo meo", "", "cat"),
            Chunk(3, "normal", " ", " ", ""),
            Chunk(4, "chem", "sleep", "ngủ", "sleep"),
            Chunk(5, "normal", ".", ".", ""),
        ]
        assert chunks(text, reversed(notes)) == chunks(text, notes)
        assert chunks("", ()) == []

    @pytest.mark.parametrize("spans", [[(0, 2), (1, 3)], [(2, 2)], [(0, 4)], [(-1, 1)]])
    def test_refuse_annotations_that_do_not_fit(self, spans: list[tuple[int, int]]) -> None:
        with pytest.raises(ValueError, match="annotation"):
            chunks("mèo", [Annotation(start, end, "cat", "x", "") for start, end in spans])


SYLLABLES = ["mèo", "học", "sinh", "lan", "Lan", "An", "HỌC", "Straße", "tiếng", "Việt", "đá", "ý", "cat's", "I"]
GAPS = [" ", "  ", "\n", "\r\n", "\r\n\r\n", "\n \n", ". ", "… ", ": “", "” ", "-", "—", "@", ""]
SIGNS = ["\u0301", "\u200d", "👩‍💻", "🇻🇳"]
PROSE = st.lists(st.sampled_from(SYLLABLES + GAPS + SIGNS) | st.text(max_size=4), max_size=40).map("".join)
FORMS: st.SearchStrategy[Form] = st.sampled_from(["NFC", "NFD", "NFKD"])
SPELLINGS = st.lists(st.sampled_from(SYLLABLES), min_size=1, max_size=3).map(" ".join) | st.text(max_size=4)
TERM = st.builds(
    Term,
    *(st.sampled_from("abcdef"), SPELLINGS, st.sampled_from(["cat", "Monday", "ßeta", ""])),
    *(st.sampled_from(["noun", "verb"]), st.sampled_from(["", "nghĩa"])),
    st.lists(st.tuples(SPELLINGS, st.sampled_from(["", "mouse"])), max_size=2).map(tuple),
)
TERMS = st.lists(TERM, max_size=8)
TARGETS = st.builds(lambda n, v: [Target("noun", n), Target("verb", v)], *[st.decimals(0, 1, places=2)] * 2)
IDS = st.frozensets(st.sampled_from("abcdef"), max_size=2)


class TestAnyText:
    @settings(deadline=None)
    @given(text=PROSE, form=FORMS, terms=TERMS, targets=TARGETS, pins=IDS, bans=IDS, seed=st.text(max_size=3))
    def test_the_source_comes_back_and_the_weave_keeps_its_rules(
        self, text: str, form: Form, terms: list[Term], targets: list[Target], pins: Set[str], bans: Set[str], seed: str
    ) -> None:
        text = unicodedata.normalize(form, text)
        result = weave(text, terms, targets, seed=seed, pins=pins, bans=bans)
        parts = chunks(text, result.annotations)
        assert undo(parts) == text
        assert [part.position for part in parts] == list(range(len(parts)))
        assert not {note.vocabulary_id for note in result.annotations} & bans
        inside = {index for start, end in paragraphs(text) for index in range(start, end)}
        for note in result.annotations:
            assert {note.start, note.end - 1} <= inside
            assert not unicodedata.combining((text[note.end :] + " ")[0])
            assert not ((" " + text[: note.start])[-1].isalnum() and text[note.start].isalnum())
            assert not (text[note.end - 1].isalnum() and (text[note.end :] + " ")[0].isalnum())
        assert sum(share.woven for share in result.shares) == len(result.annotations)
        for share in result.shares:
            assert 0 <= share.woven <= share.occurrences
            if not pins and not bans:
                assert abs(share.woven - share.target * share.occurrences) <= Decimal("0.5")

    @settings(deadline=None)
    @given(text=PROSE, terms=TERMS, targets=TARGETS, pins=IDS, bans=IDS, data=st.data())
    def test_the_order_of_terms_and_targets_does_not_matter(
        self, text: str, terms: list[Term], targets: list[Target], pins: Set[str], bans: Set[str], data: st.DataObject
    ) -> None:
        shuffled = data.draw(st.permutations(terms))
        wanted = weave(text, terms, targets, seed="s", pins=pins, bans=bans)
        assert weave(text, shuffled, targets[::-1], seed="s", pins=pins, bans=bans) == wanted

    @settings(deadline=None)
    @given(text=PROSE, terms=TERMS)
    def test_the_unicode_form_does_not_matter(self, text: str, terms: list[Term]) -> None:
        composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
        wanted = unicodedata.normalize("NFC", woven(composed, *terms))
        assert unicodedata.normalize("NFC", woven(decomposed, *terms)) == wanted

    @settings(deadline=None)
    @given(text=st.text())
    def test_paragraphs_cover_all_but_white_space(self, text: str) -> None:
        spans = paragraphs(text)
        assert [word for start, end in spans for word in text[start:end].split()] == text.split()
        assert all(text[start:end] == text[start:end].strip() for start, end in spans)


class TestReading:
    def test_splits_paragraphs_at_blank_lines_only(self) -> None:
        text = " một\r\nhai\r\n \r\nba\n\n\nbốn \n"
        assert [text[start:end] for start, end in paragraphs(text)] == ["một\r\nhai", "ba", "bốn"]
        assert paragraphs(" \n\n ") == []

    def test_counts_words_not_signs(self) -> None:
        assert word_count("Mèo con — 3 ngày tuổi — rất “đáng yêu”! 🐈", "vi") == 8
        assert word_count(unicodedata.normalize("NFD", "tiếng Việt"), "vi") == 2
        assert word_count("well-known, don’t, 1,000", "vi") == 3
        assert word_count("", "vi") == 0

    @pytest.mark.parametrize(("words", "minutes"), [(0, 0), (1, 1), (200, 1), (201, 2), (1000, 5)])
    def test_rounds_reading_minutes_up(self, words: int, minutes: int) -> None:
        assert reading_minutes(words) == minutes
