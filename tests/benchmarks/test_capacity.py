"""The capacity model counts what was measured, and nothing else."""

import json
from typing import Any

import pytest

from tools.capacity import LARGE_ROWS, MEASURED, Use, count, told

ACTIONS = ("join", "sign-in", "meet-words", "home", "list-stories", "read-story", "sync", "start-quiz", "submit-quiz")


def measured(**cpu: dict[str, float]) -> dict[str, Any]:
    """Acts that cost nothing but what is said, and leave a row of a hundred bytes each sync."""
    actions = {name: {"cpu": cpu.get(name.replace("-", "_"), {}), "rows": {}} for name in ACTIONS}
    actions["sync"]["rows"] = {"learning.client_events": 2.0, "learning.inbox": 1.0, "learning.outbox": 1.0}
    return {"actions": actions, "bytes": dict.fromkeys(actions["sync"]["rows"], 100)}


class TestCount:
    def test_of_the_busiest_second_is_of_those_who_are_there(self) -> None:
        use = Use(learners=36_000, homes=10, busiest_day=0.5, busiest_hour=0.2)
        found = count(use, measured(home={"gateway": 1_000.0, "learning": 500.0}))
        # 18,000 learners ask ten times each, and a fifth of that in an hour.
        assert found.cores["gateway"] == pytest.approx(18_000 * 10 * 0.2 / 3600 * 0.001)
        assert found.cores["learning"] == pytest.approx(found.cores["gateway"] / 2)

    def test_of_rows_is_of_a_year(self) -> None:
        found = count(Use(learners=1, active_days=100, sittings=3), measured())
        assert found.rows["learning.client_events"] == 100 * 3 * 2
        assert found.octets["learning.client_events"] == 100 * 3 * 2 * 100

    def test_leaves_out_what_goes_by_itself(self) -> None:
        found = count(Use(learners=1, active_days=365, sittings=1), measured())
        assert found.rows["learning.inbox"] == pytest.approx(30)
        assert found.rows["learning.outbox"] == 0

    def test_of_processes_is_two_at_least(self) -> None:
        few, many = (count(Use(learners=n), measured(home={"learning": 10_000.0})) for n in (10, 1_000_000))
        assert few.processes("learning", 0.6) == few.processes("audit", 0.6) == 2
        assert many.processes("learning", 0.6) >= many.cores["learning"] / 0.6 > 2


class TestTold:
    def test_says_which_tables_to_split(self) -> None:
        rows = count(Use(learners=1), measured(home={"learning": 1.0})).rows["learning.client_events"]
        for learners, wanted in ((1_000, False), (int(LARGE_ROWS / rows) + 1, True)):
            use = Use(learners=learners)
            lines = list(told(use, count(use, measured(home={"learning": 1.0})), 0.6))
            line = next(line for line in lines if line.startswith("learning.client_events"))
            assert line.endswith("split") == wanted


class TestMeasured:
    def test_has_every_act_of_the_model(self) -> None:
        found = json.loads(MEASURED.read_text())
        use = Use(learners=1)
        assert use.daily.keys() | use.yearly.keys() <= found["actions"].keys()
        assert {table for one in found["actions"].values() for table in one["rows"]} <= found["bytes"].keys()
        assert count(use, found).requests > 0
