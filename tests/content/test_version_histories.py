"""Histories of two stories, made at random, against a model: which versions there are, and which is published."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storyloom.content.v1 import publications_pb2, stories_pb2, story_versions_pb2
from storyloom.content.v1.stories_pb2 import StoryStatus
from storyloom.content.v1.story_versions_pb2 import StoryVersion
from tests.content.conftest import Author
from tests.profile import PROOF
from tests.stack import School, refused

TEXTS = ("Ghe.\r\n\r\nGhe của ông nội.", "Dòng sông và ghe.", "Nam ngồi.")
TITLES = ("Một", "Hai")
STORIES = st.integers(0, 1)
# Of versions: from the latest back.
BACK = st.integers(0, 5)
# Calls on the event loop of the stack, from the thread of the machine.
Wait = Callable[..., Any]


@dataclass
class Model:
    """A story as it must be. Versions are numbered by their place here; `approved` and `published` are such places."""

    id: str
    versions: list[StoryVersion]
    approved: set[int] = field(default_factory=set)
    published: int | None = None
    archived: bool = False

    @property
    def last(self) -> int:
        return len(self.versions) - 1

    def place(self, back: int) -> int:
        return max(self.last - back, 0)

    def supersede(self, made: StoryVersion) -> None:
        """An edit takes back the approval of the version that it follows, unless that is published."""
        if self.published != self.last:
            self.approved.discard(self.last)
        self.versions.append(made)

    def refusal(self, place: int) -> str:
        """Why the version cannot be published."""
        return "WRONG_STATE" if self.archived else "" if place in self.approved else "APPROVAL_REQUIRED"


def bare(version: StoryVersion) -> StoryVersion:
    """What must never change: all but the approval."""
    copy = StoryVersion()
    copy.CopyFrom(version)
    copy.ClearField("approval_id")
    copy.ClearField("approved")
    return copy


def histories(school: School, teacher: Author, teacher2: Author, wait: Wait) -> type[RuleBasedStateMachine]:
    class Histories(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            made = [wait(teacher.story, TITLES[0], TEXTS[0]) for _ in range(2)]
            self.models = [Model(one.id, [self.full(one.current_version.id)]) for one in made]

        def full(self, version_id: str) -> StoryVersion:
            request = story_versions_pb2.GetStoryVersionRequest(id=version_id)
            return wait(teacher.versions.GetStoryVersion, request)

        def attempt(self, reason: str, call: Callable[..., Any], *given: Any) -> Any:
            async def refusing() -> None:
                async with refused(reason):
                    await call(*given)

            return wait(refusing) if reason else wait(call, *given)

        def edit(self, model: Model, changes: bool, call: Callable[..., Any], *given: Any) -> None:
            made = self.attempt("WRONG_STATE" if model.archived else "", call, *given)
            if made and changes:
                model.supersede(self.full(made.current_version.id))

        @rule(number=STORIES, text=st.sampled_from(TEXTS))
        def rewrite(self, number: int, text: str) -> None:
            model = self.models[number]
            self.edit(model, model.versions[-1].text != text, teacher.rewrite, model.id, text)

        @rule(number=STORIES, title=st.sampled_from(TITLES))
        def retitle(self, number: int, title: str) -> None:
            model = self.models[number]
            self.edit(model, model.versions[-1].title != title, teacher.retitle, model.id, title)

        @rule(number=STORIES, ratio=st.sampled_from(["0", "0.5", "1"]))
        def weave(self, number: int, ratio: str) -> None:
            model = self.models[number]
            self.edit(model, True, teacher.weave, model.id, ratio)

        @rule(number=STORIES, back=BACK)
        def restore(self, number: int, back: int) -> None:
            model = self.models[number]
            place = model.place(back)
            old = model.versions[place]
            request = story_versions_pb2.RestoreStoryVersionRequest(story_id=model.id, version_id=old.id)
            made = self.attempt("WRONG_STATE" if model.archived else "", teacher.versions.RestoreStoryVersion, request)
            if not made or place == model.last:
                return
            approved = place in model.approved
            model.supersede(self.full(made.story_version.id))
            new = model.versions[-1]
            for name in ("title", "text", "content_hash", "seed"):
                assert getattr(new, name) == getattr(old, name)
            assert list(new.chunks) == list(old.chunks)
            if approved:
                model.approved.add(model.last)

        @precondition(lambda self: any(one.last not in one.approved and not one.archived for one in self.models))
        @rule()
        def approve(self) -> None:
            for model in self.models:
                if model.last not in model.approved and not model.archived:
                    approval = wait(teacher.ask_approval, model.versions[-1].id)
                    wait(teacher2.approve, approval.id)
                    model.approved.add(model.last)
            wait(school.settle)

        @rule(number=STORIES, back=BACK)
        def publish(self, number: int, back: int) -> None:
            model = self.models[number]
            place = model.place(back)
            reason = model.refusal(place)
            self.attempt(reason, teacher.publish, model.id, model.versions[place].id)
            if not reason:
                model.published = place

        @rule(backs=st.tuples(BACK, BACK))
        def publish_together(self, backs: tuple[int, int]) -> None:
            """Both or none, and as the preview says."""
            places = [model.place(back) for model, back in zip(self.models, backs, strict=True)]
            items = [
                publications_pb2.PublicationItem(story_id=model.id, version_id=model.versions[place].id)
                for model, place in zip(self.models, places, strict=True)
            ]
            reasons = [model.refusal(place) for model, place in zip(self.models, places, strict=True)]
            request = publications_pb2.PreviewPublicationRequest(items=items)
            preview = wait(teacher.publications.PreviewPublication, request)
            assert [bool(one.reason) for one in preview.stories] == [bool(reason) for reason in reasons]
            wanted = publications_pb2.CreatePublicationRequest(items=items)
            made = self.attempt(next(filter(None, reasons), ""), teacher.publications.CreatePublication, wanted)
            if made:
                assert [one.outcome for one in made.stories] == [one.outcome for one in preview.stories]
                for model, place in zip(self.models, places, strict=True):
                    model.published = place

        @precondition(lambda self: any(one.published is not None and one.last > 4 for one in self.models))
        @rule(number=STORIES)
        def archive(self, number: int) -> None:
            model = self.models[number]
            reason = "WRONG_STATE" if model.archived or model.published is None else ""
            self.attempt(reason, teacher.stories.ArchiveStory, stories_pb2.ArchiveStoryRequest(id=model.id))
            model.archived = model.archived or not reason

        @invariant()
        def current_is_the_last_and_one_at_most_is_published(self) -> None:
            for model in self.models:
                story = wait(teacher.read, model.id)
                assert bare(story.current_version) == bare(model.versions[-1])
                assert story.title == model.versions[-1].title
                assert story.current_version.approved == (model.last in model.approved)
                published = "" if model.published is None else model.versions[model.published].id
                assert story.published_version_id == published
                status = "ARCHIVED" if model.archived else "PUBLISHED" if published else "DRAFT"
                assert story.status == StoryStatus.Value(f"STORY_STATUS_{status}")

        def teardown(self) -> None:
            """Every version is still as it was made, byte for byte, and none is missing or double."""
            for model in self.models:
                request = story_versions_pb2.ListStoryVersionsRequest(story_id=model.id, page_size=100)
                listed = wait(teacher.versions.ListStoryVersions, request).story_versions
                assert [one.number for one in listed] == list(range(len(model.versions), 0, -1))
                for version in model.versions:
                    now = bare(self.full(version.id))
                    assert now.SerializeToString() == bare(version).SerializeToString()

    return Histories


async def test_are_as_the_model_says(
    school: School, teacher: Author, teacher2: Author, words: dict[str, str]
) -> None:
    loop = asyncio.get_running_loop()

    def wait(call: Callable[..., Any], *given: Any) -> Any:
        async def awaited() -> Any:
            return await call(*given)

        return asyncio.run_coroutine_threadsafe(awaited(), loop).result(30)

    machine = histories(school, teacher, teacher2, wait)
    limits = settings(
        max_examples=150 if PROOF else 6,
        stateful_step_count=30 if PROOF else 14,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=limits)
