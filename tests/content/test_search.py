"""Searches: what they find, in which order, and that nobody finds what is not theirs to see."""

import asyncio
import itertools
import unicodedata
from random import Random
from typing import Any

import pytest

from storyloom.content.v1 import courses_pb2, lessons_pb2, search_pb2, stories_pb2, vocabularies_pb2
from storyloom.content.v1.search_pb2 import SearchMatch, SearchResult, SearchType
from storyloom.content.v1.search_pb2_grpc import SearchServiceStub
from storyloom.identity.v1 import resource_policies_pb2 as policies_pb2
from storyloom.identity.v1.resource_policies_pb2_grpc import ResourcePolicyServiceStub
from tests.content.conftest import Author, PublishApproved
from tests.stack import School, refused

STORY, COURSE = SearchType.SEARCH_TYPE_STORY, SearchType.SEARCH_TYPE_COURSE
LESSON, VOCABULARY = SearchType.SEARCH_TYPE_LESSON, SearchType.SEARCH_TYPE_VOCABULARY
EXACT_TITLE, TITLE = SearchMatch.SEARCH_MATCH_EXACT_TITLE, SearchMatch.SEARCH_MATCH_TITLE
EXACT_TEXT, TEXT = SearchMatch.SEARCH_MATCH_EXACT_TEXT, SearchMatch.SEARCH_MATCH_TEXT
SIMILAR = SearchMatch.SEARCH_MATCH_SIMILAR_TITLE
_numbers = itertools.count(1)


def fresh(stem: str = "") -> str:
    """A word that no other test uses and that none of theirs is much like."""
    return stem + "".join(Random(next(_numbers)).choices("bcdfghjklmnpqrstvwxz", k=10))


async def search(author: Author, query: str, **more: Any) -> search_pb2.SearchResponse:
    stub = author.person.stub(SearchServiceStub, "content")
    answer: search_pb2.SearchResponse = await stub.Search(search_pb2.SearchRequest(query=query, **more))
    return answer


async def found(author: Author, query: str, **more: Any) -> list[SearchResult]:
    return list((await search(author, query, **more)).results)


async def ids(author: Author, query: str, **more: Any) -> list[str]:
    return [one.id for one in await found(author, query, **more)]


def marked(text: str, ranges: Any) -> list[str]:
    return [text[one.start : one.end] for one in ranges]


class TestWords:
    async def test_are_found_without_their_accents_and_whatever_their_case(self, teacher: Author) -> None:
        word = fresh()
        story = await teacher.story(f"Truyện chêm ĐƯỜNG {word}")
        for query in ("truyen chem", "TRUYỆN CHÊM", "truyện chem", "duong truyen", "Đường chêm"):
            (one,) = await found(teacher, f"{query} {word}")
            assert one.id == story.id
            assert one.type == STORY

    async def test_are_found_however_their_accents_are_encoded(self, teacher: Author) -> None:
        word = fresh()
        decomposed = unicodedata.normalize("NFD", f"Truyện cổ tích {word}")
        story = await teacher.story(decomposed)
        (one,) = await found(teacher, unicodedata.normalize("NFC", f"truyện cổ {word}"))
        assert (one.id, one.title, one.match) == (story.id, decomposed, EXACT_TITLE)
        assert [unicodedata.normalize("NFC", part) for part in marked(one.title, one.title_highlights)] == [
            "Truyện",
            "cổ",
            word,
        ]

    async def test_in_english_are_found_in_the_text(self, teacher: Author) -> None:
        word = fresh()
        story = await teacher.story("Nothing", text=f"The café's {word}, by the river. " * 3, language="en")
        (one,) = await found(teacher, f"cafe {word}")
        assert (one.id, one.match, one.language) == (story.id, TEXT, "en")

    async def test_must_all_be_there(self, teacher: Author) -> None:
        word, other = fresh(), fresh()
        both = await teacher.story(f"{word} {other}")
        await teacher.story(word)
        assert await ids(teacher, f"{other} {word}") == [both.id]

    async def test_the_last_may_be_the_beginning_of_one(self, teacher: Author) -> None:
        word = fresh()
        story = await teacher.story(f"{word}xyz và bạn")
        assert await ids(teacher, word) == [story.id]
        (one,) = await found(teacher, f"ban {word}xy")
        assert one.match == TITLE
        assert {one.match for one in await found(teacher, f"{word}x ban zzz")} <= {SIMILAR}

    @pytest.mark.parametrize("query", ["!!!", "' | ! & <-> :*", "\\", "𝓕", "%_%", "a" * 200, "é" * 200, "( '", "=x ^y"])
    async def test_may_be_anything(self, teacher: Author, query: str) -> None:
        assert (await search(teacher, query)).next_page_token == ""

    @pytest.mark.parametrize("query", ["", "  ", "a\0b", "x" * 201])
    async def test_out_of_range_are_refused(self, teacher: Author, query: str) -> None:
        async with refused("INVALID_FIELD", field="query"):
            await search(teacher, query)


class TestOrder:
    async def test_is_title_before_text_and_same_accents_before_others(self, teacher: Author) -> None:
        word = fresh()
        text_folded = await teacher.story(text=f"Con bó {word}.")
        text_exact = await teacher.story(text=f"Con bò {word}.")
        title_folded = await teacher.story(f"Bó {word}")
        title_exact = await teacher.story(f"Bò {word}")
        wanted = [
            (title_exact.id, EXACT_TITLE),
            (title_folded.id, TITLE),
            (text_exact.id, EXACT_TEXT),
            (text_folded.id, TEXT),
        ]
        assert [(one.id, one.match) for one in await found(teacher, f"bò {word}")] == wanted

    async def test_among_equals_is_newest_first(self, teacher: Author) -> None:
        word = fresh()
        made = [(await teacher.story(f"{word} {n}")).id for n in range(3)]
        assert await ids(teacher, word) == made[::-1]

    async def test_goes_on_over_pages_through_every_kind_and_match(self, teacher: Author) -> None:
        word = fresh()
        for n in range(3):
            await teacher.story(f"{word} {n}")
            await teacher.story(f"Khác {n}", text=f"Ở đây có {word}.")
            await teacher.course(f"{word} {n}")
        everything = [one.id for one in await found(teacher, word)]
        paged, token = [], ""
        while True:
            page = await search(teacher, word, page_size=2, page_token=token)
            paged += [one.id for one in page.results]
            if not (token := page.next_page_token):
                break
        assert len(everything) == 9
        assert paged == everything

    async def test_refuses_a_token_of_another_query(self, teacher: Author) -> None:
        word = fresh()
        for n in range(2):
            await teacher.story(f"{word} {n}")
        first = await search(teacher, word, page_size=1)
        async with refused("INVALID_PAGE_TOKEN"):
            await search(teacher, f"{word} 1", page_size=1, page_token=first.next_page_token)


class TestTypos:
    async def test_are_forgiven_in_titles_where_nothing_holds_the_words(self, teacher: Author) -> None:
        word = fresh("quymbloq")
        right = await teacher.story(f"Truyện {word}")
        for typo in (word[:3] + word[4:], word[:4] + "x" + word[5:], f"truyen {word[:-1]}z"):
            results = await found(teacher, typo, types=[STORY])
            assert results[0].id == right.id, typo
            assert {one.match for one in results} == {SIMILAR}
        assert [one.match for one in await found(teacher, word)] == [EXACT_TITLE]

    async def test_come_in_pages_too(self, teacher: Author) -> None:
        stem = fresh("vakromp")
        made = {(await teacher.story(f"{stem}{letter}q")).id for letter in "abcd"}
        everything = await ids(teacher, f"{stem}xw", types=[STORY])
        assert made <= set(everything)
        first = await search(teacher, f"{stem}xw", types=[STORY], page_size=3)
        rest = await search(teacher, f"{stem}xw", types=[STORY], page_size=3, page_token=first.next_page_token)
        assert [one.id for one in (*first.results, *rest.results)] == everything[:6]


class TestSight:
    async def test_of_learners_is_the_published_version_alone(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        old, new, later = fresh(), fresh(), fresh()
        story = await teacher.story(f"Tựa {old}", text=f"Bản cũ {old}.")
        assert await ids(student, old) == []
        await publish_approved(story.id)
        await teacher.rewrite(story.id, f"Bản nháp {new}.")
        await teacher.retitle(story.id, f"Tựa {later}")
        (seen,) = await found(student, old)
        assert (seen.id, seen.title) == (story.id, f"Tựa {old}")
        assert seen.snippet == f"Bản cũ {old}."
        for hidden in (new, later, f"{later[:-1]}"):
            assert await found(student, hidden) == []
        assert [one.title for one in await found(teacher, new)] == [f"Tựa {later}"]
        assert await found(teacher, old) == []

    async def test_of_learners_has_no_similar_titles_of_drafts(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        hidden, shown = fresh("wrimblock"), fresh("yastorfu")
        story = await teacher.story(f"Tựa {shown}")
        await publish_approved(story.id)
        await teacher.retitle(story.id, hidden)
        assert story.id in await ids(teacher, f"{hidden[:-2]}qq")
        assert await found(student, f"{hidden[:-2]}qq", types=[STORY]) == []
        assert (await ids(student, f"{shown[:-2]}qq", types=[STORY]))[0] == story.id

    async def test_ends_with_archiving_and_deleting(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        word = fresh()
        story = await teacher.story(word)
        await publish_approved(story.id)
        assert await ids(student, word) == [story.id]
        await teacher.stories.ArchiveStory(stories_pb2.ArchiveStoryRequest(id=story.id))
        assert await ids(student, word) == []
        assert await ids(teacher, word) == [story.id]
        await teacher.stories.DeleteStory(stories_pb2.DeleteStoryRequest(id=story.id))
        assert await ids(teacher, word) == []
        await teacher.stories.UndeleteStory(stories_pb2.UndeleteStoryRequest(id=story.id))
        assert await ids(teacher, word) == [story.id]

    async def test_of_learners_has_the_lessons_of_their_courses(
        self, school: School, teacher: Author, student: Author
    ) -> None:
        word = fresh()
        course = await teacher.course(published=True)
        unit = await teacher.unit(course.id)
        lesson = await teacher.lesson(unit.id, f"Bài {word}", published=True)
        await teacher.lesson(unit.id, f"Nháp {word}")
        await teacher.enrol(course.id, student.person)
        await school.settle()
        assert await ids(student, word) == [lesson.id]
        assert await ids(Author(school.student2), word) == []
        assert len(await ids(teacher, word, types=[LESSON])) == 2

    async def test_of_those_who_may_list_nothing_of_a_kind_is_without_it(
        self, school: School, teacher: Author, publish_approved: PublishApproved
    ) -> None:
        word = fresh()
        story = await teacher.story(word)
        await teacher.learn_words((word, "thing", "noun"))
        await publish_approved(story.id)
        auditor = Author(school.auditor)
        assert await ids(auditor, word) == [story.id]
        assert await found(auditor, word, types=[VOCABULARY]) == []

    async def test_stays_within_the_tenant(self, teacher: Author, outsider: Author) -> None:
        word = fresh()
        await teacher.story(word)
        await teacher.course(word)
        assert await found(outsider, word) == []

    async def test_obeys_policies(self, school: School, teacher: Author) -> None:
        word = fresh()
        hidden, shown = await teacher.story(word, language="la"), await teacher.story(word, language="vi")
        stub = school.admin.stub(ResourcePolicyServiceStub, "identity")
        policy = policies_pb2.ResourcePolicy(name=word, resource="story", actions=["list"])
        policy.effect = policies_pb2.POLICY_EFFECT_DENY
        policy.conditions.list_value.values.add().struct_value.update(
            {"field": "story.language", "operator": "eq", "value": "la"}
        )
        made = await stub.CreateResourcePolicy(policies_pb2.CreateResourcePolicyRequest(policy=policy))
        assert set(await ids(teacher, word)) == {hidden.id, shown.id}
        await stub.ActivateResourcePolicy(policies_pb2.ActivateResourcePolicyRequest(id=made.id))
        await _until(lambda: ids(teacher, word), [shown.id])
        await stub.DeactivateResourcePolicy(policies_pb2.DeactivateResourcePolicyRequest(id=made.id))


async def _until(ask: Any, wanted: list[str]) -> None:
    """Policies are in force within two seconds."""
    async with asyncio.timeout(5):
        while await ask() != wanted:
            await asyncio.sleep(0.05)


class TestKinds:
    async def test_are_what_is_asked_for(self, teacher: Author) -> None:
        word = fresh()
        story = await teacher.story(word)
        course = await teacher.course(f"Khoá {word}")
        lesson = await teacher.lesson((await teacher.unit(course.id)).id, f"Bài {word}")
        await teacher.learn_words((word, "thing", "noun"))
        results = {one.type: one for one in await found(teacher, word)}
        assert results.keys() == {STORY, COURSE, LESSON, VOCABULARY}
        assert (results[STORY].id, results[COURSE].id, results[LESSON].id) == (story.id, course.id, lesson.id)
        assert (results[VOCABULARY].title, results[VOCABULARY].snippet) == (word, f"thing\nthing: {word}.")
        assert await ids(teacher, word, types=[COURSE]) == [course.id]
        assert await ids(teacher, word, language="fr") == []
        assert len(await ids(teacher, word, language="vi")) == 4

    async def test_follow_changes_of_what_they_say(self, teacher: Author) -> None:
        before, after = fresh(), fresh()
        course = await teacher.course(before)
        lesson = await teacher.lesson((await teacher.unit(course.id)).id, before)
        await teacher.courses.UpdateCourse(
            courses_pb2.UpdateCourseRequest(course=courses_pb2.Course(id=course.id, description=after))
        )
        await teacher.lessons.UpdateLesson(
            lessons_pb2.UpdateLessonRequest(lesson=lessons_pb2.Lesson(id=lesson.id, title=after))
        )
        assert set(await ids(teacher, after)) == {course.id, lesson.id}
        assert await ids(teacher, before) == [course.id]

    async def test_vocabularies_are_found_by_their_forms_and_translations(self, teacher: Author) -> None:
        term, form, other = fresh(), fresh(), fresh()
        word = vocabularies_pb2.Vocabulary(term=term, translation=other, part_of_speech="PART_OF_SPEECH_NOUN")
        word.forms.add(form=form)
        made = await teacher.words.CreateVocabulary(vocabularies_pb2.CreateVocabularyRequest(vocabulary=word))
        for query in (term, form, other):
            assert await ids(teacher, query) == [made.id]


class TestHighlights:
    async def test_are_ranges_of_plain_text(self, teacher: Author) -> None:
        word = fresh()
        text = "Mở đầu dài dòng. " * 20 + f"<script>alert('{word}')</script> Chợ {word} họp sớm. " + "Kết thúc. " * 30
        await teacher.story(f"<b>Chợ</b> 🎪 {word}", text=text)
        (one,) = await found(teacher, f"cho {word}")
        assert one.title == f"<b>Chợ</b> 🎪 {word}"
        assert marked(one.title, one.title_highlights) == ["Chợ", word]
        assert one.snippet in text
        assert len(one.snippet) <= 210
        assert marked(one.snippet, one.snippet_highlights) == [word, "Chợ", word]

    async def test_show_the_beginning_where_the_text_has_none_of_the_words(self, teacher: Author) -> None:
        word = fresh()
        await teacher.story(word, text="Một hai ba. " * 50)
        (one,) = await found(teacher, word)
        assert one.snippet.startswith("Một hai ba. Một")
        assert not one.snippet_highlights
