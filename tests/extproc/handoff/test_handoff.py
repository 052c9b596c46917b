import pytest

from extproc.state.snapshot import Endpoint, Source


@pytest.mark.parametrize(("prefills", "tried"), [(1, 1), (2, 2), (5, 2)])
def test_the_longest_wait_is_that_for_all_tries_and_a_little_more(handoff, prefills, tried):
    endpoint = Endpoint.of("pod/default/p", "10.0.0.1:8000", None, "g", Source("10.0.0.1", 5600, "p"))

    longest_s = handoff("nixl", *[endpoint] * prefills, timeout_s=10.0).longest_s

    assert tried * 10 < longest_s < tried * 10 + 5
