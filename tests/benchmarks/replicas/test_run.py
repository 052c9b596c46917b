"""Many workers decide like one: hit rates and times to first token of one trace, bursts of equal prompts."""

from benchmarks.replicas.report import Row
from benchmarks.replicas.run import POLICIES, measure
from benchmarks.replicas.trace import Shape


async def test_eight_workers_decide_like_one():
    rows: dict[int, Row] = {}
    shape = Shape(conversations=50, turns=4, rate=60.0)
    async for row in measure({"lmetric": POLICIES["lmetric"]}, (1, 8), shape, bursts=3, seed=1):
        rows[row.workers] = row

    one, eight = rows[1], rows[8]
    assert one.requests == eight.requests == 200
    # A trace this short leaves some points to chance; `make bench-replicas` plays longer ones.
    assert abs(one.hit_rate - eight.hit_rate) < 0.05, (one, eight)
    assert eight.ttft_p90_ms < 1.5 * one.ttft_p90_ms, (one, eight)
    assert eight.busiest_share < one.busiest_share + 0.1, (one, eight)
    # Of 16 equal prompts on 8 pods, 2 each is even; blind choices put 4 or 5 on one.
    assert eight.burst_max < 4.2, rows
