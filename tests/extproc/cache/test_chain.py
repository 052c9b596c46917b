from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from extproc.cache.chain import block_bytes, bytes_of, kv_chain, kv_root, prefix_chain, prefix_root

SIZES = [64] * 64 + [256] * 128 + [1024] * 40


def by_hand(root, text, sizes):
    hashes, at = [], 0
    for size in sizes:
        if at + size > len(text):
            break
        root = xxh3_64_intdigest(text[at : at + size], seed=root)
        hashes.append(root)
        at += size
    return hashes


def text(size):
    return bytes(at * 31 % 251 for at in range(size))


EDGES = sorted(
    {edge + off for edge in (0, 64, 4096, 4096 + 256, 36864, 36864 + 1024, 70000) for off in (-1, 0, 1)}
    - {-1}
)


@pytest.mark.parametrize("size", EDGES)
def test_blocks_of_a_prompt_grow_and_the_rest_is_left_out(size):
    assert prefix_chain(7, text(size)) == by_hand(7, text(size), SIZES)


def test_a_long_prompt_has_few_blocks():
    assert len(prefix_chain(1, bytes(400 * 1024))) == 556


def test_nul_bytes_count():
    assert prefix_chain(1, bytes(64)) != prefix_chain(1, b"\0" * 63 + b"\1")
    assert prefix_chain(1, b"a" * 63 + b"\0") != prefix_chain(1, b"a" * 64)


@given(st.binary(max_size=6000), st.binary(max_size=6000))
def test_chains_are_equal_exactly_as_far_as_the_prompts_are(one, other):
    shared = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    shared = min(len(one), len(other)) if shared is None else shared
    ones, others = prefix_chain(3, one), prefix_chain(3, other)
    equal = next((at for at, (a, b) in enumerate(zip(ones, others, strict=False)) if a != b), None)
    equal = min(len(ones), len(others)) if equal is None else equal

    assert bytes_of(equal) <= shared
    assert equal == min(len(ones), len(others)) or bytes_of(equal + 1) > shared


def test_bytes_that_a_depth_covers():
    covered = 0
    for position, size in enumerate(SIZES):
        assert bytes_of(position) == covered
        assert block_bytes(position) == size
        covered += size


@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17, 32, 16 * 256, 16 * 256 + 16, 16 * 700 + 3])
def test_token_ids_are_chained_by_full_blocks(tokens):
    ids = array("I", range(tokens)).tobytes()

    assert kv_chain(9, ids, 16) == by_hand(9, ids, [64] * (tokens // 16))


def test_block_sizes_share_nothing():
    ids = array("I", range(64)).tobytes()

    assert not set(kv_chain(9, ids, 16)) & set(kv_chain(9, ids, 32))


def test_a_chain_goes_on_from_its_last_hash():
    """What a collector does: it hashes the blocks of each event, seeded by their parent."""
    ids = array("I", range(160)).tobytes()
    whole = kv_chain(9, ids, 16)

    assert whole[:4] + kv_chain(whole[3], ids[4 * 64 :], 16) == whole


def test_what_makes_roots_differ():
    roots = [
        prefix_root("m", None, None, b"s"),
        prefix_root("n", None, None, b"s"),
        prefix_root("m", "a", None, b"s"),
        prefix_root("m", None, "a", b"s"),
        prefix_root("m", None, None, b"t"),
        prefix_root("ma", "b", None, b"s"),
        prefix_root("m", "ab", None, b"s"),
        kv_root(None, None, b"s"),
        kv_root("m", None, b"s"),
        kv_root(None, "m", b"s"),
        kv_root(None, None, b"t"),
    ]

    assert len(set(roots)) == len(roots)


def test_no_adapter_and_no_salt_are_the_same_as_empty_ones():
    assert prefix_root("m", None, None, b"s") == prefix_root("m", "", "", b"s")
    assert kv_root(None, None, b"s") == kv_root("", "", b"s")


def test_roots_are_the_same_in_every_process():
    """Workers and collectors must agree, whatever version of Python or kvoy they run."""
    secret = b"0123456789abcdef"

    assert prefix_root("llama", "sql", "tenant-1", secret) == 227851009198815676
    assert kv_root("sql", "tenant-1", secret) == 11845618214001087314


def test_a_name_that_is_no_unicode_has_a_root():
    assert kv_root("\ud800", None, b"s") != kv_root("\ud801", None, b"s")
