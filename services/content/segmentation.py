"""Where a story may be cut, language by language: words, paragraphs, sentence starts, names and addresses."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from services.content import japanese

# Silent reading of easy prose by adults is near 240 words a minute (Brysbaert 2019, "How many words do we read per
# minute?", J. Memory and Language 109); learners meeting woven words are slower. Vietnamese counts written syllables,
# Japanese morphemes, of which some 190 are read a minute (Trauzettel-Klosinski and Dietz 2012, IOVS 53).
WORDS_PER_MINUTE = 200

# Every mark lies below U+20000, except the variation selectors of plane 14.
_MARKS = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] == "M") + "\U000e0100-\U000e01ef"
# Joiners, the soft hyphen and emoji skin tones also belong to the character before them. All of these lie above U+00AC,
# and looking at that first spares most characters the search through the long class.
_EXTEND = rf"(?:(?![\x00-\xac])[{_MARKS}\u00ad\u200c\u200d\u2060\U0001f3fb-\U0001f3ff])"
_PART = rf"\w+(?:{_EXTEND}\w*)*"
_WORD = rf"{_PART}(?:(?:['’ʼ\-‐‑.·]|(?<=\d),(?=\d)){_PART})*"
# In French, what is elided before a vowel is a word of its own, and so are the pronouns that follow a verb.
_CLITICS = r"(?:[-‐‑](?:t[-‐‑])?(?:je|tu|ils?|elles?|on|nous|vous|ce|moi|toi|les?|la|lui|leur|y|en))+(?![\w'’ʼ\-‐‑])"
_FRENCH_WORD = (
    rf"(?i:[cdjlmnst]|(?:jus|lors|puis|quoi)?qu)['’ʼ](?=\w)"
    rf"|{_PART}(?:(?!(?i:{_CLITICS}))(?:['’ʼ\-‐‑.·]|(?<=\d),(?=\d)){_PART})*"
)
_REST = rf"|\s+|[^\w\s]{_EXTEND}*(?:(?<=\u200d)[^\w\s]{_EXTEND}*)*"
_TOKEN = re.compile(_WORD + _REST)
_TOKENS = {"fr": re.compile(_FRENCH_WORD + _REST)}
_UNIT = re.compile(rf"(?s:.){_EXTEND}*")
_KANA_OR_KANJI = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
# The atomic group keeps CRLF from counting as two line breaks.
_GAP = re.compile(r"(?>\r\n|\r|\n)(?:[^\S\r\n]*(?>\r\n|\r|\n))+")
_CHUNK = re.compile(r"\S+")
_ADDRESS = re.compile(r"://|\bwww\.|@\w|\w\.\w{2,}/", re.IGNORECASE)
_ALIKE = (("’", "'"), ("ʼ", "'"), ("‐", "-"), ("‑", "-"), ("\u00ad", ""), ("\u2060", ""))

_TERMINATORS = frozenset(".!?…。！？")
_QUOTES = frozenset("\"'“”„‘’«»‹›「」『』")
_DASHES = frozenset("-–—•*")
_ABBREVIATIONS = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "tp", "tx", "ths", "ts", "gs", "pgs", "bs", "nxb"),
        *("mme", "mlle", "sr", "sra"),
    )
)
_PARTICLES = frozenset(
    ("of", "de", "da", "di", "du", "des", "del", "la", "le", "van", "von", "der", "bin", "ibn", "al", "el", "y")
)
_PRONOUN_I = frozenset(("i", "i'm", "i've", "i'd", "i'll"))

# One letter for each token: a word in lower case, capitalised, in capitals, one capital alone, by the dictionary a name
# of a person or another, a particle of names, 'the'; a space, a blank line, a sign.
_WORDS = "lTCANOpt"
_STRETCH = re.compile(rf"[^{_WORDS} ][^{_WORDS}]*| [^{_WORDS}]+")
# 'the' only links after another particle: 'Lord of the Rings' is a name, 'Monday the TV' is two.
_RUN = re.compile(r"[TCA](?: (?:p (?:[pt] )*)?[TCA])*|N+|O+")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Words, runs of white space and single other characters with their marks, without gaps.

    Token i is code points [edges[i], edges[i + 1]) of `text`, spelled `folded[i]`; `shapes` has a letter for each.
    """

    text: str
    folded: list[str]
    edges: list[int]
    shapes: str

    def span(self, first: int, end: int) -> tuple[int, int]:
        """The code points of the tokens [first, end)."""
        return self.edges[first], self.edges[end]

    def words(self, first: int, end: int) -> int:
        """How many of the tokens [first, end) are words."""
        return sum(shape in _WORDS for shape in self.shapes[first:end])


def fold(text: str) -> str:
    """The form in which spellings are compared: equal for canonically equivalent texts and for upper and lower case.

    NFC of the case folding of the NFD, as in definition D145 of the Unicode Standard, with typographic apostrophes and
    hyphens made plain and soft hyphens dropped. Accents are kept: in Vietnamese they tell words apart.
    """
    if text.isascii():
        return text.lower()
    folded = text.casefold()
    # A mark that folds to a letter, the iota subscript, would part others if it were folded before these are in order.
    # Where it is part of a letter, that folds to several.
    if len(folded) > len(text) or "\u0345" in text or not unicodedata.is_normalized("NFC", text):
        folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFC", folded)
    for sign, plain in _ALIKE:
        folded = folded.replace(sign, plain)
    return folded


def fold_all(texts: Sequence[str]) -> list[str]:
    """`fold` of each, with each run of white space made one space and none around: much faster than one by one."""
    joined = "¦".join(texts)
    # Of white space, only the space is printable.
    plain = joined.isprintable() and joined.count("¦") == len(texts) - 1
    if plain and joined == joined.strip() and not any(gap in joined for gap in ("  ", " ¦", "¦ ")):
        return fold(joined).split("¦")
    return [fold(" ".join(text.split())) for text in texts]


def pieces_of(text: str, language: str) -> tuple[list[str], dict[int, str]]:
    """The tokens of `text` as they are written; by their indexes, the shapes of those that a dictionary says are names.
    """
    pieces = _TOKENS.get(_primary(language), _TOKEN).findall(text)
    return (pieces, {}) if is_spaced(language) else _cut_japanese(pieces)


def tokenize(text: str, language: str) -> Tokens:
    """Cuts the whole of `text`, written in the BCP 47 `language`, into tokens; linear in its length.

    Words follow rules WB4 to WB13 of UAX #29 (an apostrophe or a full stop between letters stays inside the word),
    and a hyphen between letters joins too; French elisions and inverted pronouns are words of their own, and Japanese
    words are those of a morphological analyser. No token ends inside a combining sequence. White space folds to one
    space, a blank line to two line breaks, so that phrases match across a line break and never across paragraphs.
    """
    pieces, proper = pieces_of(text, language)
    different = list(dict.fromkeys(pieces))
    spaces = {piece for piece in different if piece.isspace()}
    solid = [piece for piece in different if piece not in spaces]
    known = dict(zip(solid, fold_all(solid), strict=True))
    known |= {piece: "\n\n" if len(piece) > 1 and _GAP.search(piece) else " " for piece in spaces}
    shape = {piece: _shape(piece, known[piece]) for piece in different}
    shapes = "".join(map(shape.__getitem__, pieces))
    if proper:
        shapes = "".join(proper.get(index, one) for index, one in enumerate(shapes))
    return Tokens(text, [known[piece] for piece in pieces], [0, *accumulate(map(len, pieces))], shapes)


def is_spaced(language: str) -> bool:
    """Whether white space stands between the words of the language."""
    return _primary(language) != "ja"


def _primary(language: str) -> str:
    """The primary subtag: 'fr' of 'fr-CA'."""
    return language.partition("-")[0].lower()


def _cut_japanese(pieces: list[str]) -> tuple[list[str], dict[int, str]]:
    cut: list[str] = []
    proper: dict[int, str] = {}
    for piece in pieces:
        if not _KANA_OR_KANJI.search(piece):
            cut.append(piece)
            continue
        # The analyser wants NFC, and its words must not end inside a combining sequence of the text.
        units = _UNIT.findall(piece)
        composed = [unicodedata.normalize("NFC", unit) for unit in units]
        lengths = zip(map(len, composed), map(len, units), strict=True)
        place = dict(accumulate(lengths, lambda one, more: (one[0] + more[0], one[1] + more[1]), initial=(0, 0)))
        done = 0
        for start, end, name in japanese.analyse("".join(composed)):
            if place.get(end, done) > done:
                if name and place.get(start) == done:
                    proper[len(cut)] = "N" if name == "person" else "O"
                cut.append(piece[done : place[end]])
                done = place[end]
        if done < len(piece):
            cut.append(piece[done:])
    return cut, proper


def _shape(piece: str, folded: str) -> str:
    """The letter that stands for the token; one capital alone, 'A', tells nothing of the words beside it."""
    if folded in {" ", "\n\n"}:
        return folded[0]
    if not (piece[0].isalnum() or piece[0] == "_"):
        return "."
    if not (piece[0].isupper() or piece[0].istitle()) or folded in _PRONOUN_I or folded.endswith("'"):
        return "p" if folded in _PARTICLES else "t" if folded == "the" else "l"
    if sum(map(str.isalpha, piece)) == 1:
        return "A"
    return "C" if piece.isupper() else "T"


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
    if not ("/" in text or "@" in text or "www." in text.casefold()):
        return []
    return [chunk.span() for chunk in _CHUNK.finditer(text) if _ADDRESS.search(chunk[0])]


def word_count(text: str, language: str) -> int:
    """Number of words; a hyphenated compound is one, and Vietnamese counts syllables as written."""
    pieces, _ = pieces_of(text, language)
    return sum(piece[0].isalnum() or piece[0] == "_" for piece in pieces)


def reading_minutes(words: int) -> int:
    """Whole minutes, rounded up, to read so many words at WORDS_PER_MINUTE: 0 only where there is no word."""
    return -(-words // WORDS_PER_MINUTE)


def sentence_starts(tokens: Tokens) -> set[int]:
    """Indexes of the words that open a sentence.

    A paragraph, or one of . ! ? … opens a sentence, except the full stop of an initial or a title ('J.', 'Mr.', 'TP.').
    So does a quotation after a colon or a comma, and a dash after a colon. What follows a quotation that ends in ! or ?
    goes on with the sentence around it: '“Đi đâu?” Nam hỏi'. A mere line break opens nothing.
    """
    starts = {0} if tokens.shapes[:1] in _WORDS else set()
    # Between two words stands a mere space, or something worth a look.
    for stretch in _STRETCH.finditer(tokens.shapes):
        first, end = stretch.span()
        if end < len(tokens.shapes) and _opens_sentence(tokens, first, end):
            starts.add(end)
    if tokens.shapes[:1] == " ":
        starts.add(1)
    return starts


def _opens_sentence(tokens: Tokens, first: int, end: int) -> bool:
    """Whether a word after the signs and white space [first, end) opens a sentence."""
    initial, spaced, previous = first == 0, False, tokens.text[slice(*tokens.span(first - 1, first))] if first else ""
    for index in range(first, end):
        shape = tokens.shapes[index]
        if shape in " \n":
            initial, spaced = initial or shape == "\n", True
            continue
        piece = tokens.text[slice(*tokens.span(index, index + 1))]
        initial = _opens(piece[0], previous, spaced=spaced, initial=initial)
        previous, spaced = piece, False
    return initial


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


def names(tokens: Tokens, starts: set[int]) -> list[tuple[int, int]]:
    """Spans [first, end) of token indexes that are proper names, judged by capitals and `sentence_starts`.

    A name is a run of capitalised words one white space apart ('Nguyễn Văn An'), with particles inside it ('Bank of
    England'), or what a dictionary says is one. Three cases are not names by themselves: a lone capitalised word that
    opens a sentence, words wholly in capitals with none merely capitalised among them (a heading or emphasis), and the
    English pronoun 'I'. They still count as a name where the same word stands inside a sentence as one, since 'Lan' in
    'bạn Lan' is 'Lan' everywhere. Doubt falls on the side of a name: leaving a word unwoven costs less than translating
    a person.
    """
    sure: list[tuple[int, int]] = []
    doubtful: list[int] = []
    known: set[str] = set()
    for run in _RUN.finditer(tokens.shapes):
        first, end = run.span()
        capitals = [index for index in range(first, end) if tokens.shapes[index] in "TCANO"]
        if ("C" in run[0] and "T" not in run[0]) or (end - first == 1 and first in starts and run[0] not in "NO"):
            doubtful += capitals
            continue
        sure.append((first, end))
        known.update(tokens.folded[index] for index in capitals if index not in starts)
    return sorted(sure + [(index, index + 1) for index in doubtful if tokens.folded[index] in known])
