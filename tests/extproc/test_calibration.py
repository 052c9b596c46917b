import pytest

from extproc.accesslog import Entry, Outcome
from extproc.cache.chain import bytes_of
from extproc.calibration import (
    BYTES_PER_TOKEN,
    PREFILL_TOKENS_PER_S,
    Calibration,
    Claim,
    Forget,
    Resize,
    Unlearn,
)
from extproc.reservations import Reservation

LIFE = 7


def a_claim(
    predicted: int = 0,
    *,
    source: str = "approximate",
    prompt_bytes: int = 4000,
    ahead: int = 0,
    epoch: int = 0,
    depth: int | None = None,
    received: bool = False,
) -> Claim:
    """`predicted` of 1,000 tokens in 4,000 bytes of JSON, as the blocks of its depth tell."""
    held = next(at for at in range(1000) if bytes_of(at) >= 4 * predicted) if depth is None else depth
    chain = [1, 2, 3, 4]
    return Claim("pod/default/a", LIFE, source, predicted, prompt_bytes, ahead, epoch, chain, held, received)


def an_outcome(
    claim: Claim,
    *,
    prompt_tokens: int = 1000,
    cached_tokens: int | None = None,
    duration_s: float = 1.0,
    completion_tokens: int = 5,
    status: int = 200,
    served: str = "10.0.0.1:8000",
    client_gone: bool = False,
) -> Outcome:
    reservation = Reservation(1, claim.endpoint, "10.0.0.1:8000", "server/default/s", "", "", 0.0, 0, claim)
    return Outcome(
        reservation,
        Entry(
            instance="i",
            reservation=1,
            request_id="",
            status=status,
            client_gone=client_gone,
            broken=False,
            served=served,
            first_byte_s=0.01,
            duration_s=duration_s,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=cached_tokens,
        ),
    )


def answers(calibration: Calibration, times: int, predicted: int, cached: int | None) -> list[object]:
    corrections: list[object] = []
    for _ in range(times):
        claim = a_claim(predicted, epoch=calibration.epoch(LIFE))
        corrections += calibration.learn(claim, an_outcome(claim, cached_tokens=cached), None)
    return corrections


def test_before_the_first_answer_predictions_are_believed():
    calibration = Calibration()

    assert calibration.trust(LIFE, "approximate") == 1.0
    assert calibration.bytes_per_token("server/default/s") == BYTES_PER_TOKEN
    assert calibration.prefill_s("pod/default/a", 500) == 500 / PREFILL_TOKENS_PER_S


def test_predictions_that_come_true_are_believed():
    calibration = Calibration()
    answers(calibration, 50, 800, 800)

    assert calibration.trust(LIFE, "approximate") == 1.0


def test_more_cached_than_predicted_is_no_failure():
    calibration = Calibration()

    answers(calibration, 10, 500, 900)

    assert calibration.trust(LIFE, "approximate") == 1.0


def test_a_failed_prediction_lowers_the_belief_at_once():
    calibration = Calibration()
    answers(calibration, 1, 800, 0)

    assert calibration.trust(LIFE, "approximate") < 0.75


def test_belief_returns_as_predictions_come_true():
    calibration = Calibration()
    answers(calibration, 2, 800, 0)
    answers(calibration, 20, 800, 800)

    assert calibration.trust(LIFE, "approximate") > 0.99


def test_only_lives_in_doubt_are_looked_at_for_every_request():
    calibration = Calibration()
    assert calibration.doubts([1, LIFE, 2], "approximate") == []

    answers(calibration, 1, 800, 0)
    ((at, trust),) = calibration.doubts([1, LIFE, 2], "approximate")
    assert (at, trust) == (1, calibration.trust(LIFE, "approximate"))
    assert calibration.doubts([1, LIFE], "exact") == [(1, 1.0)]

    answers(calibration, 20, 800, 800)
    assert calibration.doubts([1, LIFE, 2], "approximate") == []


def test_three_predictions_that_fail_wholly_mean_an_empty_cache():
    calibration = Calibration()

    assert answers(calibration, 2, 800, 0) == [Resize(LIFE, 0.8)] * 2
    assert answers(calibration, 1, 800, 0) == [Forget(LIFE)]
    assert calibration.trust(LIFE, "approximate") == 1.0, "what is learnt from now on is true"


def test_failures_of_requests_placed_before_the_first_was_known_count_once():
    """A burst of equal prompts, placed while none of them was computed yet."""
    calibration = Calibration()
    burst = [a_claim(800, epoch=calibration.epoch(LIFE)) for _ in range(10)]

    corrections = [calibration.learn(claim, an_outcome(claim, cached_tokens=0), None) for claim in burst]

    assert corrections == [[Resize(LIFE, 0.8)], *[[]] * 9]


def test_single_failures_shrink_the_capacity_by_a_fifth():
    assert answers(Calibration(), 3, 800, 300) == [Resize(LIFE, 0.8)] * 3


def test_success_lets_the_capacity_creep_back():
    grown = answers(Calibration(), 25, 800, 800)

    assert len(grown) == 2
    assert all(1.1 <= correction.factor < 1.12 for correction in grown)


def test_the_length_of_an_image_is_no_prediction():
    """4 MB of base64 that were 1,500 tokens, all cached."""
    calibration = Calibration()
    for _ in range(5):
        claim = a_claim(1_000_000, prompt_bytes=4_000_000, depth=4000, epoch=calibration.epoch(LIFE))
        told = an_outcome(claim, prompt_tokens=1500, cached_tokens=1490)
        assert calibration.learn(claim, told, None) in ([], [Resize(LIFE, 1.01)])
    assert calibration.trust(LIFE, "approximate") > 0.99


def test_an_exact_prediction_that_fails_lowers_belief_but_clears_nothing():
    calibration = Calibration()
    for _ in range(5):
        claim = a_claim(800, source="exact")
        assert calibration.learn(claim, an_outcome(claim, cached_tokens=0), None) == []

    assert calibration.trust(LIFE, "exact") < 0.2
    assert calibration.trust(LIFE, "approximate") == 1.0


def test_small_predictions_are_within_rounding():
    calibration = Calibration()

    assert answers(calibration, 5, 100, 0) == []
    assert calibration.trust(LIFE, "approximate") == 1.0


def test_an_engine_that_does_not_tell_proves_nothing():
    calibration = Calibration()

    assert answers(calibration, 5, 800, None) == []
    assert calibration.trust(LIFE, "approximate") == 1.0


def test_a_request_that_failed_or_moved_has_filled_no_cache():
    calibration = Calibration()
    claim = a_claim(0, depth=3)

    assert calibration.learn(claim, an_outcome(claim, status=503, prompt_tokens=0), None) == [
        Unlearn(LIFE, 3)
    ]
    assert calibration.learn(claim, an_outcome(claim, served="10.0.0.9:8000"), None) == [Unlearn(LIFE, 3)]


def test_a_request_that_the_engine_refused_says_nothing_of_its_cache():
    claim = a_claim(0, depth=3)

    assert Calibration().learn(claim, an_outcome(claim, status=400, prompt_tokens=0), None) == []


def test_a_client_that_left_proves_nothing():
    calibration = Calibration()
    claim = a_claim(800)

    assert calibration.learn(claim, an_outcome(claim, client_gone=True, cached_tokens=0), None) == []


def test_answers_tell_how_many_bytes_make_a_token():
    calibration = Calibration()
    claim = a_claim(prompt_bytes=6000)
    for _ in range(200):
        calibration.learn(claim, an_outcome(claim, prompt_tokens=1000), None)

    assert 5.9 < calibration.bytes_per_token("server/default/s") <= 6.0


def test_a_prompt_with_an_image_says_nothing_about_text():
    calibration = Calibration()
    claim = a_claim(prompt_bytes=4_000_000)
    calibration.learn(claim, an_outcome(claim, prompt_tokens=1000), None)

    assert calibration.bytes_per_token("server/default/s") == BYTES_PER_TOKEN


def test_the_time_before_the_answer_tells_how_fast_an_engine_computes():
    calibration = Calibration()
    claim = a_claim(ahead=1000)
    for _ in range(50):
        told = an_outcome(claim, cached_tokens=0, duration_s=1.4, completion_tokens=21)
        calibration.learn(claim, told, 0.02)

    assert 0.99 < calibration.prefill_s("pod/default/a", 2000) < 1.01


@pytest.mark.parametrize(
    ("told", "tpot_s"),
    [
        ({"cached_tokens": None}, 0.02),
        ({"cached_tokens": 0}, None),
        ({"cached_tokens": 900}, 0.02),
        ({"cached_tokens": 0, "completion_tokens": 46}, 0.02),
    ],
    ids=["cached-unknown", "tpot-unknown", "little-computed", "mostly-decoded"],
)
def test_what_does_not_tell_the_pace_is_left_out(told, tpot_s):
    calibration = Calibration()
    claim = a_claim()
    calibration.learn(claim, an_outcome(claim, duration_s=1.0, **told), tpot_s)

    assert calibration.prefill_s("pod/default/a", 500) == 500 / PREFILL_TOKENS_PER_S


def test_a_life_that_is_over_is_forgotten():
    calibration = Calibration()
    answers(calibration, 2, 800, 0)
    calibration.retire("pod/default/a", LIFE)

    assert calibration.trust(LIFE, "approximate") == 1.0


def test_an_engine_that_received_its_cache_tells_of_another_ones():
    calibration = Calibration()
    claim = a_claim(900, received=True)

    assert calibration.learn(claim, an_outcome(claim, cached_tokens=0), 0.01) == []

    assert calibration.trust(LIFE, "approximate") == 1.0
    assert calibration.prefill_s(claim.endpoint, 1000) == 1000 / PREFILL_TOKENS_PER_S
    failed = an_outcome(claim, status=500)
    assert calibration.learn(claim, failed, None) == [Unlearn(LIFE, claim.depth)]


def test_a_prompt_computed_alone_tells_the_pace_without_knowing_that_of_decoding():
    calibration = Calibration()
    claim = a_claim(0)

    calibration.learn(
        claim, an_outcome(claim, cached_tokens=0, completion_tokens=1, duration_s=1.0), tpot_s=None
    )

    assert calibration.prefill_s(claim.endpoint, 1000) > 1000 / PREFILL_TOKENS_PER_S
