import msgspec
from prometheus_client.parser import text_string_to_metric_families

from extproc.accesslog import Entry, Outcome
from extproc.calibration import Claim
from extproc.exchange import LocalAnswer
from extproc.metrics import GAUGES, Gauges, Metrics
from extproc.reservations import Reservations
from extproc.state.live import Load


def an_outcome(served: str = "10.0.0.1:8000", status: int = 200, *, client_gone: bool = False) -> Outcome:
    reservation = Reservations(lambda: 0.0).reserve(
        endpoint="pod/default/a", address="10.0.0.1:8000", server="server/default/s", route="route/default/r"
    )
    times = (None, None) if client_gone else (0.2, 1.5)
    return Outcome(
        reservation, Entry("me", 1, "request-1", status, client_gone, False, served, *times, 10, 4, 8)
    )


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for f in families
        for sample in f.samples
    }


def test_an_ended_request_counts_status_tokens_and_times() -> None:
    metrics = Metrics()
    metrics.ended(an_outcome())

    seen = samples(metrics)

    server = ("server", "default/s")
    assert seen["kvoy_requests_total", (("end", "complete"), server, ("status", "200"))] == 1
    assert seen["kvoy_tokens_total", (("kind", "prompt"), server)] == 10
    assert seen["kvoy_tokens_total", (("kind", "completion"), server)] == 4
    assert seen["kvoy_tokens_total", (("kind", "cached"), server)] == 8
    assert seen["kvoy_time_to_first_byte_seconds_sum", (server,)] == 0.2
    assert seen["kvoy_request_seconds_sum", (server,)] == 1.5
    assert ("kvoy_requests_moved_total", (server,)) not in seen


def test_a_retry_elsewhere_and_a_client_that_left_are_seen() -> None:
    metrics = Metrics()
    metrics.ended(an_outcome(served="10.0.0.2:8000"))
    metrics.ended(an_outcome(served="", status=0, client_gone=True))

    seen = samples(metrics)

    assert seen["kvoy_requests_moved_total", (("server", "default/s"),)] == 1
    assert (
        seen["kvoy_requests_total", (("end", "client-gone"), ("server", "default/s"), ("status", "0"))] == 1
    )
    assert seen["kvoy_time_to_first_byte_seconds_count", (("server", "default/s"),)] == 1


def test_decisions_are_timed_and_local_answers_counted() -> None:
    metrics = Metrics()
    metrics.decided(LocalAnswer(404, (), b""), 0.003)

    seen = samples(metrics)

    assert seen["kvoy_decision_seconds_sum", ()] == 0.003
    assert seen["kvoy_local_answers_total", (("status", "404"),)] == 1


def test_gauges_are_read_when_scraped() -> None:
    metrics, state, counts = Metrics(), dict.fromkeys(GAUGES, 0.0), {"pod/default/a": Load(2, 300)}
    metrics.registry.register(Gauges(lambda: state, lambda: counts))
    state["kvoy_config_generation"] = 7.0

    seen = samples(metrics)

    assert seen["kvoy_config_generation", ()] == 7
    assert seen["kvoy_in_flight", (("endpoint", "default/a"),)] == 2
    assert seen["kvoy_pending_tokens", (("endpoint", "default/a"),)] == 300
    assert {name for name, _ in seen} >= GAUGES.keys()


def test_predictions_are_counted_beside_what_came_true() -> None:
    metrics = Metrics()
    claim = Claim("pod/default/a", 1, "approximate", 6, 40, 0, 0, [], 0)
    outcome = an_outcome()
    metrics.ended(Outcome(msgspec.structs.replace(outcome.reservation, claim=claim), outcome.entry))

    assert samples(metrics)["kvoy_tokens_total", (("kind", "predicted"), ("server", "default/s"))] == 6


def test_expired_reservations_are_counted() -> None:
    metrics = Metrics()
    metrics.expired(3)

    assert samples(metrics)["kvoy_reservations_expired_total", ()] == 3
