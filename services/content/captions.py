"""Captions in SRT and WebVTT: read strictly, matched with the chunks of a text, and written. Times are milliseconds."""

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_CUES = 5000
# A cue of fewer letters than this may stand anywhere in a text: it is looked for only so far ahead.
CERTAIN, AHEAD = 12, 200
# By how much a last cue may be longer than its recording: players round.
SLACK = 500

_VTT_TIME = r"((?:\d{2,4}:)?[0-5]\d:[0-5]\d\.\d{3})"
_SRT_TIME = r"(\d{1,3}:[0-5]?\d:[0-5]?\d[,.]\d{1,3})"
VTT_TIMES = re.compile(rf"{_VTT_TIME}[ \t]+-->[ \t]+{_VTT_TIME}(?:[ \t].*)?")
SRT_TIMES = re.compile(rf"{_SRT_TIME}[ \t]*-->[ \t]*{_SRT_TIME}(?:[ \t].*)?")
# Longer ones are none that `html.unescape` knows; it takes numbers of any length, of which Python makes no integers.
NUMBER = re.compile(r"&#[0-9]{20,};?")
TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
LINE_END = re.compile(r"\r\n|\n|\r")
NOT_CUES = ("NOTE", "STYLE", "REGION")


class CaptionError(ValueError):
    """The captions cannot be used; the message says where and why, without a final period."""


@dataclass(frozen=True, slots=True)
class Cue:
    """What is heard from `start` until `end`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk as it is matched: its position in the version, and whether it is an explanation."""

    position: int
    text: str
    explains: bool = False


@dataclass(frozen=True, slots=True)
class Alignment:
    """(position, start, end) of the chunks that are heard, and what found no partner: numbers of cues, 1 for the first,
    and positions of chunks that have letters."""

    times: tuple[tuple[int, int, int], ...]
    cues: tuple[int, ...]
    positions: tuple[int, ...]


def read(text: str, *, vtt: bool | None = None) -> list[Cue]:
    """The cues of captions in WebVTT or SRT, by default whichever it looks like, without markup.

    CaptionError, naming the line, for anything that is neither a cue nor something that the format knows besides: what
    is wrong must not become a part of the text before it. Linear in the length of the text.
    """
    lines = LINE_END.split(text.removeprefix("\ufeff"))
    is_vtt = re.match(r"WEBVTT([ \t]|\Z)", lines[0]) is not None
    if vtt if vtt is not None else is_vtt:
        if not is_vtt:
            raise CaptionError("line 1 is not WEBVTT")
        return _in_order(_vtt_cues(lines))
    return _in_order(_srt_cues(lines))


def _blocks(lines: Sequence[str], first: int) -> Iterator[tuple[int, list[str]]]:
    """The runs of lines that are not blank, with the number of the first line of each."""
    block: list[str] = []
    for number, line in enumerate((*lines[first:], ""), first + 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _vtt_cues(lines: Sequence[str]) -> Iterator[tuple[int, Cue]]:
    # The header's own lines end at the first blank one.
    first = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
    for number, block in _blocks(lines, first):
        if block[0].startswith(NOT_CUES) and "-->" not in block[0]:
            continue
        at = 0 if "-->" in block[0] else 1
        yield number + at, _cue(VTT_TIMES, number, block, at, "00:01.500 --> 00:02.000", markup=True)


def _srt_cues(lines: Sequence[str]) -> Iterator[tuple[int, Cue]]:
    for number, block in _blocks(lines, 0):
        at = 1 if block[0].strip().isdigit() else 0
        yield number + at, _cue(SRT_TIMES, number, block, at, "00:00:01,500 --> 00:00:02,000", markup=False)


def _cue(times: re.Pattern[str], number: int, block: Sequence[str], at: int, example: str, *, markup: bool) -> Cue:
    found = times.fullmatch(block[at].strip()) if at < len(block) else None
    if found is None:
        raise CaptionError(f"line {number + at} is not like {example}")
    if any("-->" in line for line in block[at + 1 :]):
        raise CaptionError(f"line {number + at}: no blank line ends the cue that begins there")
    text = TAG.sub("", " ".join(block[at + 1 :]))
    if markup:
        text = html.unescape(NUMBER.sub("", text))
    return Cue(_milliseconds(found[1]), _milliseconds(found[2]), text)


def _milliseconds(text: str) -> int:
    clock, _, fraction = text.replace(",", ".").partition(".")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return seconds * 1000 + int(fraction.ljust(3, "0"))


def _in_order(numbered: Iterator[tuple[int, Cue]]) -> list[Cue]:
    cues: list[Cue] = []
    for number, cue in numbered:
        if len(cues) == MOST_CUES:
            raise CaptionError(f"there are more than {MOST_CUES} cues")
        if cue.end <= cue.start:
            raise CaptionError(f"line {number}: the cue ends before it begins")
        if cues and cue.start < cues[-1].start:
            raise CaptionError(f"line {number}: the cue begins before the one above it")
        if cues and cue.start < cues[-1].end:
            # Makers of captions let them overlap a little; what is heard next is heard alone.
            if cue.start == cues[-1].start:
                raise CaptionError(f"line {number}: the cue begins with the one above it")
            cues[-1] = Cue(cues[-1].start, cue.start, cues[-1].text)
        cues.append(cue)
    if not cues:
        raise CaptionError("there is no cue")
    return cues


def within(cues: Sequence[Cue], duration: int) -> list[Cue]:
    """The cues, none of which ends after the recording; CaptionError for what is more than rounding."""
    for number, cue in enumerate(cues, 1):
        if cue.end > duration + SLACK or cue.start >= duration:
            raise CaptionError(f"cue {number} ends after the recording, which lasts {duration / 1000:.3f} s")
    return [Cue(one.start, min(one.end, duration), one.text) for one in cues]


def letters(text: str) -> str:
    """What is compared of a text: its letters and digits, whatever their case and composition."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(one for one in folded if one.isalnum() or unicodedata.category(one).startswith("M"))


def in_order(pieces: Sequence[Piece], cues: Sequence[Cue]) -> Alignment:
    """The first cue is the first piece, and so on; CaptionError unless they are equally many."""
    if len(cues) != len(pieces):
        raise CaptionError(f"there are {len(cues)} cues for {len(pieces)} chunks")
    both = zip(pieces, cues, strict=True)
    return Alignment(tuple((piece.position, cue.start, cue.end) for piece, cue in both), (), ())


def by_text(pieces: Sequence[Piece], cues: Sequence[Cue]) -> Alignment:
    """Each cue is where its letters stand next in the text; the time of a cue is shared among its pieces by letters.

    Explanations are left out if more cues are found without them. CaptionError when none is.
    """
    every = _found(pieces, cues)
    spoken = _found([one for one in pieces if not one.explains], cues)
    best = spoken if len(spoken[1]) < len(every[1]) else every
    if len(best[1]) == len(cues):
        raise CaptionError("none of the cues is part of the text")
    times, missed = best
    silent = (one.position for one in pieces if one.position not in times and letters(one.text))
    heard = tuple((position, start, max(end, start + 1)) for position, (start, end) in sorted(times.items()))
    return Alignment(heard, tuple(missed), tuple(silent))


def _found(pieces: Sequence[Piece], cues: Sequence[Cue]) -> tuple[dict[int, tuple[int, int]], list[int]]:
    """The times of the pieces by position, and the numbers of the cues that are nowhere."""
    texts = [letters(one.text) for one in pieces]
    text = "".join(texts)
    owner = [number for number, one in enumerate(texts) for _ in one]
    times: dict[int, tuple[int, int]] = {}
    missed, cursor = [], 0
    for number, cue in enumerate(cues, 1):
        wanted = letters(cue.text)
        until = len(text) if len(wanted) >= CERTAIN else cursor + len(wanted) + AHEAD
        at = text.find(wanted, cursor, until) if wanted else -1
        if at < 0:
            missed.append(number)
            continue
        cursor = at + len(wanted)
        _share(times, [pieces[one].position for one in owner[at:cursor]], cue)
    return times, missed


def _share(times: dict[int, tuple[int, int]], owners: Sequence[int], cue: Cue) -> None:
    """Gives each owner of letters its part of the cue's time; one that had a part before goes on."""
    length = cue.end - cue.start
    for nth, position in enumerate(owners):
        start, end = (cue.start + length * one // len(owners) for one in (nth, nth + 1))
        times[position] = (times[position][0] if position in times else start, end)


def write_vtt(cues: Sequence[tuple[int, Cue]]) -> str:
    """WebVTT with these cues and their identifiers."""
    blocks = (f"{name}\n{_clock(cue.start)} --> {_clock(cue.end)}\n{_escaped(cue.text)}\n" for name, cue in cues)
    return "\n".join(("WEBVTT\n", *blocks))


def _clock(milliseconds: int) -> str:
    seconds, fraction = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:03}"


def _escaped(text: str) -> str:
    # A blank line would end the cue, and an arrow begin one.
    return html.escape(" ".join(text.split()), quote=False) or "…"
