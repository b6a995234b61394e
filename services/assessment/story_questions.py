"""Questions made of a woven story: gaps where its words stand, their meanings, and words to match with meanings."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import cycle
from typing import Any
from uuid import UUID

from services.assessment.bodies import FILL_BLANK, MATCHING, MULTIPLE_CHOICE, SHORT_ANSWER, new_body

# A sentence ends after these signs and what closes a quotation, where white space follows; after the full-width ones
# anywhere; and with its line.
END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])[”’」』）]*|\n+")
GAP = re.compile("_{3,}")
BLANK = "___"
LONGEST_SENTENCE = 1000
OTHER_CHOICES = 3
FEWEST_PAIRS, MOST_PAIRS = 3, 6
# In the language of the story, which is the learners' own; English for those that are not here.
MEANING = {
    "en": "What does “{}” mean?",
    "es": "¿Qué significa «{}»?",
    "fr": "Que veut dire « {} » ?",
    "ja": "「{}」の意味は何ですか。",
    "vi": "“{}” nghĩa là gì?",
}
MATCH = {
    "en": "Which belong together?",
    "es": "¿Cuáles van juntas?",
    "fr": "Lesquels vont ensemble ?",
    "ja": "合うものを選んでください。",
    "vi": "Nối các từ có cùng nghĩa.",
}
NewId = Callable[[], UUID]
Body = dict[str, Any]


class Kind(StrEnum):
    """What kind of question is made of a word."""

    CLOZE = "cloze"
    CHOICE = "choice"
    TRANSLATION = "translation"
    MATCHING = "matching"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the woven text as the reader sees it; `word` is the id of the word woven in there, `source` what it
    stands for."""

    text: str
    source: str = ""
    word: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A word that the story may have woven in: `term` in the story's language, `translation` in the one learned."""

    id: str
    term: str
    translation: str
    part_of_speech: int = 0
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """A sentence with one woven word taken out: what stands before and after it, what it was and what it stands for."""

    before: str
    after: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Made:
    """A question made: its body, and the words it asks about."""

    kind: Kind
    body: Body
    words: tuple[str, ...]


def make_questions(
    pieces: Sequence[Piece],
    words: Mapping[str, Word],
    *,
    kinds: Sequence[Kind],
    most: int,
    seed: int,
    language: str,
    new_id: NewId,
) -> list[Made]:
    """At most `most` questions of these kinds in turn, each about other words, in the order of the story.

    Which words are asked for, and among which others, depends on the story, the words and the seed alone; `new_id`
    makes the ids of choices, which must tell nothing. A kind that a word does not lend itself to (a gap in no sentence
    where the word stands only once, too few other words of its part of speech) leaves its turn to the next.
    """
    gaps = gaps_of(pieces)
    order = {one: place for place, one in enumerate(gaps)}
    left = sorted((one for one in gaps if one in words), key=lambda one: _draw(seed, one))
    maker = _Maker(words, gaps, order, seed, language, new_id)
    made: list[Made] = []
    refused = 0
    for kind in cycle(kinds):
        if len(made) >= most or not left or refused == len(kinds):
            break
        one = maker.make(kind, left)
        refused = 0 if one else refused + 1
        if one:
            made.append(one)
            left = [word for word in left if word not in one.words]
    return sorted(made, key=lambda one: min(order[word] for word in one.words))


def gaps_of(pieces: Sequence[Piece]) -> dict[str, list[Gap]]:
    """For each word woven in, in the order of the story, the sentences in which it stands exactly once."""
    found: dict[str, list[Gap]] = {}
    for sentence in sentences(pieces):
        shown = "".join(one.text for one in sentence).casefold()
        for place, piece in enumerate(sentence):
            if not piece.word:
                continue
            gaps = found.setdefault(piece.word, [])
            if len(shown) <= LONGEST_SENTENCE and shown.count(piece.text.casefold()) == 1 and not GAP.search(shown):
                before = "".join(one.text for one in sentence[:place]).lstrip()
                after = "".join(one.text for one in sentence[place + 1 :]).rstrip()
                gaps.append(Gap(before, after, piece.text, piece.source))
    return found


def sentences(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces, sentence by sentence: plain text is cut where one ends, a woven word never."""
    sentence: list[Piece] = []
    for piece in pieces:
        if piece.word:
            sentence.append(piece)
            continue
        start = 0
        for end in END.finditer(piece.text):
            yield [*sentence, Piece(piece.text[start : end.end()])]
            sentence, start = [], end.end()
        if rest := piece.text[start:]:
            sentence.append(Piece(rest))
    if sentence:
        yield sentence


@dataclass(frozen=True, slots=True)
class _Maker:
    words: Mapping[str, Word]
    gaps: Mapping[str, list[Gap]]
    order: Mapping[str, int]
    seed: int
    language: str
    new_id: NewId

    def make(self, kind: Kind, left: Sequence[str]) -> Made | None:
        """A question of the kind about the first of the words left that lends itself to it."""
        if kind is Kind.MATCHING:
            return self._matching(left)
        make = {Kind.CLOZE: self._cloze, Kind.CHOICE: self._choice, Kind.TRANSLATION: self._translation}[kind]
        bodies = ((one, make(self.words[one])) for one in left)
        return next((Made(kind, body, (one,)) for one, body in bodies if body), None)

    def _cloze(self, word: Word) -> Body | None:
        if not self.gaps[word.id]:
            return None
        gap = min(self.gaps[word.id], key=lambda one: _draw(self.seed, one.before + one.after))
        hint = f"{BLANK} ({gap.source})" if gap.source else BLANK
        accepted = [{"text": gap.text, "percent": "", "feedback": ""}]
        return _body(FILL_BLANK, gap.before + hint + gap.after, word, blanks=[{"accepted": accepted, "options": []}])

    def _choice(self, word: Word) -> Body | None:
        others = {
            one.term.casefold(): one.term
            for one in sorted(self.words.values(), key=lambda one: _draw(self.seed, word.id + one.id))
            if one.part_of_speech == word.part_of_speech and _differ(one, word) and one.id in self.gaps
        }
        wrong = list(others.values())[:OTHER_CHOICES]
        if len(wrong) < OTHER_CHOICES:
            return None
        texts = sorted([word.term, *wrong], key=lambda text: _draw(self.seed, word.id + text))
        choices = [
            {"id": str(self.new_id()), "text": text, "correct": text == word.term, "feedback": "", "percent": ""}
            for text in texts
        ]
        return _body(MULTIPLE_CHOICE, self._ask(MEANING, word.translation), word, choices=choices, multiple=False)

    def _translation(self, word: Word) -> Body:
        accepted = [{"text": word.term, "percent": "", "feedback": ""}]
        return _body(SHORT_ANSWER, self._ask(MEANING, word.translation), word, accepted=accepted)

    def _matching(self, left: Sequence[str]) -> Made | None:
        chosen: list[Word] = []
        for one in (self.words[key] for key in left):
            if len(chosen) < MOST_PAIRS and all(_differ(one, other) for other in chosen):
                chosen.append(one)
        if len(chosen) < FEWEST_PAIRS:
            return None
        chosen.sort(key=lambda one: self.order[one.id])
        stems = [{"id": str(self.new_id()), "text": one.translation} for one in chosen]
        targets = [{"id": str(self.new_id()), "text": one.term} for one in chosen]
        pairs = [[stem["id"], target["id"]] for stem, target in zip(stems, targets, strict=True)]
        body = _body(MATCHING, self._ask(MATCH), None, stems=stems, targets=targets, pairs=pairs)
        return Made(Kind.MATCHING, body, tuple(one.id for one in chosen))

    def _ask(self, prompts: Mapping[str, str], *values: str) -> str:
        return prompts.get(self.language.partition("-")[0].lower(), prompts["en"]).format(*values)


def _body(kind: str, prompt: str, word: Word | None, **rest: Any) -> Body:
    explanation = (word.explanation or f"{word.translation} = {word.term}") if word else ""
    return new_body(kind, prompt, explanation=explanation, **rest)


def _differ(one: Word, other: Word) -> bool:
    """Whether they have neither term nor translation in common, so that each is a wrong answer for the other."""
    pairs = ((one.term, other.term), (one.translation, other.translation))
    return all(first.casefold() != second.casefold() for first, second in pairs)


def _draw(seed: int, key: str) -> bytes:
    return sha256(f"{seed}:{key}".encode()).digest()
