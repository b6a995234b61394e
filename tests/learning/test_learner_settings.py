"""How learners want to review words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kit.ids import new_id
from storyloom.identity.v1.tenants_pb2 import GetMyTenantRequest, Tenant, TenantSettings, UpdateTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.learning.v1.learner_settings_pb2 import (
    GetLearnerSettingsRequest,
    LearnerSettings,
    UpdateLearnerSettingsRequest,
)
from storyloom.learning.v1.learner_settings_pb2_grpc import LearnerSettingsServiceStub
from tests.learning.conftest import ListEntries
from tests.learning.reviewing import make_words
from tests.learning.test_vocabulary_reviews import EASY, create, know, made
from tests.stack import Person, School, add_person, refused


async def update(person: Person, *mask: str, user_id: str = "", **values: Any) -> LearnerSettings:
    settings = LearnerSettings(user_id=user_id or person.user_id, **values)
    request = UpdateLearnerSettingsRequest(learner_settings=settings, update_mask=FieldMask(paths=mask))
    return await person.stub(LearnerSettingsServiceStub, "learning").UpdateLearnerSettings(request)


async def get(person: Person, user_id: str = "") -> LearnerSettings:
    request = GetLearnerSettingsRequest(user_id=user_id or person.user_id)
    return await person.stub(LearnerSettingsServiceStub, "learning").GetLearnerSettings(request)


async def learner(school: School) -> Person:
    return await add_person(school.admin, school.slug, f"chooser-{new_id()}", "student")


async def days_until_due(person: Person, word: str, ago: timedelta = timedelta(0)) -> int:
    review = await create(person, made(word, EASY, at=datetime.now(UTC) - ago))
    return (review.vocabulary_progress.due_time.ToDatetime() - review.review_time.ToDatetime()).days


class TestGetLearnerSettings:
    async def test_are_the_defaults_where_nothing_was_chosen(self, school: School) -> None:
        person = await learner(school)
        found = await get(person)
        assert (found.desired_retention, found.tenant_desired_retention) == ("", "0.9")
        assert (found.maximum_interval_days, found.new_words_per_day, found.time_zone) == (365, 20, "UTC")
        assert (found.etag, found.HasField("update_time")) == ("", False)

    async def test_are_the_learners_own(self, school: School) -> None:
        person = await learner(school)
        await update(person, new_words_per_day=5)
        assert (await get(school.admin, person.user_id)).new_words_per_day == 5
        async with refused("PERMISSION_REQUIRED"):
            await get(school.student2, person.user_id)
        for other in (school.outsider.user_id, str(new_id())):
            async with refused("RESOURCE_NOT_FOUND"):
                await get(school.admin, other)


class TestUpdateLearnerSettings:
    async def test_changes_what_is_named(self, school: School, entries_of: ListEntries) -> None:
        person = await learner(school)
        first = await update(person, desired_retention="0.850", time_zone="Asia/Ho_Chi_Minh", new_words_per_day=0)
        assert (first.desired_retention, first.time_zone, first.new_words_per_day) == ("0.85", "Asia/Ho_Chi_Minh", 0)
        second = await update(person, "desired_retention", etag=first.etag)
        assert (second.desired_retention, second.time_zone) == ("", "Asia/Ho_Chi_Minh")
        assert await get(person) == second
        entries = await entries_of(entity_type="learner_settings", user_id=person.user_id)
        assert [entry.action for entry in entries] == ["create", "update"]

    async def test_refuses_a_stale_etag(self, school: School) -> None:
        person = await learner(school)
        first = await update(person, new_words_per_day=5)
        await update(person, new_words_per_day=6)
        async with refused("STALE_ETAG"):
            await update(person, new_words_per_day=7, etag=first.etag)

    async def test_refuses_the_settings_of_others(self, school: School) -> None:
        person = await learner(school)
        for other, reason in ((school.student2, "PERMISSION_REQUIRED"), (school.admin, "RESOURCE_NOT_FOUND")):
            async with refused(reason):
                await update(other, user_id=person.user_id, new_words_per_day=5)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("desired_retention", "0.69"),
            ("desired_retention", "0.971"),
            ("desired_retention", "1"),
            ("maximum_interval_days", 6),
            ("maximum_interval_days", 3651),
            ("new_words_per_day", 201),
            ("time_zone", "Mars/Olympus"),
        ],
    )
    async def test_refuses_what_is_out_of_bounds(self, school: School, field: str, value: Any) -> None:
        async with refused("INVALID_FIELD", field=f"learner_settings.{field}"):
            await update(school.student, **{field: value})


class TestDesiredRetention:
    async def test_is_in_force_for_reviews_from_then_on(self, school: School) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 3)
        assert await days_until_due(person, words[0]) == 8
        await update(person, desired_retention="0.97")
        assert await days_until_due(person, words[1]) == 2
        # Done before, though it comes after.
        assert await days_until_due(person, words[2], ago=timedelta(hours=2)) == 8

    async def test_has_a_longest_interval(self, school: School) -> None:
        person = await learner(school)
        await update(person, maximum_interval_days=30)
        words = await make_words(school.teacher, 2)
        await know(person, words[0])
        assert await days_until_due(person, words[0]) == 30
        assert await days_until_due(person, words[1]) == 8

    async def test_of_the_tenant_holds_for_who_chose_none(self, school: School) -> None:
        tenants = school.outsider_admin.stub(TenantServiceStub, "identity")
        tenant = await tenants.GetMyTenant(GetMyTenantRequest())
        person, chooser = school.outsider, school.outsider_teacher
        await update(chooser, desired_retention="0.9")
        settings = TenantSettings()
        settings.CopyFrom(tenant.settings)
        settings.desired_retention = "0.8"
        settings.ClearField("quotas")
        try:
            await tenants.UpdateTenant(UpdateTenantRequest(tenant=Tenant(id=tenant.id, settings=settings)))
            await school.settle()
            (word,) = await make_words(chooser)
            assert (await get(person)).tenant_desired_retention == "0.8"
            assert await days_until_due(person, word) == 28
            assert await days_until_due(chooser, word) == 8
        finally:
            tenant.settings.ClearField("quotas")
            restored = Tenant(id=tenant.id, settings=tenant.settings)
            await tenants.UpdateTenant(UpdateTenantRequest(tenant=restored))
            await school.settle()
