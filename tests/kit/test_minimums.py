"""What is older than what the platform works with is refused at the start, in words."""

import re
from pathlib import Path

import pytest

from kit.db import Database
from kit.minimums import ENVOY, GRPCIO, POSTGRESQL, refuse_older
from kit.server import Service
from kit.telemetry import Telemetry
from tests.kit.toy import Toy

LOCK = Path(__file__).parents[2] / "requirements.lock"
FUTURE = (9999,)


class TestRefuseOlder:
    @pytest.mark.parametrize("found", ["18", "18.0", "18.6 (Debian 18.6-1)", "19beta1", "100.1"])
    def test_takes_what_is_new_enough(self, found: str) -> None:
        refuse_older("PostgreSQL", found, POSTGRESQL)

    @pytest.mark.parametrize("found", ["1.39.9", "0.41", "1", "v1.40", ""])
    def test_refuses_what_is_older_or_no_version(self, found: str) -> None:
        with pytest.raises(RuntimeError, match=r"Envoy 1\.40 or newer is needed"):
            refuse_older("Envoy", found, ENVOY)


class TestGrpcio:
    def test_is_at_least_what_the_lock_says(self) -> None:
        locked = re.search(r"^grpcio==(\d+)\.(\d+)\.", LOCK.read_text(), re.MULTILINE)
        assert locked is not None
        assert tuple(map(int, locked.groups())) == GRPCIO

    async def test_that_is_older_keeps_a_service_from_starting(
        self, toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kit.server.GRPCIO", FUTURE)
        service = Service(toy.settings, callers=lambda service, caller: False)
        with pytest.raises(RuntimeError, match=r"grpcio 9999 or newer is needed, and this is 1\."):
            await service.start()
        await service.db.close()


class TestPostgresql:
    async def test_that_is_older_keeps_a_service_from_starting(
        self, toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kit.db.POSTGRESQL", FUTURE)
        url = toy.settings.database_url
        db = Database(url, service="toy", pool_size=1, telemetry=Telemetry(toy.settings))
        with pytest.raises(RuntimeError, match="PostgreSQL 9999 or newer is needed, and this is 18"):
            await db.check_role()
        monkeypatch.undo()
        await db.check_role()
        await db.close()
