from extproc.cache.capacity import ASSUMED_TOKENS, capacity_bytes


def test_an_engine_that_tells_is_believed():
    assert capacity_bytes(131_072) == 4 * 131_072


def test_an_engine_that_does_not_tell_is_assumed_to_be_of_usual_size():
    assert capacity_bytes(None) == capacity_bytes(0) == 4 * ASSUMED_TOKENS
