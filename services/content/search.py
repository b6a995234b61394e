"""Searches."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from kit.db import Database, ReadSession
from kit.pagination import Page
from services.content.enums import SEARCH_TYPE
from services.content.highlighting import Range, excerpt, highlight, pattern_of
from services.content.queries import courses, search
from services.content.queries.search import Hit, Wanted
from storyloom.content.v1 import search_pb2
from storyloom.content.v1.search_pb2 import SearchRequest, SearchResponse, SearchResult, TextRange


class SearchService:
    SERVICE = search_pb2.DESCRIPTOR.services_by_name["SearchService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def Search(self, request: SearchRequest, context: Any) -> SearchResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            wanted = await _wanted(session, request)
            found = await search.search(session, wanted, page.size + 1, page.after)
            hits, token = page.split(found, lambda hit: (hit.tier, hit.similarity, hit.id))
            shown = await search.list_shown(session, hits, wanted)
        # Long texts take their time.
        results = await asyncio.to_thread(_results, hits, shown, pattern_of(wanted.folded, prefix=wanted.prefix))
        return SearchResponse(results=results, next_page_token=token)


async def _wanted(session: ReadSession, request: SearchRequest) -> Wanted:
    folded, lowered, key = await search.get_words(session, request.query)
    kinds = [SEARCH_TYPE.word[one] for one in request.types or search_pb2.SearchType.values() if one]
    known = {"user.course_ids": await courses.list_taken_courses(session)} if "lesson" in kinds else {}
    return Wanted(folded=folded, lowered=lowered, key=key, kinds=kinds, language=request.language, known=known)


def _results(
    hits: Sequence[Hit], shown: Mapping[UUID, Any], words: re.Pattern[str] | None
) -> list[SearchResult]:
    return [result_to_proto(hit, shown[hit.id], words) for hit in hits if hit.id in shown]


def result_to_proto(hit: Hit, row: Any, words: re.Pattern[str] | None) -> SearchResult:
    """Of a hit and what is shown of it: title, text and language."""
    part = excerpt(row.text or "", words)
    tier: Any = hit.tier
    return SearchResult(
        type=SEARCH_TYPE.number[hit.kind],
        id=str(hit.id),
        match=tier,
        title=row.title,
        title_highlights=map(_range, highlight(row.title, words)),
        snippet=part.text,
        snippet_highlights=map(_range, part.ranges),
        language=row.language,
    )


def _range(one: Range) -> TextRange:
    return TextRange(start=one.start, end=one.end)
