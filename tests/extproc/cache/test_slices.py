from extproc.cache.frames import packed
from extproc.cache.slices import SLICE, slices


def test_slices_cover_everything_in_order():
    hashes = list(range(2 * SLICE + 3))
    cut = list(slices(packed(hashes)))

    assert [at for at, _ in cut] == [0, SLICE, 2 * SLICE]
    assert [block for _, slice_ in cut for block in slice_] == hashes
    assert max(len(slice_) for _, slice_ in cut) == SLICE


def test_nothing_has_no_slices():
    assert list(slices(b"")) == []
