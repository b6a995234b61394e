"""Levels of words on the scales that schools use, and the level of a text."""

from collections.abc import Mapping
from decimal import Decimal

# Each from the easiest to the hardest.
SCALES: tuple[tuple[str, ...], ...] = (
    ("A1", "A2", "B1", "B2", "C1", "C2"),
    ("N5", "N4", "N3", "N2", "N1"),
    tuple(f"HSK{number}" for number in range(1, 10)),
    tuple(f"TOPIK{number}" for number in range(1, 7)),
)
SCALE_OF = {level: scale for scale in SCALES for level in scale}
# Readers who know 95 % of the running words understand a text adequately (Laufer and Ravenhorst-Kalovski 2010,
# "Lexical threshold revisited", Reading in a Foreign Language 22).
ENOUGH = Decimal("0.95")


def spelled(level: str) -> str:
    """The level as it is stored, when only case and spaces differ from that: `hsk 3` is HSK3."""
    known = "".join(level.split()).upper()
    return known if known in SCALE_OF else level


def up_to(level: str) -> tuple[str, ...]:
    """The level and those below it."""
    scale = SCALE_OF[level]
    return scale[: scale.index(level) + 1]


def shares(occurrences: Mapping[str, int]) -> list[tuple[str, int, Decimal]]:
    """Of the scale with the most occurrences: each level that occurs, how often, and the share up to it."""
    scale = max(SCALES, key=lambda one: sum(occurrences.get(level, 0) for level in one))
    total = sum(occurrences.get(level, 0) for level in scale)
    found, so_far = [], 0
    for level in scale:
        if count := occurrences.get(level, 0):
            so_far += count
            found.append((level, count, Decimal(so_far) / total))
    return found


def text_level(occurrences: Mapping[str, int]) -> str:
    """The lowest level at which ENOUGH of the occurrences are at it or below it; empty without any."""
    return next((level for level, _, share in shares(occurrences) if share >= ENOUGH), "")
