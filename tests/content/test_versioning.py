"""Versions before they are stored: what follows from text and words."""

import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from kit.ids import new_id
from services.content import versioning
from services.content.versioning import Wish
from services.content.weaving import Target, paragraphs, undo

PARAGRAPHS = st.text(alphabet=st.sampled_from("aă ộ.\n\r\t“”Nn1"), min_size=1, max_size=80)
TEXT = "Con mèo nhìn con chó. Con chó nhìn con mèo.\n\nCon mèo ngủ."


@dataclass(frozen=True)
class Word:
    id: UUID
    term: str
    translation: str
    part_of_speech: str = "noun"
    explanation: str = ""
    forms: tuple[str, ...] = ()


CAT, DOG = Word(new_id(), "con mèo", "cat", explanation="Cat: con mèo."), Word(new_id(), "con chó", "dog")


def wish(
    ratio: str = "1",
    *,
    seed: int | None = None,
    paragraphs: tuple[int, ...] = (),
    pinned: frozenset[UUID] = frozenset(),
    banned: frozenset[UUID] = frozenset(),
) -> Wish:
    targets = [Target("noun", Decimal(ratio))]
    return Wish(targets=targets, seed=seed, paragraphs=paragraphs, pinned=pinned, banned=banned)


class TestPlain:
    @given(PARAGRAPHS)
    def test_pieces_are_the_paragraphs_and_together_the_text(self, text: str) -> None:
        draft = versioning.plain(text)
        assert undo(draft.chunks) == text
        assert all(chunk.text for chunk in draft.chunks)
        assert len(draft.chunks) == max(len(paragraphs(text)), 1)

    def test_nothing_is_woven(self) -> None:
        draft = versioning.plain(TEXT)
        assert (draft.chem_ratio, draft.seed, draft.shares) == (0, None, ())
        assert draft.reading_minutes == 1


class TestWoven:
    def test_the_same_wish_gives_the_same_version(self) -> None:
        first = versioning.woven(TEXT, [CAT, DOG], wish("0.5"))
        again = versioning.woven(TEXT, [DOG, CAT], wish("0.5", seed=first.seed))
        assert first == again

    def test_undone_it_is_the_text(self) -> None:
        assert undo(versioning.woven(TEXT, [CAT, DOG], wish()).chunks) == TEXT

    def test_the_ratio_counts_the_words_that_were_replaced(self) -> None:
        draft = versioning.woven(TEXT, [CAT], wish())
        assert draft.chem_ratio == Decimal(6) / draft.word_count

    def test_keeps_to_the_paragraphs_asked_for(self) -> None:
        draft = versioning.woven(TEXT, [CAT, DOG], wish(paragraphs=(2, 9)))
        assert [one.start for one in draft.annotations] == [TEXT.rindex("Con mèo")]

    def test_paragraphs_past_the_end_are_not_all_paragraphs(self) -> None:
        assert not versioning.woven(TEXT, [CAT, DOG], wish(paragraphs=(9,))).annotations

    def test_pins_and_bans_stay_with_the_version(self) -> None:
        draft = versioning.woven(TEXT, [CAT, DOG], wish("0", pinned=frozenset({CAT.id}), banned=frozenset({DOG.id})))
        assert {one.vocabulary_id for one in draft.annotations} == {str(CAT.id)}
        assert (draft.pinned, draft.banned) == ([CAT.id], [DOG.id])

    def test_without_matches_the_chunks_are_the_paragraphs(self) -> None:
        draft = versioning.woven(TEXT, [], wish())
        assert draft.chunks == versioning.plain(TEXT).chunks


class TestContentHash:
    def test_is_of_the_canonical_json(self) -> None:
        draft = versioning.woven("Mèo\n", [Word(CAT.id, "mèo", "cat", explanation="“Cat”")], wish())
        canonical = f'{{"annotations":[[0,3,"{CAT.id}","Cat","“Cat”"]],"text":"Mèo\\n"}}'
        assert draft.content_hash == hashlib.sha256(canonical.encode()).hexdigest()

    @given(PARAGRAPHS, PARAGRAPHS)
    def test_differs_as_soon_as_the_text_does(self, one: str, other: str) -> None:
        assert (versioning.content_hash(one, ()) == versioning.content_hash(other, ())) == (one == other)

    def test_tells_a_weave_from_its_text(self) -> None:
        assert versioning.woven(TEXT, [CAT], wish()).content_hash != versioning.plain(TEXT).content_hash

    def test_annotations_can_be_stored_as_json(self) -> None:
        lists = [versioning.as_list(one) for one in versioning.woven(TEXT, [CAT], wish()).annotations]
        assert json.loads(json.dumps(lists)) == lists
