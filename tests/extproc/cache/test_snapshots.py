import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cache.frames import packed
from extproc.cache.snapshots import KvSnapshot, PrefixSnapshot, decode, encode

PREFIX = PrefixSnapshot("5-0", 1 << 40, packed([1, 2]), 128, packed([3]))
KV = KvSnapshot("5-0", packed([1, 2]), packed([3, 4]), b"\1\0\0\0\2\0\0\0", -1)


@pytest.mark.parametrize("snapshot", [PREFIX, KV])
def test_what_is_stored_comes_back(snapshot):
    assert decode(encode(snapshot)) == snapshot


@given(st.binary(max_size=100))
def test_other_bytes_are_refused(raw):
    with pytest.raises(msgspec.DecodeError):
        decode(raw)


@given(st.integers(0, 200))
def test_a_cut_off_snapshot_is_refused(cut):
    whole = encode(KV)
    with pytest.raises(msgspec.DecodeError):
        decode(whole[: min(cut, len(whole) - 1)])


@pytest.mark.parametrize(
    ("snapshot", "message"),
    [
        (PrefixSnapshot, {"young": b"1234567"}),
        (PrefixSnapshot, {"old": b"123456789"}),
        (KvSnapshot, {"own": b"1"}),
        (KvSnapshot, {"counts": b"12345"}),
        (KvSnapshot, {"engine": packed([1])}),
        (KvSnapshot, {"counts": b""}),
    ],
)
def test_bytes_that_are_no_whole_numbers_are_refused(snapshot, message):
    good = PREFIX if snapshot is PrefixSnapshot else KV
    fields = {**msgspec.structs.asdict(good), **message, "type": good.__struct_config__.tag}

    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.msgpack.encode(fields))
