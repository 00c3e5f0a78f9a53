"""What Prometheus is told, in a registry of the service's own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from .limits import Room

SECONDS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts of requests, images and batches, and how long they took."""

    def __init__(self, room: Room) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("kiln_requests", "requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram("kiln_request_seconds", "from its headers to the end of the answer", ["route"],
                                 buckets=SECONDS, registry=registry)
        self.batch_rows = Histogram("kiln_batch_images", "images that shared a batch", buckets=ROWS, registry=registry)
        self.batch_seconds = Histogram("kiln_inference_seconds", "of a batch", buckets=SECONDS, registry=registry)
        Gauge("kiln_queue_images", "images that wait or are computed", registry=registry).set_function(
            lambda: room.images)
        Gauge("kiln_queue_bytes", "bytes of the requests in hand", registry=registry).set_function(lambda: room.bytes)

    def exposed(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
