"""Versions before they are stored: what follows from text and words."""

import hashlib
import json
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from kit.ids import new_id
from services.content import versioning
from services.content.segmentation import paragraphs
from services.content.story_versions import make_version
from services.content.versioning import Wish
from services.content.weaving import Target
from tests.content.test_weaving import undo

PARAGRAPHS = st.text(alphabet=st.sampled_from("aă ộ.\n\r\t“”Nn1"), min_size=1, max_size=80)
TITLE = "Mèo và chó"
TEXT = "Con mèo nhìn con chó. Con chó nhìn con mèo.\n\nCon mèo ngủ."


class Word(NamedTuple):
    id: UUID
    term: str
    translation: str
    part_of_speech: str = "noun"
    level: str = ""
    explanation: str = ""
    forms: str = "[]"


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
        draft = versioning.plain(TITLE, text, "vi")
        assert undo(draft.chunks) == text
        assert all(chunk.text for chunk in draft.chunks)
        assert len(draft.chunks) == max(len(paragraphs(text)), 1)

    def test_nothing_is_woven(self) -> None:
        draft = versioning.plain(TITLE, TEXT, "vi")
        assert (draft.chem_ratio, draft.seed, draft.shares) == (0, None, ())
        assert draft.reading_minutes == 1


class TestWoven:
    def test_the_same_wish_gives_the_same_version(self) -> None:
        first = versioning.woven(TITLE, TEXT, "vi", [CAT, DOG], wish("0.5"))
        again = versioning.woven(TITLE, TEXT, "vi", [DOG, CAT], wish("0.5", seed=first.seed))
        assert first == again

    def test_undone_it_is_the_text(self) -> None:
        assert undo(versioning.woven(TITLE, TEXT, "vi", [CAT, DOG], wish()).chunks) == TEXT

    def test_the_ratio_counts_the_words_that_were_replaced(self) -> None:
        draft = versioning.woven(TITLE, TEXT, "vi", [CAT], wish())
        assert draft.chem_ratio == Decimal(6) / draft.word_count

    def test_keeps_to_the_paragraphs_asked_for(self) -> None:
        draft = versioning.woven(TITLE, TEXT, "vi", [CAT, DOG], wish(paragraphs=(2, 9)))
        assert [one.start for one in draft.annotations] == [TEXT.rindex("Con mèo")]

    def test_paragraphs_past_the_end_are_not_all_paragraphs(self) -> None:
        assert not versioning.woven(TITLE, TEXT, "vi", [CAT, DOG], wish(paragraphs=(9,))).annotations

    def test_pins_and_bans_stay_with_the_version(self) -> None:
        draft = versioning.woven(
            TITLE, TEXT, "vi", [CAT, DOG], wish("0", pinned=frozenset({CAT.id}), banned=frozenset({DOG.id}))
        )
        assert {one.vocabulary_id for one in draft.annotations} == {str(CAT.id)}
        assert (draft.pinned, draft.banned) == ([CAT.id], [DOG.id])

    def test_without_matches_the_chunks_are_the_paragraphs(self) -> None:
        draft = versioning.woven(TITLE, TEXT, "vi", [], wish())
        assert draft.chunks == versioning.plain(TITLE, TEXT, "vi").chunks


class TestRetitled:
    def test_is_the_same_weave_under_another_title(self) -> None:
        first = versioning.woven(
            TITLE, TEXT, "vi", [CAT, DOG], wish("0.5", seed=3, paragraphs=(1,), banned=frozenset({DOG.id}))
        )
        source = make_version(new_id(), 1, new_id(), first)
        again = versioning.remade("Khác", "vi", source, first.shares)
        assert again.content_hash != first.content_hash
        assert replace(again, title=TITLE, content_hash=first.content_hash, annotations=first.annotations) == first


class TestContentHash:
    def test_is_of_the_canonical_json(self) -> None:
        draft = versioning.woven(TITLE, "Mèo\n", "vi", [Word(CAT.id, "mèo", "cat", explanation="“Cat”")], wish())
        canonical = f'{{"annotations":[[0,3,"{CAT.id}","Cat","“Cat”"]],"text":"Mèo\\n","title":"{TITLE}"}}'
        assert draft.content_hash == hashlib.sha256(canonical.encode()).hexdigest()

    @given(PARAGRAPHS, PARAGRAPHS)
    def test_differs_as_soon_as_the_text_or_the_title_does(self, one: str, other: str) -> None:
        of_one, of_other = versioning.content_hash("", one, ()), versioning.content_hash("", other, ())
        assert (of_one == of_other) == (one == other)
        assert (of_one == versioning.content_hash(one, "", ())) == (one == "")

    def test_tells_a_weave_from_its_text(self) -> None:
        woven, plain = versioning.woven(TITLE, TEXT, "vi", [CAT], wish()), versioning.plain(TITLE, TEXT, "vi")
        assert woven.content_hash != plain.content_hash

    def test_annotations_can_be_stored_as_json(self) -> None:
        lists = [versioning.as_list(one) for one in versioning.woven(TITLE, TEXT, "vi", [CAT], wish()).annotations]
        assert json.loads(json.dumps(lists)) == lists
