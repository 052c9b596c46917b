import asyncio
import time

from benchmarks.schedule.stalls import Held, Stalls


async def test_work_at_a_stretch_is_seen_and_waiting_is_not():
    stalls = Stalls()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(stalls.run())
        await asyncio.sleep(0.05)
        stalls.taken()
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        await asyncio.sleep(0.02)
        busy = stalls.taken()
        time.sleep(0.05)  # noqa: ASYNC251 - holds the loop up without work
        await asyncio.sleep(0.02)
        asleep = stalls.taken()
        watching.cancel()
    assert busy.longest_s >= 0.05
    assert busy.stalls >= 1
    assert asleep.longest_s < 0.05 <= asleep.longest_late_s + 0.002


def test_worse_is_the_worst_of_both():
    assert Held(0.1, 1, 0.2).worse(Held(0.3, 2, 0.1)) == Held(0.3, 3, 0.2)
