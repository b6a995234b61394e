"""How much of a text a vocabulary covers."""

from hypothesis import given
from hypothesis import strategies as st

from services.content.covering import Cover, cover, occurrences
from services.content.matching import Term

TEXT = "Lan nhìn dòng sông. Dòng sông rộng, con sông của Lan dài 12 km: www.song.vn/dai rộng!"
LETTERS = st.text("aă ộAn.\n", max_size=60)


def term(spelling: str, *forms: str) -> Term:
    return Term(spelling, spelling, "x", "noun", forms=tuple((form, "") for form in forms))


def covered(text: str, *terms: Term) -> Cover:
    return cover(occurrences(text, terms, "vi"))


class TestCover:
    def test_counts_words_but_for_names_addresses_and_numbers(self) -> None:
        found = covered(TEXT)
        assert (found.running, found.covered_running, found.distinct, found.covered_distinct) == (12, 0, 8, 0)
        assert found.missing[:3] == [("sông", 3), ("dòng", 2), ("rộng", 2)]
        assert not {"Lan", "12", "www"} & {word for word, _ in found.missing}

    def test_covers_every_word_of_a_phrase_and_of_its_forms(self) -> None:
        found = covered(TEXT, term("dòng sông", "con sông"), term("Lan"))
        # Names are words where the vocabulary has them.
        assert (found.running, found.covered_running) == (14, 8)

    def test_a_word_is_covered_only_if_it_is_so_everywhere(self) -> None:
        found = covered(TEXT, term("dòng sông"))
        assert (found.covered_running, found.distinct, found.covered_distinct) == (4, 8, 1)
        assert found.missing[:2] == [("rộng", 2), ("nhìn", 1)]
        assert ("sông", 1) in found.missing

    def test_an_empty_text_has_nothing_to_cover(self) -> None:
        found = covered("  \n")
        assert (found.running_share, found.distinct_share, found.missing) == (0, 0, [])

    @given(LETTERS, st.lists(st.sampled_from(["a", "ă", "aă", "a ộ", "n"]), unique=True))
    def test_adds_up_whatever_the_text(self, text: str, spellings: list[str]) -> None:
        found = covered(text, *map(term, spellings))
        assert found.covered_running + sum(count for _, count in found.missing) == found.running
        assert found.covered_distinct + len(found.missing) == found.distinct
        assert 0 <= found.running_share <= 1
        assert found.covered_running >= covered(text).covered_running
