"""A day in the life of an offline phone, through the real gateway."""

import re

import pytest

from deploy.phone import Day
from tests.running import Running


class TestDay:
    def test_ends_with_both_devices_and_the_server_in_agreement(
        self, platform: Running, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Day(platform.url, platform.password).live()
        said = capsys.readouterr().out
        for outcome in (
            "tablet: 3 accepted (the last of it first)",
            "5 duplicate (again: the answer was lost)",
            "tablet: 3 duplicate, 2 accepted",
            "1 rejected: CONFLICT",
            "The phone, the tablet and the server have the same",
            "the same to the last digit",
        ):
            assert outcome in said, said
        assert re.search(r"bus +\w+ +2 reviews, seen 1×", said)
        assert re.search(r"Bài 1 +COMPLETED +100 %", said)
        assert re.search(r"session +ENDED +23s active, 12 taps", said)
