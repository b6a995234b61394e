"""A bucket of OpenStack Swift, which speaks S3, checks every signature and runs from a Python package."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store

from tests.stack import free_port

BIN = Path(sys.executable).parent
RINGS = ("account", "container", "object")
COMMON = """[swift-hash]
swift_hash_path_suffix = storyloom
[storage-policy:0]
name = one
default = yes
"""
BACKEND = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/node
mount_check = false
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors listing_formats s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_school_files = {secret} .admin
"""
# The rings of the three servers, each of one device: in a process of their own, for what Swift imports changes Python.
BUILD = """
import sys
from swift.common.ring import RingBuilder
for name, port in zip(("account", "container", "object"), sys.argv[2:]):
    ring = RingBuilder(2, 1, 0)
    where = {"ip": "127.0.0.1", "port": int(port), "device": "d1", "region": 1, "zone": 1, "weight": 1}
    ring.add_dev({**where, "replication_ip": "127.0.0.1", "replication_port": int(port), "meta": ""})
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""
FILTERS = ("catch_errors", "listing_formats", "s3api", "bulk", "slo")


@dataclass(frozen=True)
class Bucket:
    endpoint: str
    name: str = "storyloom"
    key: str = "school:files"
    secret: str = "not-a-secret"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "STORAGE_BUCKET": self.name,
            "STORAGE_ENDPOINT": self.endpoint,
            "STORAGE_ACCESS_KEY_ID": self.key,
            "STORAGE_SECRET_ACCESS_KEY": self.secret,
        }

    @property
    def store(self) -> S3Store:
        return S3Store(
            self.name,
            endpoint=self.endpoint,
            access_key_id=self.key,
            secret_access_key=self.secret,
            region="us-east-1",
            client_options={"allow_http": True},
        )


@asynccontextmanager
async def bucket() -> AsyncIterator[Bucket]:
    """An empty bucket on a server of its own."""
    folder = Path(tempfile.mkdtemp(prefix="storyloom-swift-"))
    ports = {name: free_port() for name in (*RINGS, "proxy")}
    _configure(folder, ports)
    servers = [_start(folder, name) for name in ports]
    found = Bucket(f"http://127.0.0.1:{ports['proxy']}")
    try:
        await _create(found, folder)
        yield found
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(10)
        shutil.rmtree(folder)


def _configure(folder: Path, ports: dict[str, int]) -> None:
    (folder / "node" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(COMMON)
    user = os.environ.get("USER") or subprocess.check_output(["whoami"], text=True).strip()
    for name in RINGS:
        (folder / f"{name}.conf").write_text(BACKEND.format(name=name, port=ports[name], folder=folder, user=user))
    subprocess.run([sys.executable, "-c", BUILD, folder, *(str(ports[name]) for name in RINGS)], check=True)
    text = PROXY.format(port=ports["proxy"], folder=folder, user=user, secret=Bucket.secret)
    text += "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in FILTERS)
    (folder / "proxy.conf").write_text(text)


def _start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [BIN / f"swift-{name}-server", folder / f"{name}.conf"],
            stdout=log,
            stderr=log,
            env={**os.environ, "SWIFT_DIR": str(folder)},
        )


async def _create(found: Bucket, folder: Path) -> None:
    """Makes the bucket, once all four servers answer."""
    url = obstore.sign(found.store, "PUT", "", timedelta(minutes=1))
    async with httpx.AsyncClient() as client:
        for _ in range(150):
            try:
                if (await client.put(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)
    raise RuntimeError(f"Swift does not start: {_last_words(folder)}")


def _last_words(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
