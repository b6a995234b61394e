"""Moodle's categories, which are tags here."""

from services.assessment.bodies import tag_key
from services.assessment.exchange.drafts import LONGEST_TAG, MOST_TAGS
from services.assessment.exchange.report import Place, Report

# Levels that say where a category is in Moodle, and nothing of the question.
PLACES = {"$course$", "$system$", "$module$", "$cat1$", "$coursecat$", "top", ""}


def levels(path: str, report: Report, place: Place) -> tuple[str, ...]:
    """The levels of a category as tags."""
    tags: dict[str, None] = {}
    for level in (one.replace("\0", "/").strip() for one in path.replace("//", "\0").split("/")):
        tag = tag_key(level)
        if level in PLACES or tag in tags:
            continue
        if len(tag) > LONGEST_TAG or len(tags) == MOST_TAGS:
            most = f"a tag has at most {LONGEST_TAG} characters, a question {MOST_TAGS} tags"
            report.refused("category", place, most)
        else:
            tags[tag] = None
    report.mapped("category", place, "its levels are tags of the questions after it")
    return tuple(tags)
