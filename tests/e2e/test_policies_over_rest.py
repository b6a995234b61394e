"""Policies as clients of the gateway write them: JSON, as it is documented."""

import pytest

from tests.running import Running

pytestmark = pytest.mark.slow
CONDITIONS = [
    {"field": "story.status", "operator": "eq", "value": "published"},
    {"field": "user.role", "operator": "in", "value": ["student", "teacher"], "logic": "and"},
    {"field": "user.attributes.floor", "operator": "lte", "value": 2.5},
]


class TestPolicies:
    def test_say_as_json_what_they_said_when_written(self, platform: Running) -> None:
        admin = platform.sign_in("admin")
        text = {"name": "Over REST", "resource": "story", "actions": ["read"], "effect": "POLICY_EFFECT_DENY"}
        made = admin.post("/v1/policies", text | {"conditions": CONDITIONS})
        assert made["conditions"] == CONDITIONS
        assert admin.get(f"/v1/policies/{made['id']}")["conditions"] == CONDITIONS

    def test_are_tried_on_examples(self, platform: Running) -> None:
        attributes = {"story.status": "published", "user.role": ["student"], "user.attributes.floor": 2}
        examples = [{"name": "met", "attributes": attributes}, {"name": "not met", "attributes": {}}]
        policy = {"resource": "story", "conditions": CONDITIONS}
        found = platform.sign_in("admin").post("/v1/policies:test", {"policy": policy, "examples": examples})
        assert [(one["name"], one["holds"]) for one in found["results"]] == [("met", True), ("not met", False)]
