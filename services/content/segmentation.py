"""Where a story may be cut: words, paragraphs, sentence starts, names and addresses, where words are spaced."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

# Silent reading of easy prose by adults is near 240 words a minute (Brysbaert 2019, "How many words do we read per
# minute?", J. Memory and Language 109); learners meeting woven words are slower. Vietnamese counts written syllables.
WORDS_PER_MINUTE = 200

# Every mark lies below U+20000, except the variation selectors of plane 14.
_MARKS = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] == "M") + "\U000e0100-\U000e01ef"
# Joiners, the soft hyphen and emoji skin tones also belong to the character before them. All of these lie above U+00AC,
# and looking at that first spares most characters the search through the long class.
_EXTEND = rf"(?:(?![\x00-\xac])[{_MARKS}\u00ad\u200c\u200d\u2060\U0001f3fb-\U0001f3ff])"
_PART = rf"\w+(?:{_EXTEND}\w*)*"
_TOKEN = re.compile(
    rf"(?P<word>{_PART}(?:(?:['’ʼ\-‐‑.·]|(?<=\d),(?=\d)){_PART})*)"
    rf"|(?P<space>\s+)"
    rf"|(?P<sign>[^\w\s]{_EXTEND}*(?:(?<=\u200d)[^\w\s]{_EXTEND}*)*)"
)
# The atomic group keeps CRLF from counting as two line breaks.
_GAP = re.compile(r"(?>\r\n|\r|\n)(?:[^\S\r\n]*(?>\r\n|\r|\n))+")
_CHUNK = re.compile(r"\S+")
_ADDRESS = re.compile(r"://|\bwww\.|@\w|\w\.\w{2,}/", re.IGNORECASE)
_ALIKE = str.maketrans({"’": "'", "ʼ": "'", "‐": "-", "‑": "-", "\u00ad": None, "\u2060": None})

_TERMINATORS = frozenset(".!?…。！？")
_QUOTES = frozenset("\"'“”„‘’«»‹›")
_DASHES = frozenset("-–—•*")
_ABBREVIATIONS = frozenset(("mr", "mrs", "ms", "dr", "prof", "st", "tp", "tx", "ths", "ts", "gs", "pgs", "bs", "nxb"))
_PARTICLES = frozenset(("of", "de", "da", "di", "du", "la", "le", "van", "von", "der", "bin", "ibn", "al", "el"))
_PRONOUN_I = frozenset(("i", "i'm", "i've", "i'd", "i'll"))


class Token(NamedTuple):
    """A word, a run of white space or one other character with its marks: code points [start, end) of the text."""

    start: int
    end: int
    kind: Literal["word", "space", "sign"]
    folded: str


def fold(text: str) -> str:
    """The form in which spellings are compared: equal for canonically equivalent texts and for upper and lower case.

    NFC of the case folding of the NFD, as in definition D145 of the Unicode Standard, with typographic apostrophes and
    hyphens made plain and soft hyphens dropped. Accents are kept: in Vietnamese they tell words apart.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()).translate(_ALIKE)


def tokenize(text: str) -> list[Token]:
    """Cuts the whole of `text` into tokens, in order and without gaps; linear in its length.

    Words follow rules WB4 to WB13 of UAX #29 (an apostrophe or a full stop between letters stays inside the word),
    and a hyphen between letters joins too. No token ends inside a combining sequence. White space folds to one space,
    a blank line to two line breaks, so that phrases match across a line break and never across paragraphs.
    """
    known: dict[str, str] = {}
    tokens = []
    for found in _TOKEN.finditer(text):
        kind, piece = found.lastgroup, found[0]
        if kind == "space":
            blank_line = len(piece) > 1 and _GAP.search(piece)
            tokens.append(Token(found.start(), found.end(), "space", "\n\n" if blank_line else " "))
            continue
        folded = known.get(piece)
        if folded is None:
            folded = known[piece] = fold(piece)
        tokens.append(Token(found.start(), found.end(), "word" if kind == "word" else "sign", folded))
    return tokens


def paragraphs(text: str) -> list[tuple[int, int]]:
    """Code-point spans [start, end) of the paragraphs, in order: what blank lines separate, less outer white space."""
    edges = [0, *(edge for gap in _GAP.finditer(text) for edge in gap.span()), len(text)]
    spans = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        body = text[start:end]
        if stripped := body.strip():
            first = start + len(body) - len(body.lstrip())
            spans.append((first, first + len(stripped)))
    return spans


def addresses(text: str) -> list[tuple[int, int]]:
    """Code-point spans of what stands between white space and holds a URL, an e-mail address or an @handle."""
    # Judging one chunk at a time keeps the work linear: a pattern for whole addresses would retry at every character.
    return [chunk.span() for chunk in _CHUNK.finditer(text) if _ADDRESS.search(chunk[0])]


def word_count(text: str) -> int:
    """Number of words; a hyphenated compound is one, and Vietnamese counts syllables as written."""
    return sum(found.lastgroup == "word" for found in _TOKEN.finditer(text))


def reading_minutes(text: str) -> int:
    """Whole minutes, rounded up, to read `text` at WORDS_PER_MINUTE: 0 only where there is no word."""
    return -(-word_count(text) // WORDS_PER_MINUTE)


def sentence_starts(text: str, tokens: Sequence[Token]) -> set[int]:
    """Indexes into `tokens` of the words that open a sentence.

    A paragraph, or one of . ! ? … opens a sentence, except the full stop of an initial or a title ('J.', 'Mr.', 'TP.').
    So does a quotation after a colon or a comma, and a dash after a colon. What follows a quotation that ends in ! or ?
    goes on with the sentence around it: '“Đi đâu?” Nam hỏi'. A mere line break opens nothing.
    """
    starts: set[int] = set()
    initial, spaced, previous = True, False, ""
    for index, token in enumerate(tokens):
        if token.kind == "space":
            initial, spaced = initial or token.folded != " ", True
            continue
        if token.kind == "word":
            if initial:
                starts.add(index)
            initial = False
        else:
            initial = _opens(text[token.start], previous, spaced=spaced, initial=initial)
        previous, spaced = text[token.start : token.end], False
    return starts


def _opens(sign: str, previous: str, *, spaced: bool, initial: bool) -> bool:
    """Whether a word after `sign` opens a sentence; `initial` says whether one in place of the sign would have."""
    if sign in _TERMINATORS:
        # Only a capital stands for a name: 'Vâng ạ.' ends in a one-letter word, and a sentence ends with it.
        shortened = previous.lower() in _ABBREVIATIONS or (len(previous) == 1 and previous.isupper())
        return sign != "." or not shortened
    if sign in _QUOTES:
        if previous == ":" or (previous == "," and spaced):
            return True
        return initial and (spaced or previous not in {"!", "?"})
    return initial or (sign in _DASHES and previous == ":")


def names(text: str, tokens: Sequence[Token], starts: set[int]) -> list[tuple[int, int]]:
    """Spans [first, end) of token indexes that are proper names, judged by capitals and `sentence_starts`.

    A name is a run of capitalised words one white space apart ('Nguyễn Văn An'), with particles inside it ('Bank of
    England'). Three cases are not names by themselves: a lone capitalised word that opens a sentence, words wholly in
    capitals with none merely capitalised among them (a heading or emphasis), and the English pronoun 'I'. They still
    count as a name where the same word stands inside a sentence as one, since 'Lan' in 'bạn Lan' is 'Lan' everywhere.
    Doubt falls on the side of a name: leaving a word unwoven costs less than translating a person.
    """
    sure: list[tuple[int, int]] = []
    doubtful: list[list[int]] = []
    known: set[str] = set()
    for run in _capitalised_runs(text, tokens, starts):
        shapes = [_shape(text, tokens[index]) for index in run]
        if ("caps" in shapes and "title" not in shapes) or (len(run) == 1 and run[0] in starts):
            doubtful.append(run)
            continue
        sure.append((run[0], run[-1] + 1))
        known.update(
            tokens[i].folded for i, shape in zip(run, shapes, strict=True) if i not in starts and shape != "lower"
        )
    return sorted(sure + [(i, i + 1) for run in doubtful for i in run if tokens[i].folded in known])


def _shape(text: str, token: Token) -> Literal["lower", "title", "caps", "letter"]:
    """How a word is capitalised; one capital alone, 'letter', tells nothing of the words beside it."""
    if not (text[token.start].isupper() or text[token.start].istitle()) or token.folded in _PRONOUN_I:
        return "lower"
    piece = text[token.start : token.end]
    if sum(map(str.isalpha, piece)) == 1:
        return "letter"
    return "caps" if piece.isupper() else "title"


def _capitalised_runs(text: str, tokens: Sequence[Token], starts: set[int]) -> Iterator[list[int]]:
    """Maximal runs of token indexes of capitalised words of one sentence, with particles only between them."""
    run: list[int] = []
    particles: list[int] = []
    last = -1
    for index, token in enumerate(tokens):
        if token.kind != "word":
            continue
        capital = _shape(text, token) != "lower"
        linked = index - last == 2 and tokens[index - 1].kind == "space" and index not in starts
        # 'the' only links after another particle: 'Lord of the Rings' is a name, 'Monday the TV' is two.
        particle = token.folded in _PARTICLES or (token.folded == "the" and bool(particles))
        if run and not (linked and (capital or particle)):
            yield run
            run, particles = [], []
        if capital:
            run += [*particles, index]
            particles = []
        elif run:
            particles.append(index)
        last = index
    if run:
        yield run
