from extproc.handoff.connector import Leg, Reply
from extproc.handoff.connectors.shared import Shared


def test_both_legs_are_the_request_as_it_is(transfer):
    assert Shared().prefill(transfer()) == Leg()
    assert Shared().decode(transfer(), Reply(None, 10, None)) == Leg()
