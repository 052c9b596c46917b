import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cache import frames
from extproc.cache.frames import LIMIT, Frame, FramesCorrupt, Namespace, Operation, packed, unpack

U64 = st.integers(0, 2**64 - 1)


def _frames():
    hashed = st.builds(
        Frame,
        U64,
        st.sampled_from(Namespace),
        st.sampled_from([Operation.ADD, Operation.REMOVE]),
        st.integers(0, 2**32 - 1),
        st.lists(U64, max_size=20).map(packed),
    )
    cleared = st.builds(frames.clear, U64, st.sampled_from(Namespace))
    sized = st.builds(frames.capacity, U64, U64)
    rotated = st.builds(frames.rotate, U64, U64)
    return st.lists(hashed | cleared | sized | rotated, max_size=8)


@given(_frames())
def test_what_is_packed_comes_back(told):
    assert unpack(frames.pack_all(told)) == told


@given(_frames(), st.integers(0, 10_000))
def test_bytes_that_are_cut_off_are_frames_or_corrupt(told, cut):
    whole = frames.pack_all(told)
    try:
        got = unpack(whole[: min(cut, len(whole))])
    except FramesCorrupt:
        return
    assert got == told[: len(got)]


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_corrupt(raw):
    try:
        got = unpack(raw)
    except FramesCorrupt:
        return
    assert all(len(frame.packed) == 8 * frame.size for frame in got)


def test_the_layout():
    """Fixed: processes of two versions may share a stream."""
    raw = Frame(0x0102030405060708, Namespace.KV, Operation.REMOVE, 3, packed([1, 2**64 - 1])).pack()

    assert raw.hex() == "0807060504030201020203000000020000000100000000000000" + "ff" * 8


@pytest.mark.parametrize(
    ("at", "value"), [pytest.param(8, 77, id="namespace"), pytest.param(9, 99, id="operation")]
)
def test_what_a_later_version_says_is_skipped(at, value):
    known = Frame(1, Namespace.KV, Operation.ADD, 0, packed([5]))
    strange = bytearray(Frame(1, Namespace.KV, Operation.ADD, 0, packed([6, 7])).pack())
    strange[at] = value

    assert unpack(known.pack() + bytes(strange) + known.pack()) == [known, known]


def test_what_is_wrong_is_said():
    whole = Frame(1, Namespace.KV, Operation.ADD, 0, packed([5, 6])).pack()

    with pytest.raises(FramesCorrupt, match="header at byte 34 of 44 is cut off"):
        unpack(whole + whole[:10])
    with pytest.raises(FramesCorrupt, match="2 hashes at byte 18 reach beyond the end at 26"):
        unpack(whole[:26])


@pytest.mark.parametrize(
    ("operation", "count"), [(Operation.CLEAR, 1), (Operation.CAPACITY, 0), (Operation.ROTATE, 2)]
)
def test_a_number_too_many_or_missing_is_corrupt(operation, count):
    raw = Frame(1, Namespace.PREFIX, operation, 0, packed([1] * count)).pack()

    with pytest.raises(FramesCorrupt, match=operation.name):
        unpack(raw)


def test_a_long_change_is_several_frames():
    hashes = list(range(2 * LIMIT + 1))
    told = frames.changes(1, Namespace.PREFIX, Operation.ADD, hashes, first=10)

    assert [frame.size for frame in told] == [LIMIT, LIMIT, 1]
    assert [frame.first for frame in told] == [10, 10 + LIMIT, 10 + 2 * LIMIT]
    assert [number for frame in told for number in frame.numbers()] == hashes


def test_a_change_of_nothing_is_no_frame():
    assert frames.changes(1, Namespace.PREFIX, Operation.ADD, []) == []


def test_some_of_the_numbers():
    frame = Frame(1, Namespace.KV, Operation.ADD, 0, packed(range(5)))

    assert frame.numbers(1, 3) == (1, 2)
    assert frame.numbers(3, 9) == (3, 4)
    assert frame.numbers(7, 9) == ()
