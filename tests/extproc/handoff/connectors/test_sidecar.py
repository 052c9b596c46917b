from extproc.handoff.connector import Leg
from extproc.handoff.connectors.sidecar import Sidecar


def test_the_proxy_is_told_where_prompts_are_computed(transfer):
    told = Sidecar().decode(transfer(address="[fd00::1]:8000"), None)

    assert told == Leg(headers={"x-prefiller-host-port": "[fd00::1]:8000"})
