"""vLLM's metric families that every data-parallel rank has a series of, with its labels and buckets.

Left out are the families that need a model, a GPU or an engine step: ``estimated_*``, ``iteration_tokens``,
``kv_block_*``, sleep operations, Python's and (but for the start time) the process's own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from benchmarks.engine.batch import Batch, Prefilled
from benchmarks.engine.families import Families
from benchmarks.engine.settings import EngineSettings

_SLEEP_STATES: dict[str, int | None] = {"awake": None, "weights_offloaded": 1, "discard_all": 2}
"""And the level of sleep that each stands for."""

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


class RankMetrics:
    """Counts what one rank does."""

    def __init__(self, families: Families, settings: EngineSettings, rank: int, batch: Batch) -> None:
        self.families = families
        self._has_connector = settings.connector != "none"
        self._labels = {"model_name": settings.model, "engine": str(rank)}
        self._token_buckets = _one_two_five(settings.max_model_len)
        self._gauges(settings, rank, batch)
        self._counters()
        self._request_sizes()
        self._latencies()

    def prompt_computed(self, end: Prefilled) -> None:
        """A prompt is computed, or has come from another engine."""
        prompt = len(end.job.prompt)
        self._queries.inc(prompt)
        self._hits.inc(end.cached)
        if self._has_connector:
            self._external_queries.inc(prompt - end.cached)
        self._external_hits.inc(end.external)
        self._prompt.inc(prompt)
        self._computed.inc(prompt - end.cached - end.external)
        self._from_cache.inc(end.cached)
        self._from_others.inc(end.external)
        self._cached.inc(end.cached + end.external)
        self._cached_on_device.inc(end.cached)
        self._cached_elsewhere.inc(end.external)

    def first_token(self, waited: float) -> None:
        """The first token of an answer exists, ``waited`` seconds after the request came."""
        self._generation.inc()
        self._ttft.observe(waited)

    def tokens(self, count: int, elapsed: float) -> None:
        """``count`` more tokens of an answer, ``elapsed`` seconds after the one before them."""
        self._generation.inc(count)
        for _ in range(count):
            self._itl.observe(elapsed / count)

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
        self._prefill_computed.observe(len(job.prompt) - end.prefilled.reused)

    def failed(self) -> None:
        """What a request needed from another engine did not come."""
        self._success["error"].inc()

    def sleep(self, level: int | None) -> None:
        """The rank sleeps at this level; None is awake, and 0 none of the states, as in vLLM."""
        for state, its_level in _SLEEP_STATES.items():
            self._sleep.labels(**self._labels, sleep_state=state).set(level == its_level)

    def _gauges(self, settings: EngineSettings, rank: int, batch: Batch) -> None:
        self._gauge("num_requests_running", "Requests being computed.", lambda: batch.running)
        self._gauge("num_requests_waiting", "Requests in the queue.", lambda: batch.waiting)
        reasons = self._gauge_by(
            "num_requests_waiting_by_reason", "Requests in the queue, by reason.", "reason"
        )
        reasons.labels(**self._labels, reason="capacity").set_function(lambda: batch.waiting - batch.deferred)
        reasons.labels(**self._labels, reason="deferred").set_function(lambda: batch.deferred)
        self._sleep = self._gauge_by("engine_sleep_state", "1 for the state it is in.", "sleep_state")
        self.sleep(None)
        self._gauge("kv_cache_usage_perc", "Share of the KV blocks in use.", lambda: batch.blocks.usage)
        config = _cache_config(settings, rank)
        self.families.gauge("vllm:cache_config_info", "KV cache settings.", list(config)).labels(
            **config
        ).set(1)

    def _counters(self) -> None:
        self._queries = self._counter("prefix_cache_queries", "Prompt tokens looked up.")
        self._hits = self._counter("prefix_cache_hits", "Prompt tokens found.")
        self._external_queries = self._counter(
            "external_prefix_cache_queries", "Prompt tokens that the connector was asked for."
        )
        self._external_hits = self._counter(
            "external_prefix_cache_hits", "Prompt tokens that came through the connector."
        )
        for family in ("mm_cache_queries", "mm_cache_hits"):
            self._counter(family, "Always 0: prompts are text.")
        self._counter("num_preemptions", "Always 0: a request starts with all the blocks it needs.")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens processed.")
        sources = self._split(
            "prompt_tokens_by_source", "source", ("local_compute", "local_cache_hit", "external_kv_transfer")
        )
        self._computed, self._from_cache = sources["local_compute"], sources["local_cache_hit"]
        self._from_others = sources["external_kv_transfer"]
        self._cached = self._counter("prompt_tokens_cached", "Prompt tokens found in a cache.")
        tiers = ("device", "host", "p2p", "disk", "external_unspecified")
        cached = self._split("prompt_tokens_cached_by_source", "source", tiers)
        self._cached_on_device, self._cached_elsewhere = cached["device"], cached["p2p"]
        self._generation = self._counter("generation_tokens", "Tokens generated.")
        reasons = ("stop", "length", "abort", "error", "repetition")
        self._success = self._split("request_success", "finished_reason", reasons)

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

    def _gauge(self, family: str, text: str, read: Callable[[], float]) -> None:
        gauge = self.families.gauge(f"vllm:{family}", text, list(self._labels))
        gauge.labels(**self._labels).set_function(read)

    def _gauge_by(self, family: str, text: str, label: str) -> Gauge:
        return self.families.gauge(f"vllm:{family}", text, [*self._labels, label])

    def _counter(self, family: str, text: str) -> Counter:
        counter = self.families.counter(f"vllm:{family}", text, list(self._labels))
        return counter.labels(**self._labels)

    def _split(self, family: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        counter = self.families.counter(f"vllm:{family}", f"By {label}.", [*self._labels, label])
        return {value: counter.labels(**self._labels, **{label: value}) for value in values}

    def _histogram(self, family: str, text: str, buckets: Sequence[float]) -> Histogram:
        histogram = self.families.histogram(f"vllm:{family}", text, list(self._labels), buckets=buckets)
        return histogram.labels(**self._labels)


def _one_two_five(largest: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, … up to ``largest``: vLLM sizes its token buckets by the context length."""
    steps = (digit * 10**power for power in range(len(str(largest))) for digit in (1, 2, 5))
    return tuple(step for step in steps if step <= largest)


def _cache_config(settings: EngineSettings, rank: int) -> dict[str, str]:
    size = settings.num_blocks * settings.block_size
    return {
        **_CACHE_CONFIG,
        "engine": str(rank),
        "block_size": str(settings.block_size),
        "effective_attention_block_size": str(settings.block_size),
        "num_gpu_blocks": str(settings.num_blocks),
        "kv_cache_size_tokens": str(size),
        "kv_cache_max_concurrency": str(size / settings.max_model_len),
    }
