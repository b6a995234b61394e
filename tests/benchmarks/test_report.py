"""What is told of a run: verdicts, tables, the file and the comparison with it."""

from typing import Any

import pytest

from benchmarks import report
from benchmarks.report import Measured, Report, verdict


def measured(**changes: Any) -> Measured:
    values: dict[str, Any] = {
        "name": "list-stories",
        "rate": 400.0,
        "p50": 10.0,
        "p99": 20.0,
        "answered": 3200,
        "failed": 0,
        "octets": 5000.0,
        "cpu": {"gateway": 300.0, "content": 500.0, "postgres": 100.0},
        "echo": 250.0,
        "others": 0.05,
        "target": 747.0,
    }
    return Measured(**{**values, **changes})


def run(*scenarios: Measured) -> Report:
    return Report("2 processors", "wrk", 8, scenarios=list(scenarios))


class TestVerdict:
    @pytest.mark.parametrize(
        ("value", "limit", "told"),
        [
            (747, 747, "met by 0 %"),
            (600, 800, "met by 25 %"),
            (1000, 800, "missed by 25 %"),
            (1600, 800, "missed by 100 %"),
        ],
    )
    def test_tells_the_share_of_the_limit(self, value: float, limit: float, told: str):
        assert verdict(value, limit) == told


class TestWeaving:
    def test_sets_a_limit_to_the_grading_of_simple_questions(self) -> None:
        told = report.grading(report.Grading({"one choice": 5.5, "a number": 6.5, "6 stems": 9.0}, 300.0))
        assert [line.split()[2:5] for line in told[1:3]] == [["5.5", "6.0", "met"], ["6.5", "6.0", "missed"]]
        assert told[3].split() == ["6", "stems", "9.0"]

    def test_holds_the_short_story_against_its_target_and_each_longer_one_against_the_one_before(self):
        told = report.weaving(report.Weaving({2_000: 15.0, 20_000: 180.0, 200_000: 3240.0}, 300.0))
        verdicts = [line.split("  ")[-1].strip() for line in told[1:]]
        assert verdicts == ["met by 17 %", "met by 0 %", "missed by 50 %"]


class TestCosts:
    def test_holds_the_sum_against_the_target_on_the_reference_machine(self):
        line = report.costs(run(measured()))[1].split()
        assert line[:1] + line[-8:] == ["list-stories", "900", "5%", "250", "747", "missed", "by", "20", "%"]

    def test_allows_more_on_a_slower_machine(self):
        line = report.costs(run(measured(echo=350.0)))[1].split()
        assert line[-8:] == ["900", "5%", "350", "1046", "met", "by", "14", "%"]

    def test_judges_nothing_without_target(self):
        assert report.costs(run(measured(target=None)))[1].split()[-3:] == ["250", "–", "–"]

    def test_leaves_out_programs_that_are_elsewhere(self):
        line = report.costs(run(measured(cpu={"gateway": 300.0})))[1].split()
        assert line[1:8] == ["300", "–", "–", "–", "–", "–", "–"]


class TestLatencies:
    def test_quotes_the_first_error(self):
        lines = report.latencies(run(measured(failed=3, first_error="503 no upstream")))
        assert lines[-1] == "  list-stories: first error: 503 no upstream"


class TestSignIns:
    def test_are_held_against_argon2_and_against_calls_without_them(self):
        found = report.SignIns(20.0, 0, "", 25_000.0, 27_500.0, (10.0, 23.0), (4.0, 4.0))
        lines = report.sign_ins(found)
        assert lines[0].startswith("20 sign-ins a second")
        assert [" ".join(line.split()[-9:]) for line in lines[1:]] == [
            "sign-in 25000 27500 1.10 1.20 met by 8 %",
            "story 10.0 23.0 2.30 1.15 missed by 100 %",
            "account 4.0 4.0 1.00 1.15 met by 13 %",
        ]

    def test_that_failed_fail_the_bench(self):
        found = run(measured())
        found.sign_ins = report.SignIns(20.0, 2, "429", 1.0, 1.0, (1.0, 1.0), (1.0, 1.0))
        assert report.sign_ins(found.sign_ins)[-1] == "  2 errors, the first: 429"
        assert found.failed == 2
        assert found.to_json()["sign_ins"]["failed"] == 2


class TestMemories:
    def test_judges_gateway_and_services_by_rss_and_the_stack_by_pss(self):
        found = run()
        found.memory, found.stack_memory = {"gateway": 81.0, "audit": 121.0, "postgres": 900.0}, 512.0
        lines = [line.split() for line in report.memories(found)[1:]]
        assert [(line[0], " ".join(line[-4:])) for line in lines] == [
            ("gateway", "met by 10 %"),
            ("audit", "missed by 10 %"),
            ("whole", "met by 50 %"),
        ]


class TestComparison:
    def test_divides_by_the_earlier_run_as_its_file_has_it(self, tmp_path: Any):
        file = tmp_path / "deeper" / "bench.json"
        report.save(run(measured(rate=200.0, p50=20.0)), file)
        lines = report.comparison(run(measured()), report.load(file))
        assert lines[1].split() == ["list-stories", "2.00", "0.50", "1.00", "1.00"]

    def test_is_not_fooled_by_a_slower_machine(self):
        earlier = run(measured()).to_json()
        slower = run(measured(cpu={"gateway": 1800.0}, echo=500.0))
        assert report.comparison(slower, earlier)[1].split()[-1] == "1.00"

    def test_skips_what_the_earlier_run_had_not(self):
        assert len(report.comparison(run(measured()), run().to_json())) == 1

    def test_refuses_another_kind_of_file(self, tmp_path: Any):
        file = tmp_path / "other.json"
        file.write_text("[]")
        with pytest.raises(ValueError, match="no results"):
            report.load(file)


class TestTable:
    def test_aligns_the_first_column_to_the_left_and_the_others_to_the_right(self):
        assert report.table([("a", "b"), ("long", "1234")]) == ["a        b", "long  1234"]
