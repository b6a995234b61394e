"""Where a text is cut into words, which of them are names and which open a sentence, in five languages."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content import segmentation
from services.content.segmentation import fold, fold_all, names, sentence_starts, tokenize, word_count

LANGUAGES = ["vi", "en", "fr", "es", "ja", "de", ""]
SPACED = ["l'eau", "qu’il", "dit-il", "Ý", "n\u0303", "¿", "\u0345", "αι", " ", "\r\n\n"]
JAPANESE = ["猫", "背", "が\u3099", "ガ", "は", "東京", "ー"]
PROSE = st.text() | st.lists(st.sampled_from(SPACED + JAPANESE), max_size=30).map("".join)


def cut(text: str, language: str) -> list[str]:
    tokens = tokenize(text, language)
    return [text[slice(*tokens.span(index, index + 1))] for index in range(len(tokens.folded))]


def words(text: str, language: str) -> str:
    tokens = tokenize(text, language)
    pieces = zip(cut(text, language), tokens.shapes, strict=True)
    return " ".join(piece for piece, shape in pieces if shape not in " \n.")


def named(text: str, language: str) -> list[str]:
    tokens = tokenize(text, language)
    return [text[slice(*tokens.span(*span))] for span in names(tokens, sentence_starts(tokens))]


def openings(text: str, language: str) -> list[str]:
    tokens = tokenize(text, language)
    return [text[slice(*tokens.span(index, index + 1))] for index in sorted(sentence_starts(tokens))]


class TestWords:
    @pytest.mark.parametrize(
        ("language", "text", "wanted"),
        [
            ("vi", "Con mèo, 3 ngày tuổi – rất “đáng yêu”!", "Con mèo 3 ngày tuổi rất đáng yêu"),
            ("en", "The dog's tail didn't wag; a well-known 1,000.", "The dog's tail didn't wag a well-known 1,000"),
            ("fr", "L’eau d'une rivière qu'il aime", "L’ eau d' une rivière qu' il aime"),
            ("fr", "Aujourd'hui, c'est presqu'île et quelqu'un", "Aujourd'hui c' est presqu'île et quelqu'un"),
            ("fr", "« Viens-tu ? », dit-il. Donne-le-moi, va-t-en !", "Viens tu dit il Donne le moi va t en"),
            ("fr", "l'arc-en-ciel du grand-père", "l' arc-en-ciel du grand-père"),
            ("fr-CA", "jusqu'à l'été", "jusqu' à l' été"),
            ("es", "¿Dónde está el niño? ¡Qué pingüino!", "Dónde está el niño Qué pingüino"),
            ("ja", "田中さんは猫背の猫に魚を食べさせた。", "田中 さん は 猫背 の 猫 に 魚 を 食べ させ た"),
            ("ja", "「ＯＫ！」と3匹の犬が言った。", "ＯＫ と 3 匹 の 犬 が 言っ た"),
        ],
    )
    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_are_those_of_the_language(self, language: str, text: str, wanted: str, form: str) -> None:
        text = unicodedata.normalize(form, text)  # type: ignore[arg-type]
        assert unicodedata.normalize("NFC", words(text, language)) == wanted
        assert word_count(text, language) == len(wanted.split())

    def test_of_french_elision_are_only_cut_in_french(self) -> None:
        assert words("l'eau", "en") == "l'eau"

    @settings(deadline=None)
    @given(text=PROSE, language=st.sampled_from(LANGUAGES))
    def test_cover_the_text_and_end_inside_no_combining_sequence(self, text: str, language: str) -> None:
        pieces = cut(text, language)
        assert "".join(pieces) == text
        assert all(pieces)
        tokens = tokenize(text, language)
        assert len(tokens.shapes) == len(tokens.folded) == len(pieces)
        for piece, before in zip(pieces[1:], pieces, strict=False):
            assert before.isspace() or not unicodedata.combining(piece[0])

    @given(text=PROSE)
    def test_of_japanese_do_not_depend_on_the_unicode_form(self, text: str) -> None:
        composed, decomposed = (cut(unicodedata.normalize(form, text), "ja") for form in ("NFC", "NFD"))
        assert composed == [unicodedata.normalize("NFC", piece) for piece in decomposed]

    def test_of_long_japanese_are_all_there(self) -> None:
        text = "すもももももももものうち" * 2000
        assert word_count(text, "ja") == 7 * 2000

    def test_of_other_languages_load_no_dictionary(self) -> None:
        program = (
            "import sys; from services.content.segmentation import tokenize; tokenize('猫が', 'vi'); "
            "print('sudachipy' in sys.modules); tokenize('猫が', 'ja'); print('sudachipy' in sys.modules)"
        )
        root = Path(__file__).parents[2]
        assert subprocess.check_output([sys.executable, "-c", program], cwd=root).split() == [b"False", b"True"]


class TestNames:
    @pytest.mark.parametrize(
        ("language", "text", "wanted"),
        [
            ("vi", "Hôm nay bạn Nguyễn Văn An đến Hà Nội.", ["Nguyễn Văn An", "Hà Nội"]),
            ("en", "They saw Mr. Smith and Ann at the Bank of England.", ["Mr", "Smith", "Ann", "Bank of England"]),
            ("fr", "Hier, Jean-Pierre d’Artagnan vit l’Amérique.", ["Jean-Pierre", "Artagnan", "Amérique"]),
            ("es", "¿Conoces a José Ortega y Gasset? ¡No, Ana!", ["José Ortega y Gasset", "Ana"]),
            ("es", "—¿Dónde está María? —preguntó el niño.", ["María"]),
            ("ja", "田中さんと山田太郎は東京へ行った。", ["田中", "山田太郎", "東京"]),
            ("ja", "森さん、川様、お爺さん、花屋さん、お母さん、森の川。", ["森", "川", "花屋"]),
        ],
    )
    def test_are_found(self, language: str, text: str, wanted: list[str]) -> None:
        assert named(text, language) == wanted


class TestSentences:
    @pytest.mark.parametrize(
        ("language", "text", "wanted"),
        [
            ("vi", "“Đi đâu?” Nam hỏi. Mẹ cười…\n\nTối", ["Đi", "Mẹ", "Tối"]),
            ("es", "—¿Vienes? ¡Sí! ¿Y tú?", ["Vienes", "Sí", "Y"]),
            ("fr", "Elle dit : « Viens ! » Il vint.", ["Elle", "Viens", "Il"]),
            ("ja", "「はい。」犬は走った。猫", ["はい", "犬", "猫"]),
        ],
    )
    def test_open_with(self, language: str, text: str, wanted: list[str]) -> None:
        assert openings(text, language) == wanted


class TestFold:
    @given(text=PROSE)
    def test_is_the_canonical_caseless_form(self, text: str) -> None:
        wanted = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
        for sign, plain in segmentation._ALIKE:
            wanted = wanted.replace(sign, plain)
        assert fold(text) == wanted

    @given(texts=st.lists(st.text(alphabet="aÁ\u0301\u0345ᾳ \n\0'’x")))
    def test_of_many_is_that_of_each(self, texts: list[str]) -> None:
        assert fold_all(texts) == [fold(" ".join(text.split())) for text in texts]
