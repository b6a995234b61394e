"""What a teacher does to bring a story to the class, in calls of the API."""

from typing import Any

from deploy.demo import data
from deploy.rest import Rest

TARGETS = (("PART_OF_SPEECH_NOUN", "0.4"), ("PART_OF_SPEECH_VERB", "0.2"))
WEAVE = {"targets": [{"partOfSpeech": part, "ratio": ratio} for part, ratio in TARGETS]}


def add_vocabulary(teacher: Rest, words: list[dict[str, Any]]) -> int:
    """Adds the words; returns how many were new."""
    results = teacher.post("/v1/vocabularies:batchCreate", {"vocabularies": words})["results"]
    return sum("vocabulary" in result for result in results)


def create_story(teacher: Rest, text: data.StoryText, lesson_id: str) -> Any:
    """The story as a draft."""
    story = {"title": text.title, "text": text.text, "lessonId": lesson_id, **data.LANGUAGES}
    return teacher.post("/v1/stories", story)


def request_approval(teacher: Rest, story: Any) -> Any:
    """Asks for approval of the story's current version."""
    version = story["currentVersion"]
    return teacher.post("/v1/approvals", {"entityType": "story_version", "entityId": version["id"]})


def create_quiz(teacher: Rest, slug: str, title: str, lesson_id: str) -> Any:
    """The story's questions and a published quiz of them."""
    made = [teacher.post("/v1/questions", question) for question in data.questions(slug)]
    items = [{"questionId": question["id"], "points": "2"} for question in made]
    quiz = teacher.post("/v1/quizzes", {"title": title, "lessonId": lesson_id, "items": items, "passMark": "60"})
    return teacher.post(f"/v1/quizzes/{quiz['id']}:publish")
