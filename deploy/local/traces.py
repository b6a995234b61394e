"""Keeps recent traces: an OTLP receiver over gRPC that stores what arrives, undecoded, in a bounded SQLite file. Where
metrics are wanted too, it takes them for `metrics`."""

import asyncio
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from . import metrics
from .errors import RunError
from .settings import Address

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
# Some 200,000 spans. What a bench makes in minutes must not fill a disk.
KEPT_BYTES = 64 * 2**20
WAITING_BYTES = 16 * 2**20
WRITE_EVERY = 0.5
SCHEMA = "CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY, request BLOB NOT NULL)"


class TraceStore:
    """
    Batches of spans as they came, oldest dropped first.

    Decoding and indexing each span would cost more than the services' work on it. A reader looks for the sixteen
    bytes of a trace id in the raw batches instead: all of them in some 20 ms.
    """

    def __init__(self, file: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        try:
            self._open(file)
        except sqlite3.DatabaseError:
            # Torn by a power cut, as it is never synced: traces are not worth a repair.
            for name in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
                name.unlink(missing_ok=True)
            self._open(file)

    def _open(self, file: Path) -> None:
        # Made here with its mode, which the files beside it take over: spans are for the user's eyes.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(file, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "journal_size_limit=4194304"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(SCHEMA)
        size = "SELECT coalesce(sum(length(request)), 0) FROM batches"
        self._bytes = int(self._connection.execute(size).fetchone()[0])

    def add(self, request: bytes) -> None:
        """Takes a batch for the next write; drops it when the disk does not keep up."""
        if self._waiting_bytes + len(request) <= WAITING_BYTES:
            self._waiting.append(request)
            self._waiting_bytes += len(request)

    async def write_for_ever(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY)
            if self._waiting:
                await asyncio.to_thread(self.write)

    def write(self) -> None:
        """Writes what waits and drops what is too much. Called by one thread at a time."""
        batches, self._waiting, self._waiting_bytes = self._waiting, [], 0
        with self._connection as connection:
            connection.executemany("INSERT INTO batches (request) VALUES (?)", [(batch,) for batch in batches])
            self._bytes += sum(map(len, batches))
            while self._bytes > self._kept_bytes:
                oldest = "SELECT id, length(request) FROM batches ORDER BY id LIMIT 64"
                rows = connection.execute(oldest).fetchall()
                for number, size in rows:
                    if self._bytes > self._kept_bytes:
                        connection.execute("DELETE FROM batches WHERE id = ?", (number,))
                        self._bytes -= size
                if not rows:
                    self._bytes = 0

    def close(self) -> None:
        self.write()
        self._connection.close()


class TraceReceiver:
    """The gRPC server in front of a store; `metrics` is where Prometheus finds those that it is sent."""

    def __init__(self, address: Address, store: TraceStore, metrics: Address | None = None) -> None:
        self.address, self.store, self._metrics = address, store, metrics
        self._pages: asyncio.Server | None = None
        self._server: grpc.aio.Server | None = None
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # No (de)serializer: a request stays the bytes it came as, and the empty bytes are the empty response.
        handler = grpc.unary_unary_rpc_method_handler(self._export)
        server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", WAITING_BYTES)],
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
        if self._metrics:
            server.add_generic_rpc_handlers((await self._take_metrics(self._metrics),))
        try:
            server.add_insecure_port(str(self.address))
        except RuntimeError as error:
            raise RunError(f"Traces can't be received on {self.address}: set TRACE_ADDRESS to a free one.") from error
        await server.start()
        self._server = server
        self._writing = asyncio.create_task(self.store.write_for_ever())

    async def _take_metrics(self, address: Address) -> grpc.GenericRpcHandler:
        store = metrics.MetricStore()

        async def export(request: bytes, _: Any) -> bytes:
            store.add(request)
            return b""

        try:
            self._pages = await store.serve(address.host, address.port)
        except OSError as error:
            raise RunError(f"Metrics can't be shown on {address}: set METRICS_ADDRESS to a free one.") from error
        handler = grpc.unary_unary_rpc_method_handler(export)
        return grpc.method_handlers_generic_handler(metrics.SERVICE, {"Export": handler})

    async def _export(self, request: bytes, _: Any) -> bytes:
        self.store.add(request)
        return b""

    async def stop(self) -> None:
        if self._pages:
            self._pages.close()
        if self._server:
            await self._server.stop(grace=1.0)
        if self._writing:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        await asyncio.to_thread(self.store.close)
