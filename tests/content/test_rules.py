"""What may become of what: tables of decisions."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import FailedPrecondition
from services.content import rules
from storyloom.type.v1.errors_pb2 import ErrorReason

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def reason_of(caught: "pytest.ExceptionInfo[FailedPrecondition]") -> str:
    return ErrorReason.Name(caught.value.reason)


class TestStep:
    @pytest.mark.parametrize(
        ("resource", "verb", "status", "wanted"),
        [
            ("course", "publish", "draft", "published"),
            ("course", "archive", "published", "archived"),
            ("lesson", "publish", "draft", "published"),
            ("story", "archive", "published", "archived"),
        ],
    )
    def test_goes_one_step_on(self, resource: str, verb: str, status: str, wanted: str) -> None:
        assert rules.step(resource, verb, status) == wanted

    @pytest.mark.parametrize(
        ("resource", "verb", "status"),
        [
            ("course", "publish", "published"),
            ("course", "publish", "archived"),
            ("course", "archive", "draft"),
            ("course", "archive", "archived"),
            ("lesson", "publish", "published"),
            ("story", "archive", "draft"),
            ("story", "archive", "archived"),
        ],
    )
    def test_neither_repeats_nor_skips_nor_goes_back(self, resource: str, verb: str, status: str) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.step(resource, verb, status)
        assert reason_of(caught) == "WRONG_STATE"
        assert caught.value.metadata == {"state": status}


class TestCheckDeleted:
    def test_lets_what_is_deleted_come_back(self) -> None:
        rules.check_deleted("unit", NOW, "course", parent_deleted=False)

    @pytest.mark.parametrize(("deleted_at", "parent_deleted"), [(None, False), (None, True), (NOW, True)])
    def test_refuses_what_is_there_and_what_would_come_back_into_nothing(
        self, deleted_at: datetime | None, parent_deleted: bool
    ) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.check_deleted("unit", deleted_at, "course", parent_deleted=parent_deleted)
        assert reason_of(caught) == "WRONG_STATE"


class TestCheckPublishable:
    @pytest.mark.parametrize("status", ["draft", "published"])
    @pytest.mark.parametrize(("required", "approved"), [(False, None), (False, "other"), (True, "hash")])
    def test_takes_what_needs_no_approval_or_has_it(self, status: str, required: bool, approved: str | None) -> None:
        rules.check_publishable(status, required=required, content_hash="hash", approved_hash=approved)

    @pytest.mark.parametrize("approved", [None, "", "other"])
    def test_refuses_what_is_not_approved_as_it_is(self, approved: str | None) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.check_publishable("draft", required=True, content_hash="hash", approved_hash=approved)
        assert reason_of(caught) == "APPROVAL_REQUIRED"

    def test_refuses_what_is_archived_even_with_an_approval(self) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.check_publishable("archived", required=True, content_hash="hash", approved_hash="hash")
        assert reason_of(caught) == "WRONG_STATE"


Graph = dict[int, set[int]]
GRAPHS = st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 6), max_size=4), max_size=7)


def reaches(graph: Graph, start: int, goal: int, depth: int = 8) -> bool:
    return depth > 0 and any(one == goal or reaches(graph, one, goal, depth - 1) for one in graph.get(start, ()))


class TestHasCircle:
    @pytest.mark.parametrize(
        ("edges", "wanted"),
        [
            ([], False),
            ([("a", "a")], True),
            ([("a", "b"), ("a", "c")], False),
            ([("b", "a"), ("a", "b")], True),
            ([("b", "c"), ("c", "a"), ("a", "b")], True),
            ([("b", "c"), ("d", "a"), ("a", "b"), ("d", "c")], False),
        ],
    )
    def test_finds_the_way_back(self, edges: list[tuple[str, str]], wanted: bool) -> None:
        assert rules.has_circle(edges) is wanted

    @given(GRAPHS)
    def test_says_what_walking_every_path_says(self, graph: Graph) -> None:
        edges = [(one, before) for one, many in graph.items() for before in many]
        assert rules.has_circle(edges) is any(reaches(graph, one, one) for one in graph)


IDS = st.frozensets(st.integers(0, 9))


class TestMergePins:
    @given(IDS, IDS, IDS, IDS)
    def test_what_is_asked_for_now_beats_what_was(
        self, pinned: frozenset[int], banned: frozenset[int], pin: frozenset[int], ban: frozenset[int]
    ) -> None:
        ban, banned = ban - pin, banned - pinned
        pins, bans = rules.merge_pins(pinned, banned, pin, ban, replace=False)
        assert pin <= pins
        assert ban <= bans
        assert not pins & bans
        assert pins | bans == pinned | banned | pin | ban

    @given(IDS, IDS, IDS, IDS)
    def test_replacing_forgets_what_was(
        self, pinned: frozenset[int], banned: frozenset[int], pin: frozenset[int], ban: frozenset[int]
    ) -> None:
        assert rules.merge_pins(pinned, banned, pin, ban, replace=True) == (pin, ban)


class TestTermKey:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("Mặt  trời", "mặt trời"),
            ("mặt trời", "mặt trời"),
            ("STRASSE", "straße"),
            (" don’t ", "Don't"),
        ],
    )
    def test_is_the_same_for_spellings_that_are_woven_alike(self, one: str, other: str) -> None:
        assert rules.term_key(one) == rules.term_key(other)

    @pytest.mark.parametrize(("one", "other"), [("ma", "má"), ("mặt trời", "mặttrời")])
    def test_tells_accents_and_words_apart(self, one: str, other: str) -> None:
        assert rules.term_key(one) != rules.term_key(other)


class TestDecimalText:
    @pytest.mark.parametrize(
        ("value", "wanted"),
        [
            ("0", "0"),
            ("1", "1"),
            ("1.000000", "1"),
            ("0.40", "0.4"),
            ("0.3333333333", "0.333333"),
            ("0.0000005", "0"),
            ("0.0000015", "0.000002"),
            ("0.000001", "0.000001"),
        ],
    )
    def test_has_at_most_six_places_and_no_exponent(self, value: str, wanted: str) -> None:
        assert rules.decimal_text(Decimal(value)) == wanted
