"""vLLM's metric families that belong to a server as a whole, whatever the number of its ranks."""

from collections.abc import Callable

from benchmarks.engine.families import Families
from benchmarks.engine.settings import EngineSettings

_HTTP_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5),
    *(7.5, 10, 30, 60),
)


class FrontendMetrics:
    """Counts what the API server does."""

    def __init__(self, families: Families, settings: EngineSettings, wall: Callable[[], float]) -> None:
        self._wall = wall
        # Each engine has its own start, though several may share a process: a router tells lives apart by it.
        families.gauge("process_start_time_seconds", "When the engine started.").set(wall())
        self._rejections(families, settings.model)
        self._http_requests = families.counter(
            "http_requests", "Requests answered.", ["method", "status", "handler"]
        )
        self._http_latency = families.histogram(
            "http_request_duration_highr_seconds", "Request to the end of its answer.", buckets=_HTTP_BUCKETS
        )
        self._adapters(families, settings.max_loras)

    def rejected(self) -> None:
        """A request found the queue full."""
        self._rejected.inc()

    def http(self, handler: str, method: str, status: int, elapsed: float) -> None:
        """A request was answered; ``handler`` is the path of the route."""
        self._http_requests.labels(handler=handler, method=method, status=f"{status // 100}xx").inc()
        self._http_latency.observe(elapsed)

    def adapters(self, rank: int, running: frozenset[str], waiting: frozenset[str]) -> None:
        """The adapters in use on a rank changed; a running one counts as waiting too, as in vLLM."""
        self._in_use[rank] = running, waiting
        if self._lora is not None:
            all_running = frozenset().union(*(used[0] for used in self._in_use.values()))
            all_waiting = all_running.union(*(used[1] for used in self._in_use.values()))
            self._lora.labels(
                max_lora=self._max_loras,
                running_lora_adapters=",".join(sorted(all_running)),
                waiting_lora_adapters=",".join(sorted(all_waiting)),
            ).set(self._wall())

    def _rejections(self, families: Families, model: str) -> None:
        rejections = families.counter(
            "vllm:admission_rejections", "Requests that found the queue full.", ["model_name", "reason"]
        )
        by_limit = {
            limit: rejections.labels(model_name=model, reason=limit)
            for limit in ("max_num_queued_reqs", "max_num_queued_tokens")
        }
        self._rejected = by_limit["max_num_queued_reqs"]

    def _adapters(self, families: Families, max_loras: int) -> None:
        self._max_loras = str(max_loras)
        self._in_use: dict[int, tuple[frozenset[str], frozenset[str]]] = {}
        self._lora = None
        if max_loras:
            labels = ["max_lora", "waiting_lora_adapters", "running_lora_adapters"]
            text = "Adapters in use; the value is the time of the last change."
            self._lora = families.gauge("vllm:lora_requests_info", text, labels)
            self.adapters(0, frozenset(), frozenset())
