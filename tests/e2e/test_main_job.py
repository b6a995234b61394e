"""The main job, from the teacher's draft to the auditor's proof, through the real gateway."""

import asyncio
import re
import subprocess
import sys
from typing import Any

import pytest

from deploy.demo import data
from deploy.demo.__main__ import publish_when_approved
from deploy.demo.authoring import WEAVE, add_vocabulary, create_quiz, create_story, request_approval
from deploy.rest import Rest, RestError
from deploy.tour import SLUG, Tour, answers
from tests.running import Running


class TestTour:
    def test_walks_the_whole_main_job(self, platform: Running, capsys: pytest.CaptureFixture[str]) -> None:
        Tour(platform.url, platform.password).walk()
        said = capsys.readouterr().out
        assert "8 of 10 points, passed" in said
        assert "403 SELF_APPROVAL" in said
        assert "404 RESOURCE_NOT_FOUND: another school's story" in said
        assert "nouns 22/56, verbs 4/19" in said
        assert len(re.findall(r"trace [0-9a-f]{32}\n", said)) == said.count("     trace ")

    def test_the_demo_school_has_three_real_stories(self, platform: Running) -> None:
        student = platform.sign_in("khoa")
        stories = [
            student.get(f"/v1/stories/{story['id']}", view="FULL")
            for story in student.get("/v1/stories", pageSize=100)["stories"]
        ]
        demo = [story for story in stories if story["currentVersion"]["wordCount"] >= 300]
        assert len({story["title"] for story in demo}) >= 3
        for story in demo:
            chunks = story["currentVersion"]["chunks"]
            unwoven = (chunk["text"] if chunk["kind"].endswith("NORMAL") else chunk["source"] for chunk in chunks)
            assert "".join(unwoven) == story["currentVersion"]["text"]
            assert any(chunk["kind"].endswith("CHEM") for chunk in chunks)


class TestTrace:
    def spans(self, platform: Running, trace_id: str) -> str:
        environment = {"RUN_DIRECTORY": str(platform.settings.directory), "PYTHONPATH": "gen"}
        command = [sys.executable, "-m", "deploy.local", "trace", trace_id]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    async def test_one_trace_has_gateway_service_database_and_the_services_called(self, platform: Running) -> None:
        teacher = platform.sign_in("lan")
        lesson = new_lesson(teacher)
        story = woven_story(teacher, lesson)
        request_approval(teacher, story)
        trace_id = teacher.trace_id
        await asyncio.sleep(3)
        tree = self.spans(platform, trace_id)
        assert re.search(r"storyloom-gateway +/storyloom.audit.v1.ApprovalService/CreateApproval", tree)
        assert re.search(r" audit +storyloom.audit.v1.ApprovalService/CreateApproval", tree)
        assert re.search(r" content +storyloom.content.v1.StoryVersionService/GetStoryVersion", tree)
        assert re.search(r" content +SELECT content.story_versions", tree)
        assert re.search(r" audit +INSERT audit.approvals", tree)


def new_lesson(teacher: Rest) -> Any:
    """A published lesson in a course of its own."""
    course = teacher.post("/v1/courses", {"title": "c", "storyLanguage": "vi", "learningLanguage": "en"})
    teacher.post(f"/v1/courses/{course['id']}:publish")
    unit = teacher.post("/v1/units", {"courseId": course["id"], "title": "u"})
    lesson = teacher.post("/v1/lessons", {"unitId": unit["id"], "title": "l"})
    return teacher.post(f"/v1/lessons/{lesson['id']}:publish")


def woven_story(teacher: Rest, lesson: Any) -> Any:
    text = data.story(SLUG)
    add_vocabulary(teacher, data.vocabulary(text.text))
    story = create_story(teacher, text, lesson["id"])
    return teacher.post(f"/v1/stories/{story['id']}:weave", WEAVE)


class TestRules:
    def test_nothing_is_published_without_approval(self, platform: Running) -> None:
        teacher = platform.sign_in("lan")
        story = woven_story(teacher, new_lesson(teacher))
        with pytest.raises(RestError) as caught:
            teacher.post(f"/v1/stories/{story['id']}:publish")
        assert (caught.value.status, caught.value.reason) == (400, "APPROVAL_REQUIRED")

    def test_an_edit_after_the_approval_needs_a_new_one(self, platform: Running) -> None:
        teacher, approver = platform.sign_in("lan"), platform.sign_in("minh")
        story = woven_story(teacher, new_lesson(teacher))
        approval = request_approval(teacher, story)
        approver.post(f"/v1/approvals/{approval['id']}:approve")
        teacher.patch(f"/v1/stories/{story['id']}", {"text": "Một câu chuyện khác."})
        with pytest.raises(RestError) as caught:
            publish_when_approved(teacher, story["id"], timeout=1)
        assert caught.value.reason == "APPROVAL_REQUIRED"

    def test_no_answer_key_reaches_a_student_before_the_submit(self, platform: Running) -> None:
        teacher, student = platform.sign_in("lan"), platform.sign_in("mai")
        lesson = new_lesson(teacher)
        quiz = create_quiz(teacher, SLUG, "q", lesson["id"])
        seen = str(student.get(f"/v1/quizzes/{quiz['id']}"))
        attempt = student.post(f"/v1/quizzes/{quiz['id']}/attempts")
        seen += str(attempt) + str(student.get(f"/v1/attempts/{attempt['id']}"))
        for question in data.questions(SLUG):
            for choice in question["choices"]:
                assert choice["feedback"] not in seen
            for blank in question["blanks"]:
                assert not any(f"'{one['text']}'" in seen for one in blank["accepted"])
        assert "'correct'" not in seen
        result = student.post(
            f"/v1/attempts/{attempt['id']}:submit", {"responses": list(answers(attempt["questions"]))}
        )["result"]
        assert (result["score"], result["maxScore"], result["passed"]) == ("8", "10", True)
