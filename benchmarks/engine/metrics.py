"""vLLM's metric families, with its labels and buckets, in a registry of their own.

Left out are the families that need a model, a GPU or an engine step: ``estimated_*``, ``iteration_tokens``,
``kv_block_*``, sleep operations, Python's and (but for the start time) the process's own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from benchmarks.engine.batch import Batch, Prefilled
from benchmarks.engine.settings import EngineSettings

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

_TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(20, 40, 80, 160, 640, 2560),
)
_PER_TOKEN_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(20, 40, 80),
)
_REQUEST_BUCKETS = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960),
    *(1920, 7680),
)
_HTTP_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5),
    *(7.5, 10, 30, 60),
)
_CACHE_CONFIG = {
    "_block_size_resolved": "True",
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "enable_mamba_shared_prefix_checkpoint": "False",
    "enable_prefix_caching": "True",
    "gpu_memory_utilization": "0.92",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "auto",
    "num_cpu_blocks": "None",
    "num_gpu_blocks_override": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "sha256",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
    "user_specified_block_size": "True",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that ran to its end; times in seconds of the engine's clock."""

    prefilled: Prefilled
    at: float
    reason: str
    """``stop`` or ``length``."""
    n: int
    max_tokens: int


class EngineMetrics:
    """Counts what one engine does."""

    def __init__(self, settings: EngineSettings, batch: Batch, wall: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._labels = {"model_name": settings.model, "engine": "0"}
        self._wall = wall
        self._token_buckets = _one_two_five(settings.max_model_len)
        self._gauges(settings, batch)
        self._counters()
        self._request_sizes()
        self._latencies()
        self._http()
        self._adapters(settings)

    def render(self) -> bytes:
        """The exposition, as ``/metrics`` answers it."""
        return generate_latest(self._registry)

    def prompt_computed(self, prompt: int, cached: int) -> None:
        """A prompt of so many tokens is computed; ``cached`` of them came from the prefix cache."""
        self._queries.inc(prompt)
        self._hits.inc(cached)
        self._prompt.inc(prompt)
        self._computed.inc(prompt - cached)
        self._from_cache.inc(cached)
        self._cached.inc(cached)
        self._cached_on_device.inc(cached)

    def first_token(self, waited: float) -> None:
        """The first token of an answer exists, ``waited`` seconds after the request came."""
        self._generation.inc()
        self._ttft.observe(waited)

    def tokens(self, count: int, elapsed: float) -> None:
        """``count`` more tokens of an answer, ``elapsed`` seconds after the one before them."""
        self._generation.inc(count)
        for _ in range(count):
            self._itl.observe(elapsed / count)

    def rejected(self) -> None:
        """A request found the queue full."""
        self._rejected.inc()

    def finished(self, end: Finished) -> None:
        """A request ran to its end. Aborted requests are not counted anywhere, as in vLLM."""
        job, first = end.prefilled.job, end.prefilled.at
        self._success[end.reason].inc()
        self._e2e.observe(end.at - end.prefilled.arrived)
        self._queue.observe(end.prefilled.started - end.prefilled.arrived)
        self._prefill.observe(first - end.prefilled.started)
        self._decode.observe(end.at - first)
        self._inference.observe(end.at - end.prefilled.started)
        self._per_token.observe((end.at - first) / max(1, len(job.output) - 1))
        self._request_prompt.observe(len(job.prompt))
        self._request_generation.observe(len(job.output))
        self._request_max.observe(len(job.output))
        self._params_n.observe(end.n)
        self._params_max_tokens.observe(end.max_tokens)
        self._preemptions.observe(0)
        self._prefill_computed.observe(len(job.prompt) - end.prefilled.cached)

    def adapters(self, running: frozenset[str], waiting: frozenset[str]) -> None:
        """The adapters in use changed; a running one counts as waiting too, as in vLLM."""
        if self._lora is not None:
            self._lora.labels(
                max_lora=self._max_loras,
                running_lora_adapters=",".join(sorted(running)),
                waiting_lora_adapters=",".join(sorted(running | waiting)),
            ).set(self._wall())

    def http(self, handler: str, method: str, status: int, elapsed: float) -> None:
        """A request was answered; ``handler`` is the path of the route."""
        self._http_requests.labels(handler=handler, method=method, status=f"{status // 100}xx").inc()
        self._http_latency.observe(elapsed)

    def _gauges(self, settings: EngineSettings, batch: Batch) -> None:
        self._gauge("num_requests_running", "Requests being computed.", lambda: batch.running)
        self._gauge("num_requests_waiting", "Requests in the queue.", lambda: batch.waiting)
        reasons = self._gauge_by(
            "num_requests_waiting_by_reason", "Requests in the queue, by reason.", "reason"
        )
        reasons.labels(**self._labels, reason="capacity").set_function(lambda: batch.waiting - batch.deferred)
        reasons.labels(**self._labels, reason="deferred").set_function(lambda: batch.deferred)
        sleep = self._gauge_by("engine_sleep_state", "1 for the state the engine is in.", "sleep_state")
        for state in ("awake", "weights_offloaded", "discard_all"):
            sleep.labels(**self._labels, sleep_state=state).set(state == "awake")
        self._gauge("kv_cache_usage_perc", "Share of the KV blocks in use.", lambda: batch.blocks.usage)
        config = _cache_config(settings)
        Gauge("vllm:cache_config_info", "KV cache settings.", list(config), registry=self._registry).labels(
            **config
        ).set(1)
        # Each engine has its own start, though several may share a process: a router tells lives apart by it.
        Gauge("process_start_time_seconds", "When the engine started.", registry=self._registry).set(
            self._wall()
        )

    def _counters(self) -> None:
        self._queries = self._counter("prefix_cache_queries", "Prompt tokens looked up.")
        self._hits = self._counter("prefix_cache_hits", "Prompt tokens found.")
        for family in ("external_prefix_cache_queries", "external_prefix_cache_hits"):
            self._counter(family, "Always 0: there is no external cache.")
        for family in ("mm_cache_queries", "mm_cache_hits"):
            self._counter(family, "Always 0: prompts are text.")
        self._counter("num_preemptions", "Always 0: a request starts with all the blocks it needs.")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens processed.")
        sources = self._split(
            "prompt_tokens_by_source", "source", ("local_compute", "local_cache_hit", "external_kv_transfer")
        )
        self._computed, self._from_cache = sources["local_compute"], sources["local_cache_hit"]
        self._cached = self._counter("prompt_tokens_cached", "Prompt tokens found in a cache.")
        tiers = ("device", "host", "p2p", "disk", "external_unspecified")
        self._cached_on_device = self._split("prompt_tokens_cached_by_source", "source", tiers)["device"]
        self._generation = self._counter("generation_tokens", "Tokens generated.")
        reasons = ("stop", "length", "abort", "error", "repetition")
        self._success = self._split("request_success", "finished_reason", reasons)
        rejections = Counter(
            "vllm:admission_rejections",
            "Requests that found the queue full.",
            ["model_name", "reason"],
            registry=self._registry,
        )
        by_limit = {
            limit: rejections.labels(model_name=self._labels["model_name"], reason=limit)
            for limit in ("max_num_queued_reqs", "max_num_queued_tokens")
        }
        self._rejected = by_limit["max_num_queued_reqs"]

    def _request_sizes(self) -> None:
        def sizes(family: str, text: str) -> Histogram:
            return self._histogram(family, text, self._token_buckets)

        self._request_prompt = sizes("request_prompt_tokens", "Prompt tokens of a request.")
        self._request_generation = sizes("request_generation_tokens", "Tokens generated for a request.")
        self._request_max = sizes("request_max_num_generation_tokens", "Longest answer of a request.")
        self._params_max_tokens = sizes("request_params_max_tokens", "max_tokens of a request.")
        self._prefill_computed = sizes(
            "request_prefill_kv_computed_tokens", "Prompt tokens not found in a cache."
        )
        self._params_n = self._histogram("request_params_n", "n of a request.", (1, 2, 5, 10, 20))
        self._preemptions = self._histogram(
            "request_num_preemptions", "Preemptions of a request.", (1, 2, 3, 4, 5, 10, 20)
        )

    def _latencies(self) -> None:
        def seconds(family: str, text: str) -> Histogram:
            return self._histogram(family, text, _REQUEST_BUCKETS)

        self._ttft = self._histogram("time_to_first_token_seconds", "Arrival to first token.", _TTFT_BUCKETS)
        self._itl = self._histogram("inter_token_latency_seconds", "Token to token.", _PER_TOKEN_BUCKETS)
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds", "Mean token to token of a request.", _PER_TOKEN_BUCKETS
        )
        self._e2e = seconds("e2e_request_latency_seconds", "Arrival to last token.")
        self._queue = seconds("request_queue_time_seconds", "Arrival to start.")
        self._inference = seconds("request_inference_time_seconds", "Start to last token.")
        self._prefill = seconds("request_prefill_time_seconds", "Start to first token.")
        self._decode = seconds("request_decode_time_seconds", "First to last token.")

    def _http(self) -> None:
        self._http_requests = Counter(
            "http_requests", "Requests answered.", ["method", "status", "handler"], registry=self._registry
        )
        self._http_latency = Histogram(
            "http_request_duration_highr_seconds",
            "Request to the end of its answer.",
            buckets=_HTTP_BUCKETS,
            registry=self._registry,
        )

    def _adapters(self, settings: EngineSettings) -> None:
        self._max_loras = str(settings.max_loras)
        self._lora: Gauge | None = None
        if settings.max_loras:
            labels = ["max_lora", "waiting_lora_adapters", "running_lora_adapters"]
            text = "Adapters in use; the value is the time of the last change."
            self._lora = Gauge("vllm:lora_requests_info", text, labels, registry=self._registry)
            self.adapters(frozenset(), frozenset())

    def _gauge(self, family: str, text: str, read: Callable[[], float]) -> None:
        gauge = Gauge(f"vllm:{family}", text, list(self._labels), registry=self._registry)
        gauge.labels(**self._labels).set_function(read)

    def _gauge_by(self, family: str, text: str, label: str) -> Gauge:
        return Gauge(f"vllm:{family}", text, [*self._labels, label], registry=self._registry)

    def _counter(self, family: str, text: str) -> Counter:
        return Counter(f"vllm:{family}", text, list(self._labels), registry=self._registry).labels(
            **self._labels
        )

    def _split(self, family: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        counter = Counter(f"vllm:{family}", f"By {label}.", [*self._labels, label], registry=self._registry)
        return {value: counter.labels(**self._labels, **{label: value}) for value in values}

    def _histogram(self, family: str, text: str, buckets: Sequence[float]) -> Histogram:
        histogram = Histogram(
            f"vllm:{family}", text, list(self._labels), buckets=buckets, registry=self._registry
        )
        return histogram.labels(**self._labels)


def _one_two_five(largest: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, … up to ``largest``: vLLM sizes its token buckets by the context length."""
    steps = (digit * 10**power for power in range(len(str(largest))) for digit in (1, 2, 5))
    return tuple(step for step in steps if step <= largest)


def _cache_config(settings: EngineSettings) -> dict[str, str]:
    size = settings.num_blocks * settings.block_size
    return {
        **_CACHE_CONFIG,
        "engine": "0",
        "block_size": str(settings.block_size),
        "effective_attention_block_size": str(settings.block_size),
        "num_gpu_blocks": str(settings.num_blocks),
        "kv_cache_size_tokens": str(size),
        "kv_cache_max_concurrency": str(size / settings.max_model_len),
    }
