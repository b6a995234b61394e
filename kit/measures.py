"""What can be told of a service at any moment: who waits for what, what is taken of it, how often a cache knows."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

if TYPE_CHECKING:
    from kit.db import Database
    from kit.limiter import Limiter

T = TypeVar("T")
# Seconds: from what nobody notices to what nobody waits for.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
POOL = {"db.client.connection.pool.name": "storyloom"}
STATE = "db.client.connection.state"


class Tally:
    """How often a cache knew what it was asked for. Read by the metrics, written on the way of every call: two plain
    numbers cost a hundredth of what a counter of OpenTelemetry does."""

    __slots__ = ("hits", "misses")

    def __init__(self) -> None:
        self.hits = self.misses = 0


class Waits:
    """Those who wait for something scarce. Nobody who gets it at once comes here."""

    __slots__ = ("_refusal", "now", "refused", "tell")

    def __init__(self, refusal: type[Exception]) -> None:
        self._refusal = refusal
        self.now = self.refused = 0
        self.tell: Callable[[float], None] | None = None

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts somebody who waits, however that ends, and who ends it with a refusal."""
        started = time.perf_counter()
        self.now += 1
        try:
            yield
        except self._refusal:
            self.refused += 1
            raise
        finally:
            self.now -= 1
            if self.tell:
                self.tell(time.perf_counter() - started)


def measure_pool(meter: Meter, db: "Database") -> None:
    """Tells of the service's connections to its database, by the names of OpenTelemetry's conventions."""

    def connections() -> Iterable[tuple[int, dict[str, str]]]:
        yield db.pool.checkedout(), POOL | {STATE: "used"}
        yield db.pool.checkedin(), POOL | {STATE: "idle"}

    meter.create_observable_up_down_counter(
        "db.client.connection.count",
        [_observing(connections)],
        unit="{connection}",
        description="Connections to the database, by state.",
    )
    meter.create_observable_up_down_counter(
        "db.client.connection.max",
        [_observing(lambda: [(db.pool.size(), POOL)])],
        unit="{connection}",
        description="Connections that the process may have.",
    )
    meter.create_observable_up_down_counter(
        "db.client.connection.pending_requests",
        [_observing(lambda: [(db.waits.now, POOL)])],
        unit="{request}",
        description="Transactions that wait for a connection.",
    )
    meter.create_observable_counter(
        "db.client.connection.timeouts",
        [_observing(lambda: [(db.waits.refused, POOL)])],
        unit="{timeout}",
        description="Transactions that got no connection in time.",
    )
    waiting = meter.create_histogram(
        "db.client.connection.wait_time",
        unit="s",
        description="Time until a connection was there, of those for whom none was idle.",
        explicit_bucket_boundaries_advisory=SECONDS,
    )
    db.waits.tell = _telling(waiting, POOL)


def measure_limiters(meter: Meter, limiters: Mapping[str, "Limiter"]) -> None:
    """Tells of turns that are given out, by the limiter's name and nothing else: tenants are without number."""
    meter.create_observable_up_down_counter(
        "storyloom.limiter.slots",
        [_each(limiters, "limiter", lambda one: one.slots)],
        unit="{slot}",
        description="Calls that may be served at once.",
    )
    meter.create_observable_up_down_counter(
        "storyloom.limiter.held",
        [_each(limiters, "limiter", lambda one: one.held)],
        unit="{slot}",
        description="Calls that are being served.",
    )
    meter.create_observable_up_down_counter(
        "storyloom.limiter.waiting",
        [_each(limiters, "limiter", lambda one: one.waits.now)],
        unit="{call}",
        description="Calls that wait for their turn.",
    )
    meter.create_observable_counter(
        "storyloom.limiter.refused",
        [_each(limiters, "limiter", lambda one: one.waits.refused)],
        unit="{call}",
        description="Calls that were refused because no turn came.",
    )
    waiting = meter.create_histogram(
        "storyloom.limiter.wait",
        unit="s",
        description="Time until its turn came, of calls that had to wait for it.",
        explicit_bucket_boundaries_advisory=SECONDS,
    )
    for name, one in limiters.items():
        one.waits.tell = _telling(waiting, {"limiter": name})


def measure_caches(meter: Meter, caches: Mapping[str, Tally]) -> None:
    """Tells how often each cache was asked, and knew."""

    def read() -> Iterable[tuple[int, dict[str, str]]]:
        for name, tally in caches.items():
            yield tally.hits, {"cache": name, "outcome": "hit"}
            yield tally.misses, {"cache": name, "outcome": "miss"}

    meter.create_observable_counter(
        "storyloom.cache.requests",
        [_observing(read)],
        unit="{request}",
        description="Questions to a cache, by whether it knew the answer.",
    )


def _each(
    ones: Mapping[str, T], label: str, read: Callable[[T], int]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return _observing(lambda: [(read(one), {label: name}) for name, one in ones.items()])


def _observing(
    read: Callable[[], Iterable[tuple[int, dict[str, str]]]],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value, labels) for value, labels in read()]


def _telling(histogram: Histogram, labels: Mapping[str, str]) -> Callable[[float], None]:
    return lambda seconds: histogram.record(seconds, labels)
