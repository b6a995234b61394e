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
def configuration(api: Api, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = write(api, Settings.read({}), tmp_path_factory.mktemp("gateway"))
    loaded: dict[str, Any] = yaml.safe_load(Path(made).read_text())
    return loaded


@pytest.fixture(scope="session")
def document(api: Api) -> dict[str, Any]:
    return Document(api).make()
