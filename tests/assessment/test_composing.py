"""What a quiz is made of, and what its attempts ask."""

from collections import Counter
from decimal import Decimal
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import FailedPrecondition, InvalidArgument
from services.assessment.composing import Composed, Pick, Slot, asked, check_items, shuffled, total

SEEDS = [UUID(int=n) for n in range(300)]
ONE = Decimal(1)
IDS = [UUID(int=n) for n in range(1, 1001)]


def picks(*numbers: int) -> list[Pick]:
    return [Pick(UUID(int=n), UUID(int=n + 1000), 1, ONE) for n in numbers]


def numbers(found: list[Pick]) -> list[int]:
    return [pick.question_id.int for pick in found]


class TestShuffled:
    @pytest.mark.slow
    @given(seed=st.uuids(), things=st.lists(st.text(), unique=True))
    def test_keeps_everything_and_the_order_of_the_seed(self, seed: UUID, things: list[str]) -> None:
        order = shuffled(seed, things, key=str)
        assert sorted(order) == sorted(things)
        assert shuffled(seed, reversed(things), key=str) == order

    def test_is_not_the_same_for_every_seed(self) -> None:
        assert len({tuple(shuffled(seed, "abcdef", key=str)) for seed in SEEDS[:20]}) > 15


class TestAsked:
    def test_is_the_questions_in_the_order_of_the_quiz_unless_it_shuffles(self) -> None:
        slots = [Slot(1, picks(n)) for n in (3, 1, 2, 5, 4)]
        assert all(numbers(asked(seed, slots, shuffle=False)) == [3, 1, 2, 5, 4] for seed in SEEDS[:9])
        orders = {tuple(numbers(asked(seed, slots, shuffle=True))) for seed in SEEDS[:99]}
        assert orders <= set(permutations(range(1, 6)))
        assert len(orders) > 50

    def test_draws_where_the_draw_stands_and_the_same_for_the_same_attempt(self) -> None:
        slots = [Slot(1, picks(1)), Slot(2, picks(10, 11, 12, 13)), Slot(1, picks(2))]
        for seed in SEEDS[:20]:
            found = asked(seed, slots, shuffle=False)
            first, *drawn, last = numbers(found)
            assert (first, last, len({*drawn} & {10, 11, 12, 13})) == (1, 2, 2)
            again = [slots[0], Slot(2, slots[1].picks[::-1]), slots[2]]
            assert asked(seed, again, shuffle=False) == found

    def test_draws_each_question_as_often_as_any_other(self) -> None:
        counts: Counter[int] = Counter()
        for seed in SEEDS:
            counts.update(numbers(asked(seed, [Slot(2, picks(*range(1, 7)))], shuffle=False)))
        assert all(70 <= counts[n] <= 130 for n in range(1, 7))

    def test_lets_draws_that_want_the_same_questions_give_way(self) -> None:
        slots = [Slot(2, picks(1, 2, 3)), Slot(1, picks(1)), Slot(1, picks(1, 2))]
        for seed in SEEDS[:50]:
            with pytest.raises(FailedPrecondition):
                asked(seed, [*slots, Slot(1, picks(2, 3))], shuffle=False)
        fitting = [Slot(1, picks(1, 2, 3)), Slot(1, picks(1)), Slot(1, picks(1, 2))]
        assert all(numbers(asked(seed, fitting, shuffle=False)) == [3, 1, 2] for seed in SEEDS[:50])

    @given(
        st.lists(st.tuples(st.integers(1, 3), st.sets(st.integers(1, 6), min_size=1)), max_size=4),
        st.lists(st.uuids(), min_size=2, max_size=4),
    )
    def test_finds_enough_whenever_there_are_enough(
        self, draws: list[tuple[int, set[int]]], seeds: list[UUID]
    ) -> None:
        slots = [Slot(count, picks(*found)) for count, found in draws]
        for seed in seeds:
            if not possible([found for count, found in draws for _ in range(count)]):
                with pytest.raises(FailedPrecondition):
                    asked(seed, slots, shuffle=False)
                continue
            drawn = numbers(asked(seed, slots, shuffle=False))
            assert len(set(drawn)) == len(drawn) == sum(count for count, _ in draws)
            for count, found in draws:
                assert set(drawn[:count]) <= found
                del drawn[:count]


def possible(wanted: list[set[int]]) -> bool:
    """Whether each can have one of its own, by trying every way."""
    if not wanted:
        return True
    return any(possible([others - {one} for others in wanted[1:]]) for one in wanted[0])


def fields_of(items: list[Composed]) -> list[str]:
    with pytest.raises(InvalidArgument) as caught:
        check_items(items)
    bad = next(one for one in caught.value.details if isinstance(one, error_details_pb2.BadRequest))
    return [one.field for one in bad.field_violations]


def draw(count: int, ids: list[UUID] = IDS[:0], **fields: Any) -> Composed:
    return Composed(ONE, tuple(ids), count, drawn=True, **fields)


class TestCheckItems:
    @pytest.mark.parametrize(
        ("items", "field"),
        [
            ([Composed(ONE, (IDS[0],)), Composed(ONE, (IDS[0],))], "quiz.items"),
            ([Composed(ONE, (IDS[0],)), draw(1, IDS[:3])], "quiz.items"),
            ([draw(100), draw(101)], "quiz.items"),
            ([draw(1) for _ in range(21)], "quiz.items"),
            ([draw(3, IDS[:2])], "quiz.items[0].draw.question_ids"),
            ([Composed(ONE, (IDS[5],)), draw(1, IDS[:2], tags=("a",))], "quiz.items[1].draw"),
            ([draw(1, IDS[:2], type="numeric")], "quiz.items[0].draw"),
        ],
    )
    def test_names_what_no_attempt_could_have(self, items: list[Composed], field: str) -> None:
        assert fields_of(items) == [field]

    def test_bounds_all_lists_together(self) -> None:
        lists = [draw(1, [uuid4() for _ in range(200)]) for _ in range(5)]
        check_items(lists)
        assert fields_of([*lists, Composed(ONE, (IDS[0],))]) == ["quiz.items"]


class TestTotal:
    def test_is_of_an_attempt_and_exact(self) -> None:
        items = [Composed(Decimal("0.1"), (IDS[0],)), Composed(Decimal("0.2"), (), 3, ("a",), drawn=True)]
        assert total(items) == (4, Decimal("0.7"))
        assert total([]) == (0, 0)
