"""Enums are stored under names that people read: without the enum's own name in front of each."""

from kit.enums import stored_name
from storyloom.learning.v1.progress_pb2 import ProgressStatus


class TestStoredName:
    def test_is_the_values_without_the_enums(self) -> None:
        assert stored_name(ProgressStatus, ProgressStatus.PROGRESS_STATUS_IN_PROGRESS) == "in_progress"

    def test_is_empty_for_the_unspecified_value(self) -> None:
        assert stored_name(ProgressStatus, ProgressStatus.PROGRESS_STATUS_UNSPECIFIED) == ""
