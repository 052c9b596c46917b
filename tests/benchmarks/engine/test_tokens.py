import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.tokens import decode, encode, of_ids, piece


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_text_survives_encoding_and_decoding(text: str) -> None:
    assert decode(encode(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_four_bytes_make_a_token(text: str) -> None:
    assert len(encode(text)) == -(-len(text.encode()) // 4)


def test_lone_surrogates_do_not_break_the_tokenizer() -> None:
    assert len(encode("\ud800")) == 1


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_any_id_in_range_is_kept_and_can_be_decoded(ids: list[int]) -> None:
    tokens = of_ids(ids)
    assert tokens.tolist() == ids
    decode(tokens)


@pytest.mark.parametrize("bad", [-1, 2**32, 10**30])
def test_an_id_out_of_range_is_named(bad: int) -> None:
    with pytest.raises(ValueError, match=str(bad)):
        of_ids([1, bad])


def test_the_pieces_of_ascii_text_are_the_text() -> None:
    text = "pod-a says inlet jetty"
    assert "".join(map(piece, encode(text))) == text
