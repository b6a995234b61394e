"""A version of a story before it is stored: everything that follows from its text and the words woven into it."""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from services.content import segmentation, weaving
from services.content.matching import Term
from services.content.weaving import Annotation, Chunk, Share, Target

LARGEST_SEED = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The content of a version. `paragraphs` count from 1, empty for all; `seed` is None when nothing was woven."""

    title: str
    text: str
    annotations: Sequence[Annotation] = ()
    shares: Sequence[Share] = ()
    chunks: Sequence[Chunk]
    content_hash: str
    chem_ratio: Decimal
    word_count: int
    reading_minutes: int
    seed: int | None = None
    paragraphs: Sequence[int] = ()
    pinned: Sequence[UUID] = ()
    banned: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to weave: targets per part of speech, where, and which words always or never."""

    targets: Sequence[Target]
    seed: int | None
    paragraphs: Sequence[int]
    pinned: Collection[UUID]
    banned: Collection[UUID]


def plain(title: str, text: str, language: str) -> Draft:
    """A version without words woven in."""
    return _draft(title, text, language, ())


def remade(title: str, language: str, source: Any, shares: Sequence[Share]) -> Draft:
    """A version with the text of another and the words woven into it. `source` has the columns of `StoryVersion`."""
    return _draft(
        title,
        source.text,
        language,
        as_notes(source.annotations),
        shares=shares,
        seed=source.seed,
        paragraphs=source.paragraphs,
        pinned=source.pinned_vocabulary_ids,
        banned=source.banned_vocabulary_ids,
    )


def woven(title: str, text: str, language: str, words: Sequence[Any], wish: Wish) -> Draft:
    """A version with words woven in. `words` are those of `terms_of`; paragraphs past the end are left out.

    The same arguments always give the same version, but for its place among the others.
    """
    seed = seed_of(text) if wish.seed is None else wish.seed
    made = weaving.weave(
        text,
        terms_of(words),
        wish.targets,
        language=language,
        seed=str(seed),
        scopes=scopes_of(text, wish.paragraphs),
        pins=frozenset(map(str, wish.pinned)),
        bans=frozenset(map(str, wish.banned)),
    )
    return _draft(
        title,
        text,
        language,
        made.annotations,
        shares=made.shares,
        seed=seed,
        paragraphs=sorted(wish.paragraphs),
        pinned=sorted(wish.pinned),
        banned=sorted(wish.banned),
    )


def terms_of(words: Iterable[Any]) -> list[Term]:
    """Of rows of id, term, translation, part of speech, level, explanation and forms as JSON text."""
    # By place: there may be thousands, and a row takes its time to look for a name.
    return [
        Term(str(word_id), term, translation, part, explanation, _forms_of(forms))
        for word_id, term, translation, part, _, explanation, forms in words
    ]


def _forms_of(stored: str) -> tuple[tuple[str, str], ...]:
    return () if stored == "[]" else tuple((form, translation) for form, translation in json.loads(stored))


def scopes_of(text: str, paragraphs: Sequence[int]) -> list[int] | None:
    """The scopes, as the weave counts them, of paragraphs that count from 1; those past the end are left out."""
    last = len(segmentation.paragraphs(text))
    return [number - 1 for number in paragraphs if number <= last] if paragraphs else None


def seed_of(text: str) -> int:
    """The seed of a weave that asked for none: 31 bits of the text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % LARGEST_SEED


def content_hash(title: str, text: str, annotations: Sequence[Annotation]) -> str:
    """SHA-256, in hexadecimal, of what a reader is shown.

    Hashed is the canonical JSON (RFC 8785) of `{"annotations": [[start, end, vocabulary id, replacement, explanation],
    …], "text": …, "title": …}`, annotations in the order of the text.
    """
    return _sha256({"annotations": [as_list(one) for one in annotations], "text": text, "title": title})


def lesson_hash(lesson: Any) -> str:
    """The same of what a lesson itself says: the canonical JSON of `{"description": …, "title": …}`."""
    return _sha256({"description": lesson.description, "title": lesson.title})


def _sha256(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def as_list(annotation: Annotation) -> list[Any]:
    """The stored and hashed form of an annotation."""
    one = annotation
    return [one.start, one.end, one.vocabulary_id, one.replacement, one.explain]


def as_notes(stored: Iterable[Sequence[Any]]) -> list[Annotation]:
    """The annotations that `as_list` made these of."""
    return [Annotation(*one) for one in stored]


def _draft(title: str, text: str, language: str, annotations: Sequence[Annotation], **more: Any) -> Draft:
    chunks = chunks_of(text, annotations)
    words = segmentation.word_count(text, language)
    replaced = sum(segmentation.word_count(chunk.source, language) for chunk in chunks if chunk.kind == "chem")
    return Draft(
        title=title,
        text=text,
        annotations=annotations,
        chunks=chunks,
        content_hash=content_hash(title, text, annotations),
        chem_ratio=Decimal(replaced) / words if words else Decimal(0),
        word_count=words,
        reading_minutes=max(1, segmentation.reading_minutes(words)),
        **more,
    )


def chunks_of(text: str, annotations: Sequence[Annotation], *, cloze: bool = False) -> list[Chunk]:
    """What is shown of a text; without words woven in, its paragraphs."""
    return weaving.chunks(text, annotations, cloze=cloze) if annotations else _by_paragraph(text)


def _by_paragraph(text: str) -> list[Chunk]:
    """The paragraphs, each with the white space up to the next, so that together they are the text."""
    starts = [0, *(start for start, _ in segmentation.paragraphs(text)[1:]), len(text)]
    pieces = [text[start:end] for start, end in pairwise(starts)]
    return [Chunk(position, "normal", piece, piece, "") for position, piece in enumerate(pieces)]
