"""The policies of docs/authorization.md are what the API takes, and mean what the page says."""

import json
import re

import pytest
from google.protobuf.json_format import ParseDict

from storyloom.identity.v1 import policy_trials_pb2, resource_policies_pb2
from storyloom.identity.v1.policy_trials_pb2_grpc import PolicyTrialServiceStub
from storyloom.identity.v1.resource_policies_pb2_grpc import ResourcePolicyServiceStub
from tests.contract.tree import ROOT
from tests.stack import School

PAGE = (ROOT / "docs" / "authorization.md").read_text()
BLOCKS = re.findall(r"```json policy\n(.*?)```\s+```json examples\n(.*?)```", PAGE, re.DOTALL)
POLICIES = [pytest.param(*map(json.loads, block), id=json.loads(block[0])["name"]) for block in BLOCKS]


class TestEveryPolicyOnThePage:
    def test_is_found(self) -> None:
        assert len(POLICIES) == PAGE.count("```json policy") >= 4

    @pytest.mark.parametrize(("policy", "examples"), POLICIES)
    async def test_holds_where_the_page_says(self, school: School, policy: object, examples: list[dict]) -> None:
        request = policy_trials_pb2.TestPolicyRequest()
        sent = [{"attributes": one["attributes"]} for one in examples]
        ParseDict({"policy": policy, "examples": sent}, request)
        answer = await school.admin.stub(PolicyTrialServiceStub, "identity").TestPolicy(request)
        assert [one.holds for one in answer.results] == [one["holds"] for one in examples]

    @pytest.mark.parametrize(("policy", "examples"), POLICIES)
    async def test_can_be_stored(self, school: School, policy: object, examples: list[dict]) -> None:
        message = ParseDict(policy, resource_policies_pb2.ResourcePolicy())
        stub = school.admin.stub(ResourcePolicyServiceStub, "identity")
        made = await stub.CreateResourcePolicy(resource_policies_pb2.CreateResourcePolicyRequest(policy=message))
        assert made.state == resource_policies_pb2.POLICY_STATE_DRAFT
        await stub.DeleteResourcePolicy(resource_policies_pb2.DeleteResourcePolicyRequest(id=made.id))
