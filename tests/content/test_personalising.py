"""Which words of a story are woven for one reader."""

from collections import Counter
from collections.abc import Mapping, Set
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from services.content.matching import Found, Term, find
from services.content.personalising import LARGEST_UNKNOWN_SHARE, Personal, State, most_frequent, personalise
from services.content.weaving import chunks, wanted
from tests.content.test_weaving import undo

LETTERS = "abcdefgh"
TERMS = [Term(letter, letter, letter.upper(), "noun" if letter < "e" else "verb", f"?{letter}") for letter in LETTERS]
LEARNING, REVIEWING = State("learning"), State("reviewing")
MASTERED, DUE = State("mastered"), State("reviewing", due=True)


NONE: Set[str] = frozenset()


def found(text: str, ratios: Mapping[str, Decimal], pins: Set[str] = NONE, bans: Set[str] = NONE) -> Found:
    return find(text, TERMS, language="en", ratios=ratios, pins=pins, bans=bans)


def personal(
    text: str,
    states: Mapping[str, State],
    ratio: str = "1",
    *,
    seed: str = "s",
    pins: Set[str] = NONE,
    bans: Set[str] = NONE,
) -> Personal:
    ratios = {"noun": Decimal(ratio), "verb": Decimal(ratio)}
    return personalise(found(text, ratios, pins, bans), ratios, states, seed=seed, pins=pins, bans=bans)


def woven(made: Personal) -> dict[str, int]:
    return dict(sorted(Counter(note.vocabulary_id for note in made.annotations).items()))


class TestPersonalise:
    # Forty words of the reader's own language, so that two unknown ones are 5 % of a text with two more.
    rest = " x" * 36

    def test_weaves_what_is_due_before_what_is_new_and_that_before_what_is_known(self) -> None:
        states = {"a": DUE, "b": State("new"), "c": LEARNING, "d": MASTERED}
        text = "d c b a" + self.rest
        assert [woven(personal(text, states, ratio)) for ratio in ("0.25", "0.5", "0.75", "1")] == [
            {"a": 1},
            {"a": 1, "b": 1},
            {"a": 1, "b": 1, "c": 1},
            {"a": 1, "b": 1, "c": 1, "d": 1},
        ]

    def test_takes_a_word_never_met_for_new(self) -> None:
        assert woven(personal("a b" + self.rest, {"b": REVIEWING}, "0.5")) == {"a": 1}

    def test_weaves_unknown_words_up_to_their_share_of_the_text(self) -> None:
        made = personal("a b c d" + self.rest, {})
        assert (len(made.annotations), made.unknown) == (2, Decimal(2) / 40)
        assert not personal("a b c d" + " x" * 15, {}).annotations

    def test_counts_the_words_of_the_text_that_a_phrase_replaces(self) -> None:
        phrase = [Term("p", "a b c", "P", "noun")]
        ratios = {"noun": Decimal(1)}
        for length, number in ((57, 1), (56, 0)):
            text = "a b c" + " x" * length
            made = personalise(find(text, phrase, language="en", ratios=ratios), ratios, {}, seed="s")
            assert len(made.annotations) == number

    def test_weaves_a_new_word_wherever_it_stands_before_it_takes_another(self) -> None:
        for seed in "abcdef":
            assert sorted(woven(personal("a b a b a b" + " x" * 54, {}, seed=seed)).values()) == [3]

    def test_weaves_every_word_that_is_due_once_before_any_twice(self) -> None:
        states = dict.fromkeys("abc", DUE)
        assert woven(personal("a b c a b c" + self.rest, states, "0.5")) == {"a": 1, "b": 1, "c": 1}

    def test_does_not_explain_what_is_mastered(self) -> None:
        made = personal("a b c" + " x" * 57, {"a": MASTERED, "b": REVIEWING})
        assert [note.explain for note in made.annotations] == ["", "?b", "?c"]

    def test_obeys_the_editor(self) -> None:
        states = {"a": DUE, "b": DUE}
        assert woven(personal("a b c d" + self.rest, states, "0.25", pins={"c"})) == {"c": 1}
        assert woven(personal("a b c d" + self.rest, states, "0.5", pins={"c"}, bans={"a", "c"})) == {"b": 1, "d": 1}
        assert woven(personal("a b c d e", {}, "0", pins={"c", "e"})) == {"c": 1, "e": 1}

    def test_weaves_what_is_pinned_beyond_the_share_but_then_nothing_else_unknown(self) -> None:
        made = personal("a b c", {"b": DUE}, pins={"a"})
        assert (woven(made), made.unknown) == ({"a": 1, "b": 1}, Decimal(1) / 3)

    def test_another_variant_is_another_choice_within_the_same_rules(self) -> None:
        text = "a b c d" * 1 + self.rest
        assert len({tuple(woven(personal(text, {}, seed=str(variant)))) for variant in range(30)}) > 3
        states = {"a": DUE}
        places = {personal("a a a" + self.rest, states, "0.3", seed=str(one)).annotations[0].start for one in range(30)}
        assert places == {0, 2, 4}

    def test_keeps_to_the_paragraphs_of_the_version(self) -> None:
        ratios = {"noun": Decimal(1)}
        frame = find("a\n\na", TERMS, language="en", ratios=ratios, scopes=[1])
        assert [note.start for note in personalise(frame, ratios, {"a": DUE}, seed="s").annotations] == [3]

    STATES = st.dictionaries(
        st.sampled_from(LETTERS),
        st.just(State())
        | st.builds(State, st.sampled_from(["learning", "reviewing", "mastered"]), st.booleans()),
    )
    TEXTS = st.lists(st.sampled_from([*LETTERS, "x", "x", "y", "\n\n", "A."]), max_size=120).map(" ".join)
    IDS = st.frozensets(st.sampled_from(LETTERS), max_size=2)

    @settings(deadline=None)
    @given(text=TEXTS, states=STATES, ratio=st.decimals(0, 1, places=2), pins=IDS, bans=IDS, seed=st.text(max_size=3))
    def test_keeps_its_rules(
        self, text: str, states: dict[str, State], ratio: Decimal, pins: Set[str], bans: Set[str], seed: str
    ) -> None:
        ratios = {"noun": ratio, "verb": ratio}
        frame = found(text, ratios, pins, bans)
        made = personal(text, states, str(ratio), seed=seed, pins=pins, bans=bans)
        assert made == personal(text, dict(reversed(states.items())), str(ratio), seed=seed, pins=pins, bans=bans)
        assert undo(chunks(text, made.annotations)) == text
        total = frame.tokens.words(0, len(frame.tokens.folded))
        chosen = Counter(note.vocabulary_id for note in made.annotations)
        new = {letter for letter in LETTERS if states.get(letter, State()).status == "new"}
        pinned = pins - bans
        assert made.unknown == (Decimal(sum(chosen[letter] for letter in new)) / total if total else 0)
        assert made.unknown <= LARGEST_UNKNOWN_SHARE or not set(chosen) & new - pinned
        assert not set(chosen) & bans
        for share in made.shares:
            own = [match for match in frame.matches if match.term.part_of_speech == share.part_of_speech]
            stands = Counter(match.term.id for match in own)
            fixed = sum(stands[letter] for letter in pinned)
            assert share.occurrences == len(own)
            assert share.woven == sum(chosen[letter] for letter in stands)
            assert fixed <= share.woven <= max(fixed, wanted(ratio, len(own)))
            if share.woven < wanted(ratio, len(own)):
                known = [letter for letter in stands if letter not in new | bans]
                assert all(chosen[letter] == stands[letter] for letter in known)
            due = [letter for letter in stands if states.get(letter, State()).due and letter not in bans]
            if any(chosen[letter] < stands[letter] for letter in due):
                assert all(not chosen[letter] or letter in pinned or letter in due for letter in stands)
        for note in made.annotations:
            if states.get(note.vocabulary_id, State()).status == "mastered":
                assert not note.explain


class TestMostFrequent:
    def test_are_the_pinned_then_those_that_stand_most_often(self) -> None:
        frame = found("b a b c c c", {})
        assert most_frequent(frame.matches, {"a"}, 2) == ["a", "c"]
        assert most_frequent(frame.matches, set(), 9) == ["c", "b", "a"]
