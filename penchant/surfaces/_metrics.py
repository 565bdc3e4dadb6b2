"""Numbers of one shop's server for Prometheus: requests, events, the model that serves, jobs, the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penchant.core.errors import PenchantError

if TYPE_CHECKING:
    from penchant.engine import Engine, Jobs

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)


class Metrics:
    """The numbers of one shop. They name routes and states, never persons, items or addresses.

    Args:
        engine: The shop's engine.
        jobs: Gives its jobs; None while it has begun none.
    """

    def __init__(self, engine: Engine, jobs: Callable[[], Jobs | None]) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "penchant_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "penchant_request_seconds",
            "Seconds from the first byte of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_ShopNumbers(engine, jobs))
        ProcessCollector(registry=self.registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Note an answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)


class _ShopNumbers(Collector):
    """What is asked of the shop at each look."""

    def __init__(self, engine: Engine, jobs: Callable[[], Jobs | None]) -> None:
        self._engine, self._jobs = engine, jobs

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now; those that cannot be known are left out."""
        events = CounterMetricFamily(
            "penchant_events", "Events and messages told, by what became of them.", labels=("status",)
        )
        for status, count in sorted(self._engine.tally.items()):
            events.add_metric((status,), count)
        yield events
        try:
            serving, store = self._engine.serving, self._engine.shop.store
            degraded, last = serving.ranker.degraded, store.last_ts()
        except PenchantError:
            yield GaugeMetricFamily("penchant_up", "1 when the shop can be read.", 0)
            return
        yield GaugeMetricFamily("penchant_up", "1 when the shop can be read.", 1)
        yield GaugeMetricFamily(
            "penchant_degraded", "1 when something simpler answers than the promoted model.", int(degraded)
        )
        if last is not None:
            yield GaugeMetricFamily(
                "penchant_last_event_timestamp_seconds", "Time of the newest event.", last / 1e6
            )
        states = GaugeMetricFamily("penchant_jobs", "Jobs that wait or run.", labels=("state",))
        jobs = self._jobs()
        known = [] if jobs is None else [status.state for status in jobs.all()]
        for state in ("queued", "running"):
            states.add_metric((state,), known.count(state))
        yield states
