"""What choices earn in the formats, which give a percentage to each, and in bodies, where the rule of the question may
say it instead."""

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from services.assessment.exchange.numbers import plain_number

WHOLE, NOTHING = Decimal(100), Decimal(0)
# Formats round thirds and sixths to so many decimals, or to fewer.
CLOSE = Decimal("0.001")
STAR = re.compile(r"(?<!\\)\*")


def shared_evenly(
    choices: Sequence[Mapping[str, Any]], shares: Sequence[Decimal], multiple: bool
) -> list[dict[str, Any]]:
    """The choices with what they earn: nothing is said where it is what the rule of the question says anyway."""
    right = [share > 0 if multiple else share >= WHOLE for share in shares]
    usual = rule(right, multiple)
    by_rule = all(abs(share - one) < CLOSE for share, one in zip(shares, usual, strict=True))
    if not multiple:
        by_rule = sum(right) == 1
    made = []
    for one, share, correct, said in zip(choices, shares, right, usual, strict=True):
        percent = plain_number(share)
        if by_rule and (multiple or abs(share - said) < CLOSE):
            percent = ""
        made.append(dict(one) | {"correct": correct, "percent": percent})
    return made


def wild(known: Sequence[dict[str, Any]]) -> bool:
    """Whether a star stands for anything in one of the texts, as Moodle has it; if in none, stars lose their
    backslashes."""
    if any(STAR.search(one["text"]) for one in known):
        return True
    for one in known:
        one["text"] = one["text"].replace("\\*", "*")
    return False


def rule(right: Sequence[bool], multiple: bool) -> list[Decimal]:
    """What each choice earns in percent when nothing is said: right ones share the points; of several that may be
    picked, wrong ones share what is taken away."""
    count = sum(right)
    if not multiple:
        return [WHOLE if one else NOTHING for one in right]
    return [WHOLE / count if one else -WHOLE / (len(right) - count) for one in right]


def percents(body: Mapping[str, Any]) -> list[Decimal]:
    """What each choice of a body earns, in percent of at most five decimals."""
    choices = body["choices"]
    usual = rule([one["correct"] for one in choices], body["multiple"])
    return [
        Decimal(one["percent"]) if one["percent"] else said.quantize(Decimal("1.00000"), ROUND_HALF_EVEN)
        for one, said in zip(choices, usual, strict=True)
    ]
