"""Loads the demo school through the gateway, once: `python -m deploy.demo`. Later runs only say who may sign in."""

import os
import sys
import time
from typing import Any

from deploy.demo import data
from deploy.demo.authoring import WEAVE, add_vocabulary, create_quiz, create_story, request_approval
from deploy.local.settings import read_settings
from deploy.rest import Rest, RestError


class Loader:
    """One run: the platform's administrator makes the tenants, their people do the rest."""

    def __init__(self, gateway: Rest, password: str) -> None:
        self.gateway, self.password = gateway, password
        self.school = data.school()

    def load(self) -> None:
        slug = self.school["course"]["tenant"]
        if not self._is_loaded(slug):
            for tenant in self.school["tenants"]:
                self._found(tenant)
            self._load_course(slug)
        for tenant in self.school["tenants"]:
            for user in tenant["users"]:
                print(f"  {tenant['slug']:8} {user['email']:28} {'/'.join(user['roles']):8} {self.password}")

    def _is_loaded(self, slug: str) -> bool:
        try:
            teacher = self.sign_in(slug, self.school["course"]["teacher"])
        except RestError as error:
            if error.reason == "INVALID_CREDENTIALS":
                return False
            raise
        # The enrolments come last: with them everything before is there.
        return bool(teacher.get("/v1/enrollments", pageSize=1).get("enrollments"))

    def sign_in(self, slug: str, email: str) -> Rest:
        return self.gateway.sign_in(slug, email, self.password)

    def _found(self, tenant: dict[str, Any]) -> None:
        administrator, *others = tenant["users"]
        try:
            admin = self.sign_in(tenant["slug"], administrator["email"])
        except RestError as error:
            if error.reason != "INVALID_CREDENTIALS":
                raise
            self._create_tenant(tenant, administrator)
            admin = self.sign_in(tenant["slug"], administrator["email"])
        known = {user["email"] for user in admin.get("/v1/users", pageSize=100)["users"]}
        for user in others:
            if user["email"] not in known:
                person = {"email": user["email"], "displayName": user["display_name"], "roles": user["roles"]}
                admin.post("/v1/users", {"user": person, "password": self.password})

    def _create_tenant(self, tenant: dict[str, Any], administrator: dict[str, Any]) -> None:
        platform = self.gateway.sign_in(
            "platform", os.environ["PLATFORM_ADMIN_EMAIL"], os.environ["PLATFORM_ADMIN_PASSWORD"]
        )
        person = {"email": administrator["email"], "displayName": administrator["display_name"]}
        settings = {"storyLanguage": "vi", "learningLanguage": "en", "approvalRequired": True}
        platform.post(
            "/v1/tenants",
            {
                "tenant": {"slug": tenant["slug"], "name": tenant["name"], "settings": settings},
                "administrator": {**person, "password": self.password},
            },
        )

    def _load_course(self, slug: str) -> None:
        people = next(tenant["users"] for tenant in self.school["tenants"] if tenant["slug"] == slug)
        first, second = (user["email"] for user in people if "teacher" in user["roles"])
        teacher, approver = self.sign_in(slug, first), self.sign_in(slug, second)
        described = self.school["course"]
        languages = {"storyLanguage": "vi", "learningLanguage": "en"}
        course = teacher.post(
            "/v1/courses", {"title": described["title"], "description": described["description"], **languages}
        )
        teacher.post(f"/v1/courses/{course['id']}:publish")
        for unit in described["units"]:
            made = teacher.post("/v1/units", {"courseId": course["id"], "title": unit["title"]})
            for lesson in unit["lessons"]:
                self._load_lesson(teacher, approver, made["id"], lesson)
        for user in people:
            if "student" in user["roles"]:
                student = self.sign_in(slug, user["email"])
                teacher.post("/v1/enrollments", {"courseId": course["id"], "userId": student.user["id"]})

    def _load_lesson(self, teacher: Rest, approver: Rest, unit_id: str, lesson: dict[str, Any]) -> None:
        made = teacher.post("/v1/lessons", {"unitId": unit_id, "title": lesson["title"]})
        teacher.post(f"/v1/lessons/{made['id']}:publish")
        text = data.story(lesson["story"])
        words = add_vocabulary(teacher, data.vocabulary(text.text))
        story = create_story(teacher, text, made["id"])
        woven = teacher.post(f"/v1/stories/{story['id']}:weave", WEAVE)
        approval = request_approval(teacher, woven)
        approver.post(f"/v1/approvals/{approval['id']}:approve", {"comment": "Đã đọc."})
        publish_when_approved(teacher, story["id"])
        create_quiz(teacher, lesson["story"], f"Câu hỏi: {text.title}", made["id"])
        print(f"  {text.title}: {text.word_count} words, {words} new in the vocabulary")


def publish_when_approved(teacher: Rest, story_id: str, timeout: float = 5.0) -> Any:
    """Publishes once the approval, which travels as an event, has arrived."""
    give_up = time.monotonic() + timeout
    while True:
        try:
            return teacher.post(f"/v1/stories/{story_id}:publish")
        except RestError as error:
            if error.reason != "APPROVAL_REQUIRED" or time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def main() -> None:
    try:
        Loader(Rest(read_settings(os.environ).gateway_url), os.environ["DEMO_PASSWORD"]).load()
    except RestError as error:
        sys.exit(f"The demo school could not be loaded: {error}")


if __name__ == "__main__":
    main()
