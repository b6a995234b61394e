"""What holds of every weave: real sentences of five languages, any Unicode between them, and every choice there is."""

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, combinations
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content.matching import Term, find
from services.content.segmentation import fold, names, paragraphs, sentence_starts, tokenize
from services.content.weaving import GAP, Target, chunks, ratios_of, weave
from tests.content.test_weaving import undo


class Sample(NamedTuple):
    """Sentences of a language, with words that stand in them; `names` are spelled like vocabulary, and must stay."""

    language: str
    sentences: tuple[str, ...]
    terms: tuple[Term, ...]
    names: tuple[str, ...]


def terms(*rows: tuple[str, str, str]) -> tuple[Term, ...]:
    """Of spelling, translation and part of speech; `dog>chien dogs>chiens` are a term and its forms."""
    made = []
    for number, (spelled, meaning, part) in enumerate(rows):
        term, *forms = spelled.split("|")
        means, *others = meaning.split("|")
        pairs = tuple(zip(forms, others or [""] * len(forms), strict=True))
        made.append(Term(f"{number}", term, means, part, f"“{means}”: {term}", pairs))
    return tuple(made)


SAMPLES = (
    Sample(
        "vi",
        ("Sáng nay bạn Lan tưới lan.", "“Ông nội ơi, dòng sông rộng quá!” An nói.", "Học sinh học bài ở Hà Nội."),
        terms(("lan", "orchid", "noun"), ("học", "study", "verb"), ("học sinh", "student", "noun"),
              ("dòng sông", "river", "noun"), ("ông nội", "grandfather", "noun"), ("an", "peace", "noun")),
        ("Lan", "An"),
    ),
    Sample(
        "en",
        ("The dogs saw May and a dog.", "DOGS ran; didn't they?", "In may we might go, said Will — I will."),
        terms(("dog|dogs", "chien|chiens", "noun"), ("may|might", "pouvoir|pourrait", "verb"),
              ("will", "vouloir", "verb"), ("saw|ran", "vit|courut", "verb")),
        ("May", "Will"),
    ),
    Sample(
        "fr",
        ("L’eau d'une rivière coule aujourd'hui.", "Hier, Pierre posa la pierre, dit-il.", "« J'ai soif d’eau ! »"),
        terms(("eau|eaux", "water|waters", "noun"), ("pierre", "stone", "noun"), ("dit", "said", "verb"),
              ("l'eau", "the water", "noun"), ("hui", "x", "noun")),
        ("Pierre",),
    ),
    Sample(
        "es",
        ("¿Dónde está el niño? ¡Niños, aquí!", "Ayer vino Rosa con una rosa.", "—¿Dónde? —dijo él."),
        terms(("niño|niños", "child|children", "noun"), ("rosa", "rose", "noun"), ("dónde", "where", "adverb")),
        ("Rosa",),
    ),
    Sample(
        "ja",
        ("東京で田中さんは猫背の猫に魚を食べさせた。", "「川で泳いだ！」と森さんが言った。", "森の中の川。"),
        terms(("猫", "cat", "noun"), ("食べる|食べさせた", "eat|fed", "verb"), ("川", "river", "noun"),
              ("森", "forest", "noun"), ("泳ぐ|泳いだ", "swim|swam", "verb"), ("東京", "Tokyo", "noun")),
        ("森さん",),
    ),
)
SIGNS = ["\n", "\r\n\r\n", "\n\n", " ", "👩‍💻", "🇻🇳 ", "e\u0301", "\u0301", "… ", "\u200d", "(", "”"]
NOISE = st.sampled_from(SIGNS) | st.text(max_size=6)
RATIOS = st.decimals(0, 1, places=2)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Sample, str]:
    sample = draw(st.sampled_from(SAMPLES))
    parts = draw(st.lists(st.sampled_from(sample.sentences) | NOISE, max_size=8))
    form: Literal["NFC", "NFD"] = draw(st.sampled_from(["NFC", "NFD"]))
    return sample, unicodedata.normalize(form, " ".join(parts))


def targets(noun: Decimal, verb: Decimal) -> list[Target]:
    return [Target("noun", noun), Target("verb", verb), Target("adverb", Decimal(1))]


def subsets(places: list[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(places, size) for size in range(len(places) + 1))


class TestEveryWeave:
    @settings(deadline=None)
    @given(story=stories(), noun=RATIOS, verb=RATIOS, seed=st.text(max_size=3), cloze=st.booleans())
    def test_gives_the_source_back_byte_for_byte(
        self, story: tuple[Sample, str], noun: Decimal, verb: Decimal, seed: str, cloze: bool
    ) -> None:
        sample, text = story
        made = weave(text, sample.terms, targets(noun, verb), language=sample.language, seed=seed)
        parts = chunks(text, made.annotations, cloze=cloze)
        assert undo(parts).encode("utf-8", "surrogatepass") == text.encode("utf-8", "surrogatepass")
        kinds = {part.kind for part in parts}
        assert not cloze or "explain" not in kinds
        assert all(part.text == GAP for part in parts if cloze and part.kind == "chem")
        ends = [0, *(note.end for note in made.annotations)]
        assert all(note.start >= end for note, end in zip(made.annotations, ends, strict=False))

    @settings(deadline=None)
    @given(story=stories())
    def test_replaces_whole_words_by_what_they_mean_and_touches_no_name(self, story: tuple[Sample, str]) -> None:
        sample, text = story
        made = weave(text, sample.terms, targets(Decimal(1), Decimal(1)), language=sample.language, seed="s")
        tokens = tokenize(text, sample.language)
        proper = [tokens.span(*span) for span in names(tokens, sentence_starts(tokens))]
        meanings = {
            fold(spelling): meaning or term.translation
            for term in sample.terms
            for spelling, meaning in ((term.term, ""), *term.forms)
        }
        edges = set(tokens.edges)
        for note in made.annotations:
            assert {note.start, note.end} <= edges
            assert fold(meanings[fold(" ".join(text[note.start : note.end].split()))]) == fold(note.replacement)
            touched = [span for span in proper if span[0] < note.end and note.start < span[1]]
            assert not touched or (touched == [(note.start, note.end)] and note.replacement == "Tokyo")

    @settings(deadline=None)
    @given(story=stories(), noun=RATIOS, data=st.data())
    def test_comes_as_near_to_each_ratio_as_any_choice_could(
        self, story: tuple[Sample, str], noun: Decimal, data: st.DataObject
    ) -> None:
        sample, text = story
        ids = [term.id for term in sample.terms]
        pins, bans = (data.draw(st.frozensets(st.sampled_from(ids), max_size=2)) for _ in range(2))
        last = len(paragraphs(text))
        scopes = data.draw(st.none() | st.lists(st.integers(0, last - 1), unique=True)) if last else None
        wanted = [Target("noun", noun)]
        frame = {"language": sample.language, "scopes": scopes, "pins": pins, "bans": bans}
        made = weave(text, sample.terms, wanted, seed="s", **frame)  # type: ignore[arg-type]
        found = find(text, sample.terms, ratios=ratios_of(wanted), **frame)  # type: ignore[arg-type]
        places = [n for n, match in enumerate(found.matches) if match.term.part_of_speech == "noun"][:12]
        if len(places) < 12:
            fixed = {n for n in places if found.matches[n].term.id in pins - bans}
            never = {n for n in places if found.matches[n].term.id in bans}
            legal = [set(one) for one in subsets(places) if fixed <= set(one) and not never & set(one)]
            (share,) = [one for one in made.shares if one.part_of_speech == "noun"]
            best = min(abs(len(one) - noun * len(places)) for one in legal)
            assert abs(share.woven - noun * share.occurrences) == best
            assert share.occurrences == len(places)
            assert share.realised == (Decimal(share.woven) / len(places) if places else 0)

    @settings(deadline=None)
    @given(story=stories(), noun=RATIOS)
    def test_explains_each_word_where_it_first_stands(self, story: tuple[Sample, str], noun: Decimal) -> None:
        sample, text = story
        made = weave(text, sample.terms, targets(noun, noun), language=sample.language, seed="s")
        met: set[str] = set()
        for note in made.annotations:
            assert bool(note.explain) == (note.vocabulary_id not in met)
            met.add(note.vocabulary_id)

    @pytest.mark.parametrize("sample", SAMPLES, ids=[sample.language for sample in SAMPLES])
    def test_leaves_people_alone(self, sample: Sample) -> None:
        text = " ".join(sample.sentences)
        made = weave(text, sample.terms, targets(Decimal(1), Decimal(1)), language=sample.language, seed="s")
        shown = "".join(part.text for part in chunks(text, made.annotations) if part.kind != "explain")
        assert made.annotations
        assert all(name in shown for name in sample.names)
        assert ("Tokyoで" in shown) == (sample.language == "ja")


class TestEveryHost:
    @pytest.mark.slow
    def test_weaves_the_same_bytes(self) -> None:
        program = (
            "import json; from decimal import Decimal; from tests.content.test_weaving_properties import *\n"
            "for one in SAMPLES:\n"
            "    text = chr(10).join(one.sentences) * 3\n"
            "    made = weave(text, reversed(one.terms), targets(Decimal('0.6'), Decimal('0.3')),"
            " language=one.language, seed='é', pins={'0', '2'}, bans={'1'})\n"
            "    print(json.dumps([[note.start, note.end, note.replacement] for note in made.annotations]))"
        )
        root = Path(__file__).parents[2]
        told = set()
        for seed, encoding in (("0", "utf-8"), ("1", "ascii"), ("4294967295", "utf-8")):
            environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": encoding, "LC_ALL": "C"}
            told.add(subprocess.check_output([sys.executable, "-c", program], cwd=root, env=environment))
        (lines,) = told
        assert [bool(json.loads(line)) for line in lines.splitlines()] == [True] * len(SAMPLES)


class TestForms:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("the dogs and the dog", "the chiens and the chien"),
            ("Dogs bark. DOGS!", "Chiens bark. CHIENS!"),
            ("a doggie", "a chien"),
            ("hot dogs, hot dog", "saucisses, saucisse"),
        ],
    )
    def test_are_replaced_by_what_they_mean(self, text: str, wanted: str) -> None:
        words = [
            Term("1", "dog", "chien", "noun", forms=(("dogs", "chiens"), ("doggie", ""))),
            Term("2", "hot dog", "saucisse", "noun", forms=(("hot dogs", "saucisses"),)),
        ]
        made = weave(text, words, [Target("noun", Decimal(1))], language="en", seed="s")
        assert "".join(part.text for part in chunks(text, made.annotations)) == wanted

    def test_belong_to_the_word_that_spells_them_so_itself(self) -> None:
        words = [Term("1", "see", "voir", "verb", forms=(("saw", "vit"),)), Term("2", "saw", "scie", "noun")]
        both = [Target("noun", Decimal(1)), Target("verb", Decimal(1))]
        assert weave("a saw", words, both, language="en", seed="s").annotations[0].replacement == "scie"
        assert weave("I saw", words, both[1:], language="en", seed="s").annotations[0].replacement == "vit"
