"""Questions made of a woven story, without a service."""

from collections.abc import Sequence
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment import bodies
from services.assessment.story_questions import BLANK, Kind, Made, Piece, Word, gaps_of, make_questions, sentences

NOUN, VERB = 1, 2
WORDS = {
    one.id: one
    for one in (
        Word("dog", "chó", "dog", NOUN, "A dog barks."),
        Word("cat", "mèo", "cat", NOUN),
        Word("house", "nhà", "house", NOUN),
        Word("river", "sông", "river", NOUN),
        Word("eat", "ăn", "eats", VERB),
    )
}
STORY = (
    Piece("Sáng nay con "),
    Piece("dog", "chó", "dog"),
    Piece(" của Lan chạy ra khỏi "),
    Piece("house", "nhà", "house"),
    Piece(". Nó gặp một con "),
    Piece("cat", "mèo", "cat"),
    Piece("!\n\nBên bờ "),
    Piece("river", "sông", "river"),
    Piece(", con dog và con "),
    Piece("dog", "chó", "dog"),
    Piece(" "),
    Piece("eats", "ăn", "eat"),
    Piece(" cơm. Hết."),
)


def made(
    kinds: Sequence[Kind], *, story: Sequence[Piece] = STORY, most: int = 10, seed: int = 1, language: str = "vi"
) -> list[Made]:
    numbers = count(1)
    return make_questions(
        story, WORDS, kinds=kinds, most=most, seed=seed, language=language, new_id=lambda: UUID(int=next(numbers))
    )


class TestSentences:
    def test_end_with_their_signs_and_with_lines(self) -> None:
        found = ["".join(piece.text for piece in one).strip() for one in sentences(STORY)]
        assert [one for one in found if one] == [
            "Sáng nay con dog của Lan chạy ra khỏi house.",
            "Nó gặp một con cat!",
            "Bên bờ river, con dog và con dog eats cơm.",
            "Hết.",
        ]

    def test_end_in_japanese_without_white_space(self) -> None:
        found = ["".join(piece.text for piece in one) for one in sentences([Piece("猫がいる。犬もいる。")])]
        assert found == ["猫がいる。", "犬もいる。"]

    @given(st.lists(st.builds(Piece, st.text(alphabet="ab. \n!?。”", max_size=20)), max_size=6))
    def test_lose_nothing_of_the_story(self, story: list[Piece]) -> None:
        assert "".join(p.text for one in sentences(story) for p in one) == "".join(p.text for p in story)


class TestGaps:
    def test_are_where_the_word_stands_once_in_its_sentence(self) -> None:
        gaps = gaps_of(STORY)
        assert [(one.before, one.after) for one in gaps["dog"]] == [
            ("Sáng nay con ", " của Lan chạy ra khỏi house.")
        ]
        assert list(gaps) == ["dog", "house", "cat", "river", "eat"]

    def test_are_not_made_where_underscores_would_be_taken_for_one(self) -> None:
        assert gaps_of([Piece("____ con "), Piece("dog", "chó", "dog"), Piece(".")]) == {"dog": []}


class TestCloze:
    def test_has_a_gap_for_the_word_and_says_what_it_stands_for(self) -> None:
        (one,) = made([Kind.CLOZE], story=STORY[:5])[:1]
        assert one.body["prompt"] == f"Sáng nay con {BLANK} (chó) của Lan chạy ra khỏi house."
        assert [text["text"] for text in one.body["blanks"][0]["accepted"]] == ["dog"]
        assert one.body["explanation"] == "A dog barks."

    def test_does_not_show_its_answer(self) -> None:
        for one in made([Kind.CLOZE]):
            answer = one.body["blanks"][0]["accepted"][0]["text"]
            assert answer.casefold() not in one.body["prompt"].casefold()


class TestChoice:
    def test_is_among_other_words_of_its_part_of_speech(self) -> None:
        found = made([Kind.CHOICE])
        assert {one.words[0] for one in found} == {"dog", "cat", "house", "river"}
        for one in found:
            texts = {choice["text"]: choice["correct"] for choice in one.body["choices"]}
            assert set(texts) == {"chó", "mèo", "nhà", "sông"}
            assert [text for text, right in texts.items() if right] == [WORDS[one.words[0]].term]

    def test_is_asked_in_the_language_of_the_story(self) -> None:
        assert {one.body["prompt"] for one in made([Kind.CHOICE], language="vi-VN")} >= {"“dog” nghĩa là gì?"}
        assert {one.body["prompt"] for one in made([Kind.CHOICE], language="sv")} >= {"What does “dog” mean?"}


class TestMatching:
    def test_asks_about_each_word_once(self) -> None:
        (one,) = made([Kind.MATCHING])
        assert sorted(one.words) == sorted(WORDS)
        stems = {stem["id"]: stem["text"] for stem in one.body["stems"]}
        targets = {target["id"]: target["text"] for target in one.body["targets"]}
        meanings = {word.translation: word.term for word in WORDS.values()}
        assert {stems[stem]: targets[target] for stem, target in one.body["pairs"]} == meanings

    def test_is_not_made_of_two_words(self) -> None:
        assert made([Kind.MATCHING], story=STORY[:4]) == []


class TestMakeQuestions:
    @pytest.mark.parametrize("seed", range(5))
    def test_is_the_same_for_the_same_seed(self, seed: int) -> None:
        assert made(list(Kind), seed=seed) == made(list(Kind), seed=seed)

    def test_is_another_for_another_seed(self) -> None:
        assert len({str(made([Kind.TRANSLATION], most=2, seed=seed)) for seed in range(10)}) > 1

    def test_asks_about_no_word_twice_and_keeps_the_order_of_the_story(self) -> None:
        for seed in range(20):
            found = made([Kind.CLOZE, Kind.CHOICE, Kind.TRANSLATION], seed=seed)
            asked = [word for one in found for word in one.words]
            assert asked == sorted(asked, key=list(gaps_of(STORY)).index)
            assert len(set(asked)) == len(asked)

    def test_makes_no_more_than_is_asked_for(self) -> None:
        assert len(made([Kind.TRANSLATION], most=2)) == 2

    def test_gives_the_turn_of_a_kind_that_does_not_fit_to_the_next(self) -> None:
        found = made([Kind.CHOICE, Kind.TRANSLATION], story=STORY[11:])
        assert [(one.kind, one.words) for one in found] == [(Kind.TRANSLATION, ("eat",))]

    def test_makes_nothing_of_a_story_without_woven_words(self) -> None:
        assert made(list(Kind), story=[Piece("Không có gì.")]) == []

    @pytest.mark.parametrize("kind", list(Kind))
    def test_makes_questions_that_the_bank_takes(self, kind: Kind) -> None:
        found = made([kind])
        assert found
        for one in found:
            bodies.check_body(one.body)
