"""The roles that tenants and the platform start with."""

import pytest

from services.identity.catalogue import APPROVABLE, catalogue, is_known
from services.identity.policies import PLATFORM_ROLES, TENANT_ROLES

ROLES = {**TENANT_ROLES, **PLATFORM_ROLES}
ALL_ROWS = ("story", "lesson", "quiz", "progress", "attempt", "learning_session", "enrollment", "audit_log", "user")


class TestDefaultRoles:
    @pytest.mark.parametrize("slug", ROLES)
    def test_hold_only_permissions_of_the_catalogue(self, slug):
        assert [pair for pair in ROLES[slug].pairs if not is_known(pair)] == []

    def test_students_hold_nothing_that_covers_drafts_or_other_learners(self):
        assert not {resource for resource, _ in TENANT_ROLES["student"].pairs} & {*ALL_ROWS, "all", "course", "unit"}

    def test_auditors_read_the_audit_log_and_nothing_else(self):
        actions = ("read", "list", "export", "watch")
        assert TENANT_ROLES["auditor"].pairs == {("audit_log", action) for action in actions}

    def test_teachers_manage_neither_people_nor_roles(self):
        actions = {pair for pair in TENANT_ROLES["teacher"].pairs if pair[0] in {"user", "role", "tenant", "audit_log"}}
        assert actions == {("user", "read"), ("user", "list"), ("role", "list")}

    def test_only_administrators_may_do_everything(self):
        everything = {slug for slug, role in ROLES.items() if ("all", "manage") in role.pairs}
        assert everything == {"admin", "super_admin"}


class TestCatalogue:
    def test_holds_what_the_services_declare(self):
        assert {("story", "publish"), ("audit_log", "list"), ("quiz", "create"), ("user", "set_roles")} <= catalogue()

    def test_holds_the_approval_of_whatever_can_be_approved(self):
        assert {(resource, "approve") for resource in APPROVABLE} <= catalogue()

    @pytest.mark.parametrize("pair", [("all", "manage"), ("story", "manage"), ("all", "read")])
    def test_knows_the_wildcards(self, pair):
        assert is_known(pair)

    @pytest.mark.parametrize("pair", [("dragon", "manage"), ("story", "fly"), ("all", "fly"), ("manage", "all")])
    def test_knows_nothing_else(self, pair):
        assert not is_known(pair)
