from extproc.accesslog import Entry, Outcome
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
    stream: bool = True,
    epoch: int = 0,
    depth: int = 3,
) -> Claim:
    return Claim(
        "pod/default/a", LIFE, source, predicted, prompt_bytes, ahead, stream, epoch, [1, 2, 3, 4], depth
    )


def an_outcome(
    claim: Claim,
    *,
    prompt_tokens: int = 1000,
    cached_tokens: int | None = None,
    first_byte_s: float | None = 0.1,
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
            first_byte_s=first_byte_s,
            duration_s=1.0,
            prompt_tokens=prompt_tokens,
            completion_tokens=5,
            cached_tokens=cached_tokens,
        ),
    )


def answers(calibration: Calibration, times: int, predicted: int, cached: int | None) -> list[object]:
    corrections: list[object] = []
    for _ in range(times):
        claim = a_claim(predicted, epoch=calibration.epoch(LIFE))
        corrections += calibration.learn(claim, an_outcome(claim, cached_tokens=cached))
    return corrections


def test_before_the_first_answer_predictions_are_believed():
    calibration = Calibration()

    assert calibration.trust(LIFE, "approximate") == 1.0
    assert calibration.bytes_per_token("server/default/s") == BYTES_PER_TOKEN
    assert calibration.prefill_s("pod/default/a", 500) == 500 / PREFILL_TOKENS_PER_S


def test_predictions_that_come_true_change_nothing():
    calibration = Calibration()

    assert answers(calibration, 50, 800, 800) == []
    assert calibration.trust(LIFE, "approximate") == 1.0


def test_more_cached_than_predicted_is_no_failure():
    calibration = Calibration()

    assert answers(calibration, 10, 500, 900) == []
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

    assert not any(isinstance(correction, Forget) for correction in answers(calibration, 2, 800, 0))
    assert answers(calibration, 1, 800, 0) == [Forget(LIFE)]
    assert calibration.trust(LIFE, "approximate") == 1.0, "what is learnt from now on is true"


def test_answers_to_requests_placed_before_the_cache_was_given_up_prove_nothing():
    calibration = Calibration()
    late = [a_claim(800, epoch=calibration.epoch(LIFE)) for _ in range(10)]
    answers(calibration, 3, 800, 0)

    for claim in late:
        assert calibration.learn(claim, an_outcome(claim, cached_tokens=0)) == []
    assert calibration.trust(LIFE, "approximate") == 1.0


def test_single_failures_shrink_the_capacity_and_success_lets_it_creep_back():
    calibration = Calibration()
    shares = []
    for _ in range(30):
        for correction in answers(calibration, 1, 800, 300):
            assert isinstance(correction, Resize)
            shares.append(correction.share)

    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < 0.02
    grown = answers(calibration, 500, 800, 800)
    assert grown[-1] == Resize(LIFE, 1.0) or grown[-1].share > 0.9


def test_an_exact_prediction_that_fails_lowers_belief_but_clears_nothing():
    calibration = Calibration()
    for _ in range(5):
        claim = a_claim(800, source="exact")
        assert calibration.learn(claim, an_outcome(claim, cached_tokens=0)) == []

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
    claim = a_claim(0)

    assert calibration.learn(claim, an_outcome(claim, status=503, prompt_tokens=0)) == [Unlearn(LIFE, 3)]
    assert calibration.learn(claim, an_outcome(claim, served="10.0.0.9:8000")) == [Unlearn(LIFE, 3)]


def test_a_client_that_left_proves_nothing():
    calibration = Calibration()
    claim = a_claim(800)

    assert calibration.learn(claim, an_outcome(claim, client_gone=True, cached_tokens=0)) == []


def test_answers_tell_how_many_bytes_make_a_token():
    calibration = Calibration()
    claim = a_claim(prompt_bytes=6000)
    for _ in range(200):
        calibration.learn(claim, an_outcome(claim, prompt_tokens=1000))

    assert 5.9 < calibration.bytes_per_token("server/default/s") <= 6.0


def test_a_prompt_with_an_image_says_nothing_about_text():
    calibration = Calibration()
    claim = a_claim(prompt_bytes=4_000_000)
    calibration.learn(claim, an_outcome(claim, prompt_tokens=1000))

    assert calibration.bytes_per_token("server/default/s") == BYTES_PER_TOKEN


def test_streams_tell_how_fast_an_engine_computes():
    calibration = Calibration()
    claim = a_claim(ahead=1000)
    for _ in range(50):
        calibration.learn(claim, an_outcome(claim, prompt_tokens=1000, first_byte_s=1.0))

    assert 0.99 < calibration.prefill_s("pod/default/a", 2000) < 1.01
    whole = a_claim(stream=False)
    calibration.learn(whole, an_outcome(whole, prompt_tokens=1000, first_byte_s=100.0))
    assert calibration.prefill_s("pod/default/a", 2000) < 1.01


def test_a_life_that_is_over_is_forgotten():
    calibration = Calibration()
    answers(calibration, 2, 800, 0)
    calibration.retire(LIFE)

    assert calibration.trust(LIFE, "approximate") == 1.0
