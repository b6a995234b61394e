"""The API as the protos declare it now, and a configuration made from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.descriptors import DESCRIPTORS, Api
from gateway.envoy import write
from gateway.openapi import Document
from gateway.settings import Settings


@pytest.fixture(scope="session")
def descriptor_set() -> bytes:
    return DESCRIPTORS.read_bytes()


@pytest.fixture(scope="session")
def api(descriptor_set: bytes) -> Api:
    return Api(descriptor_set)


@pytest.fixture(scope="session")
def written(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that is written."""
    return write(api, Settings.read({}), tmp_path_factory.mktemp("gateway")).parent


@pytest.fixture(scope="session")
def configuration(written: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((written / "envoy.yaml").read_text(), Loader=yaml.CSafeLoader)
    return loaded


@pytest.fixture(scope="session")
def document(api: Api) -> dict[str, Any]:
    return Document(api).make()
