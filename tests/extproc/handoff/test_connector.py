import pytest

from extproc.handoff.connector import bracketed
from extproc.handoff.connectors import CONNECTORS


@pytest.mark.parametrize(("host", "written"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")])
def test_ipv6_comes_in_brackets(host, written):
    assert bracketed(host) == written


@pytest.mark.parametrize("name", CONNECTORS)
def test_what_a_prefill_engine_has_answered_holds_for_any_number_of_attempts(name):
    """What is agreed on before does not, but where decode engines can do nothing without."""
    connector = CONNECTORS[name]

    once = connector.order == "concurrent" and connector.decodes_alone
    assert connector.tries == (1 if once else 0)
