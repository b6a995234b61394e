"""What it costs to weave a story of two thousand words, and ones ten and a hundred times as long."""

import random
import time
from decimal import Decimal
from itertools import accumulate, product

from benchmarks.report import Weaving
from services.content.matching import Term
from services.content.weaving import Target, weave

NAME = "weaving"
VOCABULARY, LEXICON = 5_000, 8_000
# Words of a text, and how often it is woven; the least time counts, as nothing makes a weave faster than it is.
SIZES = {2_000: 9, 20_000: 3, 200_000: 1}
SECONDS_NEEDED = 15.0
SYLLABLES = [
    "".join(parts)
    for parts in product(
        ["b", "c", "ch", "d", "đ", "gi", "h", "kh", "l", "m", "n", "ng", "nh", "ph", "s", "t", "th", "tr", "v", "x"],
        ["a", "à", "ã", "ạ", "ê", "ế", "ô", "ồ", "ươ", "ướ", "i", "ì", "ứ"],
        ["", "n", "ng", "t", "m"],
    )
]
PARTS = ("noun", "verb", "adjective")


def measure(echo: float) -> Weaving:
    """Milliseconds of processor time by the words of the text. `echo` tells how fast the machine was."""
    words = lexicon()
    terms, targets = vocabulary(words), [Target(part, Decimal("0.3")) for part in PARTS]
    found = {}
    for size, times in SIZES.items():
        text = story(words, size)
        spent = []
        for _ in range(times):
            began = time.process_time()
            weave(text, terms, targets, language="vi", seed="1")
            spent.append(time.process_time() - began)
        found[size] = min(spent) * 1000
    return Weaving(found, echo)


def lexicon() -> list[str]:
    """Words of one to three syllables, the most frequent first, as short ones tend to be."""
    dice = random.Random(1)
    words: dict[str, None] = {}
    while len(words) < LEXICON:
        most = 1 + (len(words) > 300) + (len(words) > 3_000)
        words[" ".join(dice.choices(SYLLABLES, k=dice.randint(1, most)))] = None
    return list(words)


def vocabulary(words: list[str]) -> list[Term]:
    """The most frequent words; every third has another form."""
    return [
        Term(f"{rank:036}", word, f"word{rank}", PARTS[rank % 3], f"word{rank}: {word}", forms=_forms(rank, word))
        for rank, word in enumerate(words[:VOCABULARY])
    ]


def _forms(rank: int, word: str) -> tuple[tuple[str, str], ...]:
    return ((f"những {word}", f"word{rank}s"),) if rank % 3 == 0 else ()


def story(words: list[str], size: int) -> str:
    """Prose whose words are as frequent as Zipf's law says, in sentences and paragraphs, with names."""
    dice = random.Random(2)
    weights = list(accumulate(1 / (rank + 2.7) for rank in range(len(words))))
    sentences, written = [], 0
    while written < size:
        said = dice.choices(words, cum_weights=weights, k=dice.randint(5, 12))
        if dice.random() < 0.2:
            said.insert(2, "Nguyễn Văn An")
        written += sum(word.count(" ") + 1 for word in said)
        sentence = " ".join(said)
        sentences.append(f"{sentence[0].upper()}{sentence[1:]}{dice.choice(['.', '.', '!', '?'])}")
    return "".join(one + ("\n\n" if number % 8 == 7 else " ") for number, one in enumerate(sentences)).strip()
