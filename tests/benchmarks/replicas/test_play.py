from benchmarks.replicas.play import Outcome
from benchmarks.replicas.pods import Served


def test_the_hit_rate_is_of_tokens_not_of_requests():
    outcome = Outcome([Served(900, 0, 0.1, 1.0), Served(100, 100, 0.1, 1.0)])

    assert outcome.hit_rate == 0.1


def test_a_share_of_the_requests_had_their_first_token_by_then():
    outcome = Outcome([Served(1, 0, at / 100, 1.0) for at in range(100, 0, -1)])

    assert outcome.ttft_s(0.5) == 0.51
    assert outcome.ttft_s(0.9) == 0.91
    assert outcome.ttft_s(1.0) == 1.0
