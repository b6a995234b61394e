"""Pure decisions of the identity service."""

import base64
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.access import Snapshot
from kit.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from kit.ids import SYSTEM_TENANT
from services.identity import backoff, rules
from services.identity.rules import Refresh, RefreshSecret, Rotation
from storyloom.identity.v1.tenants_pb2 import TenantSettings

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def snapshot(*permissions: tuple[str, str]) -> Snapshot:
    return Snapshot(tenant_id=uuid4(), user_id=uuid4(), roles=frozenset(), permissions=frozenset(permissions))


class TestRefresh:
    @pytest.mark.parametrize(
        ("token", "session", "after", "verdict"),
        [
            (0, 0, 0, Refresh.ROTATE),
            (7, 7, 86400, Refresh.ROTATE),
            (6, 7, 0, Refresh.REPLAY),
            (6, 7, 10, Refresh.REPLAY),
            (6, 7, 10.001, Refresh.REUSE),
            (5, 7, 0, Refresh.REUSE),
            (0, 7, 1, Refresh.REUSE),
        ],
    )
    def test_only_the_immediate_parent_is_replayable_and_only_briefly(self, token, session, after, verdict):
        assert rules.refresh(token, session, NOON, NOON + timedelta(seconds=after)) is verdict

    @given(st.integers(0, 5), st.integers(0, 5), st.floats(0, 100))
    def test_a_token_that_rotated_twice_ago_never_works(self, token, older, after):
        verdict = rules.refresh(token, token + 2 + older, NOON, NOON + timedelta(seconds=after))
        assert verdict is Refresh.REUSE


class TestRefreshSecret:
    @given(st.uuids(), st.uuids())
    def test_comes_back_from_its_text(self, tenant, session):
        secret = RefreshSecret.new(tenant, session)
        assert RefreshSecret.parse(secret.text) == secret

    @given(st.text(max_size=120))
    def test_refuses_other_texts_alike(self, text):
        with pytest.raises(Unauthenticated, match="not valid"):
            RefreshSecret.parse(text)

    def test_refuses_a_shorter_token(self):
        short = base64.urlsafe_b64encode(bytes(63)).decode()
        with pytest.raises(Unauthenticated):
            RefreshSecret.parse(short)

    @given(st.text(max_size=120))
    def test_of_another_kind_is_refused_in_its_own_words(self, text):
        with pytest.raises(Unauthenticated, match="invitation is not valid"):
            rules.InvitationSecret.parse(text)

    def test_what_is_stored_does_not_reveal_the_token(self):
        secret = RefreshSecret.new(uuid4(), uuid4())
        assert secret.secret not in secret.digest


class TestBackoff:
    def test_the_first_failures_cost_nothing(self):
        failures, last = 0, NOON
        for _ in range(backoff.ACCOUNT_AT_ADDRESS.free - 1):
            failures, until = backoff.ACCOUNT_AT_ADDRESS.after_failure(failures, last, NOON)
            assert until == NOON
        failures, until = backoff.ACCOUNT_AT_ADDRESS.after_failure(failures, last, NOON)
        assert until == NOON + SECOND

    @given(st.integers(0, 10_000))
    def test_delays_never_shrink_and_are_bounded(self, failures):
        one = backoff.ACCOUNT_AT_ADDRESS
        _, this = one.after_failure(failures, NOON, NOON)
        _, following = one.after_failure(failures + 1, NOON, NOON)
        assert this <= following <= NOON + one.longest

    def test_a_quiet_hour_is_forgiven(self):
        assert backoff.ACCOUNT_AT_ADDRESS.after_failure(500, NOON, NOON + timedelta(hours=1, seconds=1))[0] == 1

    def test_nobody_waits_longer_than_half_a_minute(self):
        for one in (backoff.ACCOUNT_AT_ADDRESS, backoff.ADDRESS):
            assert one.after_failure(10_000, NOON, NOON)[1] == NOON + 30 * SECOND

    @pytest.mark.parametrize(
        ("account", "address", "until"),
        [
            (None, None, None),
            (None, (NOON, 30), None),
            ((NOON, 4), None, 4),
            ((NOON, 0), (NOON, 0), 0),
            ((NOON, 0), (NOON + 60 * SECOND, 30), 30),
            ((NOON, 30), (NOON + 60 * SECOND, 8), 30),
        ],
    )
    def test_the_delay_of_an_address_counts_from_the_accounts_own_failure(self, account, address, until):
        rows = [one and SimpleNamespace(last_failed_at=one[0], blocked_until=one[0] + one[1] * SECOND)
                for one in (account, address)]  # fmt: skip
        assert backoff.refused_until(*rows) == (None if until is None else NOON + until * SECOND)

    def test_a_school_behind_one_address_is_not_slowed(self):
        assert backoff.ADDRESS.after_failure(60, NOON, NOON) == (61, NOON)


class TestRotation:
    @pytest.mark.parametrize(
        ("active_for", "published_for", "step"),
        [
            (timedelta(days=1), None, Rotation.NONE),
            (timedelta(days=30), None, Rotation.PUBLISH),
            (timedelta(days=30), timedelta(seconds=119), Rotation.NONE),
            (timedelta(days=30), timedelta(seconds=120), Rotation.PROMOTE),
        ],
    )
    def test_a_key_is_published_one_cache_period_before_it_signs(self, active_for, published_for, step):
        published_at = None if published_for is None else NOON - published_for
        assert rules.rotation(NOON - active_for, published_at, NOON) is step

    def test_a_retired_key_outlives_its_tokens(self):
        assert rules.RETIRED_BEFORE_REMOVAL > rules.ACCESS_TOKEN_LIFETIME

    def test_ended_sessions_are_remembered_longer_than_their_tokens_live(self):
        assert rules.REVOCATION_MEMORY > rules.ACCESS_TOKEN_LIFETIME


class TestCheckGrant:
    @pytest.mark.parametrize(
        ("held", "given_away"),
        [
            ([("all", "manage")], [("all", "manage"), ("story", "publish")]),
            ([("story", "manage")], [("story", "publish"), ("story", "manage")]),
            ([("all", "read")], [("story", "read"), ("all", "read")]),
            ([], []),
        ],
    )
    def test_lets_give_what_one_has(self, held, given_away):
        rules.check_grant(snapshot(*held), given_away)

    @pytest.mark.parametrize(
        ("held", "given_away"),
        [
            ([], [("story", "read")]),
            ([("story", "publish")], [("story", "manage")]),
            ([("story", "manage")], [("all", "manage")]),
            ([("story", "read")], [("all", "read")]),
            ([("all", "read")], [("story", "manage")]),
            ([("story", "read")], [("story", "read"), ("user", "delete")]),
        ],
    )
    def test_refuses_more_than_one_has(self, held, given_away):
        with pytest.raises(PermissionDenied):
            rules.check_grant(snapshot(*held), given_away)


class TestStates:
    def test_an_invited_user_who_was_barred_is_only_invited_again(self):
        assert rules.reactivated("deactivated", has_password=False) == "invited"
        assert rules.reactivated("deactivated", has_password=True) == "active"

    @pytest.mark.parametrize("status", ["active", "invited"])
    def test_only_a_deactivated_user_is_reactivated(self, status):
        with pytest.raises(FailedPrecondition):
            rules.reactivated(status, has_password=True)

    def test_the_platform_itself_cannot_be_suspended(self):
        with pytest.raises(FailedPrecondition):
            rules.suspended(SYSTEM_TENANT, "active")
        assert rules.suspended(uuid4(), "active") == "suspended"


class TestSettings:
    def test_what_is_not_set_has_its_default(self):
        settings = rules.settings_of(TenantSettings(approval_required=False, learning_language="fr"))
        assert settings == {**rules.DEFAULT_SETTINGS, "approval_required": False, "learning_language": "fr"}


class TestPoliciesInForce:
    def test_are_two_hundred_at_most(self):
        assert rules.put_in_force("draft", 199) == "active"
        with pytest.raises(FailedPrecondition):
            rules.put_in_force("draft", 200)

    def test_begin_and_end_once(self):
        assert rules.taken_out_of_force("active") == "draft"
        for change in (lambda: rules.put_in_force("active", 1), lambda: rules.taken_out_of_force("draft")):
            with pytest.raises(FailedPrecondition):
                change()

    def test_are_not_deleted(self):
        rules.check_draft("draft")
        with pytest.raises(FailedPrecondition):
            rules.check_draft("active")
