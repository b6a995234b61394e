"""The embedded PostgreSQL starts, keeps its data, and lets in whom it should."""

import os
import shutil
from pathlib import Path

import asyncpg
import pytest

from deploy.local.environment import database_url
from deploy.local.errors import RunError
from deploy.local.postgres import Postgres
from deploy.local.processes import Child
from deploy.local.settings import Settings


async def started(settings: Settings) -> Child:
    postgres = Postgres(settings, lambda _: None)
    await postgres.prepare()
    child = Child(postgres.program(), lambda _: None)
    await child.start()
    return child


@pytest.mark.slow
class TestPostgres:
    async def test_keeps_its_data_and_asks_roles_for_their_password(self, settings: Settings) -> None:
        child = await started(settings)
        connection = await asyncpg.connect(settings.admin_url)
        await connection.execute("CREATE ROLE reader LOGIN PASSWORD 'right'")
        await connection.execute("CREATE DATABASE storyloom OWNER reader")
        await connection.close()
        await child.stop(grace=10)

        child = await started(settings)
        try:
            connection = await asyncpg.connect(database_url(settings.admin_url, "reader", "right"))
            assert await connection.fetchval("SELECT current_user::text") == "reader"
            assert await connection.fetchval("SHOW server_version_num") >= "180000"
            assert await connection.fetchval("SHOW listen_addresses") == ""
            locale = "SELECT datlocprovider::text || ' ' || datlocale FROM pg_database WHERE datname = 'storyloom'"
            assert await connection.fetchval(locale) == "b C.UTF-8"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            await connection.close()
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(database_url(settings.admin_url, "reader", "wrong"))
            assert settings.socket_directory.stat().st_mode & 0o077 == 0
        finally:
            await child.stop(grace=10)
            shutil.rmtree(settings.socket_directory)

    async def test_other_data_is_left_alone(self, settings: Settings) -> None:
        data = settings.directory / "postgres"
        data.mkdir()
        (data / "thesis.txt").write_text("years of work")
        if os.geteuid() == 0:
            os.chown(data, 65534, 65534)
        with pytest.raises(RunError, match="is not empty and not a PostgreSQL data directory"):
            await Postgres(settings, lambda _: None).prepare()
        assert (data / "thesis.txt").read_text() == "years of work"

    async def test_data_of_another_version_is_refused(self, settings: Settings) -> None:
        data = settings.directory / "postgres"
        data.mkdir()
        (data / "PG_VERSION").write_text("17\n")
        with pytest.raises(RunError, match="holds data of PostgreSQL 17, this is 18"):
            await Postgres(settings, lambda _: None).prepare()

    async def test_a_socket_directory_of_someone_else_is_not_used(self, settings: Settings, place: Path) -> None:
        data = settings.directory / "postgres"
        data.mkdir()
        (data / "PG_VERSION").write_text("18\n")
        settings.socket_directory.symlink_to(place)
        try:
            with pytest.raises(RunError, match="is not a directory of our own"):
                await Postgres(settings, lambda _: None).prepare()
        finally:
            settings.socket_directory.unlink()
