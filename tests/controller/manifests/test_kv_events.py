import pytest

from controller.manifests.kv_events import faults, record
from extproc.state import records

EVENTS, REPLAY = "kvoy.io/kv-events", "kvoy.io/kv-events-replay"


def fields(given, ranks=1):
    return [fault.field for fault in faults(given, ranks)]


def test_nothing_said_asks_the_engine():
    assert fields({}) == []
    assert record({}) is None


def test_events_may_be_off():
    assert fields({EVENTS: "off"}) == []
    assert record({EVENTS: "off"}) == "off"


def test_addresses():
    assert fields({EVENTS: "tcp://*:5557", REPLAY: "tcp://*:5558"}) == []
    assert record({EVENTS: "tcp://*:5557"}) == records.KvEvents("tcp://*:5557")
    assert record({EVENTS: "tcp://*:1", REPLAY: "tcp://*:2"}) == records.KvEvents("tcp://*:1", "tcp://*:2")


@pytest.mark.parametrize(
    "address",
    ["", "on", "tcp://*", "tcp://*:0", "tcp://*:65536", "tcp://*:99999999", "tcp://10.0.0.1:5557", "tcp://*:55x",
     "ipc:///tmp/x", "tcp://*:5557\n", "tcp://*:٣"],
)  # fmt: skip
def test_what_an_address_can_not_be(address):
    (fault,) = faults({EVENTS: address}, 1)
    assert fault.field == 'metadata.annotations["kvoy.io/kv-events"]'
    assert 'tcp://*:PORT" or "off"' in fault.message or "leaves no port" in fault.message
    assert fields({EVENTS: "tcp://*:5557", REPLAY: address}) == [
        'metadata.annotations["kvoy.io/kv-events-replay"]'
    ]


def test_every_rank_needs_a_port():
    assert fields({EVENTS: "tcp://*:65528"}, ranks=8) == []
    assert len(fields({EVENTS: "tcp://*:65529"}, ranks=8)) == 1


@pytest.mark.parametrize("given", [{REPLAY: "tcp://*:5558"}, {EVENTS: "off", REPLAY: "tcp://*:5558"}])
def test_a_replay_needs_events(given):
    (fault,) = faults(given, 1)

    assert fault.message == "needs kvoy.io/kv-events to say where the events are"
