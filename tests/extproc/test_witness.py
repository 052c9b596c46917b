import dataclasses

from extproc.exchange import Routing
from extproc.explain import Journal
from extproc.handoff.handoff import HandOff
from extproc.metrics import Metrics
from extproc.request import APIS
from extproc.state.snapshot import Endpoint, Source
from extproc.testing import a_placement
from extproc.witness import Witness


class Legs:
    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def settled(self, answer: int, *, receives: bool) -> None:
        self.told.append((answer, receives))


P = Endpoint.of("pod/default/p", "10.0.0.1:8000", None, "g", Source("10.0.0.1", 5600, "p"))
HANDOFF = HandOff(
    connector="nixl",
    api=APIS["/v1/chat/completions"],
    path="/v1/chat/completions",
    body=b"{}",
    headers={},
    request_id="request-1",
    prefills=(P,),
    reservation=1,
    routing=Routing("model/default/s", a_placement("10.0.0.2:8000"), 2, None),
    partners=("10.0.0.2:8000",),
    tls=None,
    timeout_s=1.0,
    decode_alone=True,
    tensor_parallel=1,
)


def test_counts_and_legs_learn_what_becomes_of_a_hand_off() -> None:
    metrics, legs = Metrics(), Legs()
    witness = Witness(metrics, Journal("extproc-0", lambda: 0.0), legs)

    witness.tried(HANDOFF, P, "refused", 0.1)
    witness.tried(HANDOFF, P, "computed", 0.2)
    witness.ended(HANDOFF, "transferred")
    witness.ended(dataclasses.replace(HANDOFF), "alone")

    told = metrics.exposition().decode()
    assert 'kvoy_prefills_total{result="refused",server="default/s"} 1.0' in told
    assert 'kvoy_prefill_seconds_count{server="default/s"} 1.0' in told
    assert 'kvoy_handoffs_total{ending="alone",server="default/s"} 1.0' in told
    assert legs.told == [(2, True), (2, False)]
