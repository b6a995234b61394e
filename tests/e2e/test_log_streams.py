"""The audit log's streams through the real gateway: a file to download, and news as server-sent events."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.running import Running

SETTLED_SECONDS = 10.0


@pytest.fixture(scope="module")
def client(platform: Running) -> Iterator[httpx.Client]:
    """An administrator of the demo school."""
    token = platform.sign_in("admin").token
    with httpx.Client(base_url=platform.url, headers={"authorization": f"Bearer {token}"}, timeout=20) as made:
        yield made


class TestExport:
    def test_is_one_file_with_its_own_content_type(self, client: httpx.Client) -> None:
        answer = client.post("/v1/auditLogs:export", json={})
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["content-type"] == "application/jsonl"
        first, *lines, last = map(json.loads, answer.text.splitlines())
        assert len(lines) == first["export"]["tree_size"] == last["end"]["rows"] > 100
        assert {line["index"] for line in lines} == set(range(len(lines)))

    def test_as_csv(self, client: httpx.Client) -> None:
        answer = client.post("/v1/auditLogs:export", json={"format": "AUDIT_LOG_FORMAT_CSV", "action": "publish"})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
        assert answer.text.startswith("id,occur_time,action,")
        assert answer.text.splitlines()[-1].startswith("end,")

    def test_refuses_before_the_first_byte_with_a_status(self, client: httpx.Client, platform: Running) -> None:
        student = f"Bearer {platform.sign_in('mai').token}"
        answer = client.post("/v1/auditLogs:export", json={}, headers={"authorization": student})
        assert answer.status_code == httpx.codes.FORBIDDEN
        assert answer.json()["details"][0]["reason"] == "PERMISSION_REQUIRED"


class TestWatch:
    def test_tells_of_each_entry_when_it_is_there(self, client: httpx.Client) -> None:
        headers = {"accept": "text/event-stream"}
        with client.stream("POST", "/v1/auditLogs:watch", json={"entityType": "audit_log"}, headers=headers) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            events = (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line)
            assert "heartbeat" in next(events)
            began = time.monotonic()
            client.get("/v1/auditLogs", params={"action": "publish"}).raise_for_status()
            for one in events:
                if one.get("auditLog", {}).get("action") == "read_audit_log":
                    break
                assert time.monotonic() - began < SETTLED_SECONDS
