"""Metrics for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from retrieval.server.generations import Generations

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Metrics of one server, in their own registry."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "twotower_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "twotower_request_seconds",
            "Time from the head of a request to the last byte of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge("twotower_requests_in_flight", "Requests in flight.", registry=registry)
        self._items = Gauge("twotower_items", "Items that can be recommended.", registry=registry)
        self._generation = Gauge("twotower_generation", "Generation of the bundle that is served.", registry=registry)
        self._opened = Gauge("twotower_generations_opened", "Generations opened since the start.", registry=registry)
        self._trouble = Gauge(
            "twotower_reload_failing", "1 if a newer generation could not be opened.", registry=registry
        )
        self._index = Info("twotower_index", "The index that is served.", registry=registry)

    def started(self) -> None:
        self._in_flight.inc()

    def finished(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the declared path, so that the number of labels stays bounded."""
        self._in_flight.dec()
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        present = self._generations.present
        self._items.set(present.count)
        self._generation.set(present.bundle.generation)
        self._opened.set(self._generations.opened)
        self._trouble.set(self._generations.trouble is not None)
        self._index.info({"kind": present.kind, "pair_id": present.bundle.pair_id})
        page: bytes = generate_latest(self._registry)
        return page
