"""Statements, in both senses, about what learners did, in the order in which it was stored."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from kit.db import ReadSession

# Where each row comes from, by its place among those stored at the same moment; what it says; and which rows count.
SOURCES = (
    (
        1,
        "statements",
        "s.verb, s.event_time, jsonb_build_object('lesson_id', s.lesson_id, 'story_id', s.story_id,"
        " 'quiz_id', s.quiz_id, 'registration', s.registration, 'seconds', extract(epoch FROM s.duration),"
        " 'interactions', s.interactions, 'score', s.score::text, 'max_score', s.max_score::text,"
        " 'passed', s.passed)",
        "true",
    ),
    (
        2,
        "vocabulary_exposures",
        "'experienced', s.exposure_time, jsonb_build_object('story_id', s.story_id,"
        " 'words', cardinality(s.vocabulary_ids))",
        "s.story_id IS NOT NULL",
    ),
    # That somebody said to know a word is no answer.
    (
        3,
        "vocabulary_reviews",
        "'answered', s.review_time, jsonb_build_object('vocabulary_id', s.vocabulary_id, 'rating', s.rating,"
        " 'seconds', extract(epoch FROM s.duration))",
        "s.source <> 'known'",
    ),
)
SOURCE = """
(SELECT s.receive_time AS stored, {place} AS place, s.id, s.user_id, {said} FROM learning.{table} s
 WHERE s.tenant_id = $1 AND s.receive_time >= $2 AND s.receive_time <= $3 AND {condition}{user}
   AND (s.receive_time > $2 OR {place} > $4::integer OR {place} = $4 AND s.id > $5)
 ORDER BY s.receive_time, s.id LIMIT $6)
"""
# Titles are those of now.
PAGE = """
SELECT p.stored, p.place, p.id, p.user_id, p.verb, p.happened, p.said::text AS said,
       coalesce(g.score_hidden, false) AS hidden, l.title AS lesson_title, l.course_id, c.title AS course_title
FROM ({sources}) AS p (stored, place, id, user_id, verb, happened, said)
LEFT JOIN learning.lesson_index l ON l.tenant_id = $1 AND l.id = (p.said ->> 'lesson_id')::uuid
LEFT JOIN learning.course_index c ON c.tenant_id = $1 AND c.id = l.course_id
LEFT JOIN learning.graded_attempts g ON g.tenant_id = $1 AND g.id = (p.said ->> 'registration')::uuid
ORDER BY p.stored, p.place, p.id LIMIT $6
"""


def _page(user: str) -> str:
    made = (
        SOURCE.format(place=place, table=table, said=said, condition=condition, user=user)
        for place, table, said, condition in SOURCES
    )
    return PAGE.format(sources=" UNION ALL ".join(made))


OF_ALL, OF_USER = _page(""), _page(" AND s.user_id = $7")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an export is: behind the row of this id, of those stored at this time, from this source."""

    stored: datetime
    source: int
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What a learner did, as it was stored; `said` is what is known of it besides, `hidden` whether the learner may not
    know it, as the result of a quiz that tells them none."""

    place: Place
    user_id: UUID
    verb: str
    happened: datetime
    said: dict[str, Any]
    hidden: bool
    lesson_title: str | None
    course_id: UUID | None
    course_title: str | None


async def list_deeds(
    session: ReadSession, after: Place, until: datetime, most: int, *, user_id: UUID | None
) -> Sequence[Deed]:
    """What follows, in the order in which it was stored, of everyone or of one user."""
    values = (after.stored, until, after.source, after.id, most)
    rows = await (session.fetch(OF_ALL, *values) if user_id is None else session.fetch(OF_USER, *values, user_id))
    return [_deed(row) for row in rows]


def _deed(row: Any) -> Deed:
    return Deed(
        place=Place(row.stored, row.place, row.id),
        user_id=row.user_id,
        verb=row.verb,
        happened=row.happened,
        said=json.loads(row.said),
        hidden=row.hidden,
        lesson_title=row.lesson_title,
        course_id=row.course_id,
        course_title=row.course_title,
    )
