"""Settings: what is missing or wrong is named before anything starts."""

import base64
from dataclasses import fields
from typing import Any

import pytest

from kit.server import run
from kit.settings import SERVICES, Settings, SettingsError, decoded_key

REQUIRED = {
    "DATABASE_URL": "postgresql://somewhere/storyloom",
    "SECRET_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
    "SERVICE_CREDENTIAL": "{}",
    "SERVICE_KEYS": "{}",
}


def read(**changes: str) -> Settings:
    return Settings.from_environment("content", REQUIRED | changes)


class TestEnvironment:
    def test_the_required_ones_are_enough(self) -> None:
        settings = read()
        assert (settings.service, settings.pool_size, settings.default_deadline) == ("content", 8, 10.0)

    @pytest.mark.parametrize("name", REQUIRED)
    def test_a_missing_one_is_named_with_what_it_is_for(self, name: str) -> None:
        with pytest.raises(SettingsError, match=rf"^{name} is not set: \S"):
            Settings.from_environment("content", {k: v for k, v in REQUIRED.items() if k != name})

    @pytest.mark.parametrize(
        ("name", "text"), [("POOL_SIZE", "eight"), ("POOL_SIZE", "8.5"), ("POOL_SIZE", ""), ("DRAIN_GRACE", "10s")]
    )
    def test_a_number_that_is_none_is_named_with_what_was_said(self, name: str, text: str) -> None:
        with pytest.raises(SettingsError, match=f"^{name} is '{text}', not a number"):
            read(**{name: text})

    def test_numbers_are_numbers(self) -> None:
        settings = read(POOL_SIZE="3", QUEUE_TIMEOUT="2")
        assert (settings.pool_size, settings.queue_timeout) == (3, 2.0)
        assert isinstance(settings.queue_timeout, float)

    def test_the_service_is_not_taken_from_the_environment(self) -> None:
        assert read(SERVICE="audit").service == "content"

    def test_every_setting_says_what_it_is(self) -> None:
        assert all(len(one.metadata["doc"]) > 10 for one in fields(Settings) if one.name != "service")

    @pytest.mark.parametrize("service", SERVICES)
    def test_every_service_has_an_address(self, service: str) -> None:
        assert read(**{f"{service.upper()}_ADDRESS": "localhost:1"}).address_of(service) == "localhost:1"

    def test_a_process_without_them_says_so_and_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in REQUIRED:
            monkeypatch.delenv(name, raising=False)

        def build(settings: Settings) -> Any:
            pytest.fail("nothing may be built")

        with pytest.raises(SystemExit, match="content: DATABASE_URL is not set"):
            run("content", build)


class TestKey:
    @pytest.mark.parametrize("padding", ["", "="])
    def test_is_32_bytes_with_or_without_padding(self, padding: str) -> None:
        text = REQUIRED["SECRET_KEY"].rstrip("=") + padding
        assert decoded_key("SECRET_KEY", text) == bytes(range(32))

    @pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
    def test_of_another_size_is_refused(self, size: int) -> None:
        text = base64.urlsafe_b64encode(bytes(size)).decode()
        with pytest.raises(SettingsError, match=f"^SECRET_KEY has {size} bytes instead of 32"):
            _ = read(SECRET_KEY=text).secret

    @pytest.mark.parametrize("text", ["a", "é" * 43])
    def test_of_another_alphabet_is_refused_without_being_told(self, text: str) -> None:
        with pytest.raises(SettingsError, match=r"^SECRET_KEY is not base64url$"):
            _ = read(SECRET_KEY=text).secret
