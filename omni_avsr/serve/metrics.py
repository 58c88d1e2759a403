"""What a server counts, for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

LATENCY = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
BATCH = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One registry per server, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, open files
        of: dict[str, Any] = {"registry": self.registry, "namespace": "omni_avsr"}
        self.requests = Counter("requests", "Answers by route and status.", ("route", "status"), **of)
        self.seconds = Histogram(
            "request_seconds", "From the first byte to the last.", ("route",), buckets=LATENCY, **of
        )
        self.present = Gauge("requests_present", "Requests that are admitted and not yet answered.", **of)
        self.uploads = Gauge("uploads_present", "Requests whose body is on its way.", **of)
        self.abandoned = Counter("requests_abandoned", "Requests whose client left before the answer.", **of)
        self.waiting = Gauge("utterances_waiting", "Utterances in line for the model.", **of)
        self.batch = Histogram("batch_utterances", "Utterances per call of the model.", buckets=BATCH, **of)
        self.model_seconds = Counter("model_seconds", "Spent in the model.", **of)
        self.media_seconds = Counter("media_seconds", "Of media transcribed.", **of)
