import pytest

from extproc.handoff.connector import bracketed
from extproc.handoff.connectors import CONNECTORS


@pytest.mark.parametrize(("host", "written"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")])
def test_ipv6_comes_in_brackets(host, written):
    assert bracketed(host) == written


@pytest.mark.parametrize("name", CONNECTORS)
def test_the_blocks_of_a_prompt_are_good_for_one_attempt(name):
    """A sidecar asks anew for each; and SGLang's decode engines can do nothing without."""
    assert CONNECTORS[name].tries == (1 if name in ("nixl", "nixl-push", "mooncake") else 0)
