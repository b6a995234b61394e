"""What tracing costs is judged by the rounds' ratios, not by rounds of different moments."""

from benchmarks.tracing import rows


def test_a_round_that_was_slow_as_a_whole_changes_no_ratio() -> None:
    rounds = [{0: 100.0, 1: 102.0, 100: 130.0}, {0: 300.0, 1: 306.0, 100: 390.0}, {0: 90.0, 1: 99.0, 100: 117.0}]
    head, none, one, all_of_them = rows({"page": rounds})
    assert none == ("page", "0 %", "100", "", "", "", "")
    assert one == ("page", "1 %", "102", "1.020", "1.02 to 1.10", "1.05", "met by 3 %")
    assert all_of_them[:5] == ("page", "100 %", "130", "1.300", "1.30 to 1.30")
    assert len({len(row) for row in (head, none, one, all_of_them)}) == 1
