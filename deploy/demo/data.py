"""The demo school's texts, as the files beside this one hold them."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LANGUAGES = {"language": "vi", "learningLanguage": "en"}


@dataclass(frozen=True, slots=True)
class StoryText:
    """One story: its title and its paragraphs."""

    slug: str
    title: str
    text: str

    @property
    def word_count(self) -> int:
        return len(self.text.split())


def school() -> dict[str, Any]:
    """Tenants, people and course."""
    found: dict[str, Any] = json.loads((HERE / "school.json").read_text())
    return found


def story(slug: str) -> StoryText:
    """A story by its file's name."""
    heading, _, text = (HERE / "stories" / f"{slug}.md").read_text().partition("\n")
    return StoryText(slug, heading.removeprefix("# ").strip(), text.strip())


def vocabulary(text: str) -> list[dict[str, Any]]:
    """The vocabulary entries whose term, or a form of it, occurs in the text, as the API takes them."""
    folded = text.casefold()
    with (HERE / "vocabulary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [_entry(row) for row in rows if any(one.casefold() in folded for one in _spellings(row))]


def _spellings(row: dict[str, str]) -> list[str]:
    return [row["term"], *(one["form"] for one in _forms(row))]


def _forms(row: dict[str, str]) -> list[dict[str, str]]:
    """The forms and their translations, written `dogs=chiens|doggie`."""
    pairs = (one.partition("=") for one in row["forms"].split("|") if one)
    return [{"form": form, "translation": translation} for form, _, translation in pairs]


def _entry(row: dict[str, str]) -> dict[str, Any]:
    return {
        "term": row["term"],
        "translation": row["translation"],
        "partOfSpeech": f"PART_OF_SPEECH_{row['part_of_speech'].upper()}",
        "level": row["level"],
        "explanation": row["explanation"],
        "forms": _forms(row),
        **LANGUAGES,
    }


def questions(slug: str) -> list[dict[str, Any]]:
    """The five questions on a story, as the API takes them."""
    quizzes = json.loads((HERE / "quizzes.json").read_text())
    return [_question(one) for one in quizzes[slug]["questions"]]


def _question(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": f"QUESTION_TYPE_{one['type'].upper()}",
        "prompt": one["prompt"],
        "choices": one.get("choices", []),
        "multiple": one.get("multiple", False),
        "blanks": one.get("blanks", []),
    }
