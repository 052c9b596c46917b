import pytest

from benchmarks.replicas.pods import Pod

PROMPT = bytes(range(256)) * 16
"""4,096 bytes: 1,024 tokens in 64 blocks."""


def test_a_prompt_is_cached_by_the_first_request():
    pod = Pod(1000.0, 10_000)

    first, second = pod.serve(0.0, PROMPT, 10), pod.serve(10.0, PROMPT, 10)

    assert (first.prompt_tokens, first.cached_tokens) == (1024, 0)
    assert second.cached_tokens == 1008, "the last block is always computed"
    assert first.ttft_s == pytest.approx(1.024 + 0.005)
    assert second.ttft_s == pytest.approx(0.016 + 0.005)


def test_a_shared_beginning_is_a_partial_hit():
    pod = Pod(1000.0, 10_000)
    pod.serve(0.0, PROMPT, 1)

    assert pod.serve(10.0, PROMPT[:2048] + b"x" * 2048, 1).cached_tokens == 512


def test_prefills_wait_for_each_other():
    pod = Pod(1000.0, 10_000)

    ttft = [pod.serve(0.0, bytes([at]) * 4096, 1).ttft_s for at in range(3)]

    assert ttft == pytest.approx([1.029, 2.053, 3.077])


def test_an_answer_takes_as_long_as_it_has_tokens():
    pod = Pod(1000.0, 10_000)

    assert pod.serve(0.0, PROMPT, 100).done_s == pytest.approx(1.029 + 0.5)


def test_what_was_not_used_for_longest_is_evicted():
    pod = Pod(1e9, 2048)
    others = [bytes([at]) * 4096 for at in range(3)]
    pod.serve(0.0, others[0], 1)
    pod.serve(1.0, others[1], 1)
    pod.serve(2.0, others[2], 1)

    assert pod.serve(3.0, others[2], 1).cached_tokens > 0
    assert pod.serve(4.0, others[0], 1).cached_tokens == 0
