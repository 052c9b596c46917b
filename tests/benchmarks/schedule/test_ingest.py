import pytest

from benchmarks.schedule.ingest import ingest


@pytest.mark.parametrize("per_batch", [64, 200])
def test_every_block_that_is_told_is_followed(per_batch):
    row = ingest(None, 640, per_batch, passes=1)

    assert row.blocks == 640 + 320, "half of the blocks have left again"
    assert row.blocks_per_s > 0
    assert row.blocks_per_batch == per_batch
