"""Places and free ports for the runner's own tests."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.settings import Settings, read_settings
from kit.settings import SERVICES


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path that another OS user may pass through, as PostgreSQL has to when root runs it."""
    folder = Path(tempfile.mkdtemp(prefix="sl-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def settings(place: Path) -> Settings:
    """A stack's settings with its files in `place` and every port free."""
    variables = [f"{name.upper()}_ADDRESS" for name in (*SERVICES, "gateway", "trace")]
    found = read_settings({name: f"127.0.0.1:{free_port()}" for name in variables}, root=place)
    found.logs.mkdir(parents=True)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
