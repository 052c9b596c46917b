"""What a course says while it is under way; how it ends is in `test_driver`."""

import asyncio

import pytest

from extproc.exchange import Routing
from extproc.handoff.connectors import CONNECTORS


def courses(order):
    return [name for name, connector in CONNECTORS.items() if connector.order == order]


@pytest.mark.parametrize("connector", courses("sequential"))
async def test_envoy_has_to_wait_for_a_prompt_that_is_computed_first(driver, handoff, nobody, connector):
    given = handoff(connector, nobody().endpoint("p"), nobody().endpoint("q"), timeout_s=20.0)
    course = driver.begin(given)

    assert course.longest_s == given.longest_s > 40
    await course.close()


@pytest.mark.parametrize("connector", ["nixl-push", "sglang", "sidecar"])
async def test_envoy_need_not_wait_where_all_is_known(driver, handoff, nobody, connector):
    course = driver.begin(handoff(connector, nobody().endpoint("p")))

    assert course.longest_s == 0
    await course.close()


async def test_envoy_waits_a_little_for_a_bootstrap_server(hasty, handoff, nobody):
    course = hasty.begin(handoff("mooncake", nobody().endpoint("p"), timeout_s=100.0))

    assert 0 < course.longest_s < 10
    await course.close()


@pytest.mark.parametrize("connector", [*courses("sequential"), *courses("sidecar")])
async def test_nothing_is_pending_when_the_decode_endpoint_is_told(driver, handoff, start, connector):
    course = driver.begin(handoff(connector, (await start()).endpoint("p")))
    assert not course.pending
    assert isinstance(await course.decided(), Routing)

    assert not course.pending
    assert await course.failed() is None
    await course.close()


@pytest.mark.parametrize("connector", courses("concurrent"))
async def test_a_prompt_is_pending_from_the_decision_to_its_end(hasty, handoff, start, connector):
    engine = await start(gate=asyncio.Event())
    course = hasty.begin(handoff(connector, engine.endpoint("p")))
    assert not course.pending

    await course.decided()
    assert course.pending

    engine.gate.set()
    await course.failed()
    assert not course.pending


async def test_a_course_may_be_closed_again(hasty, handoff, start, books, diary):
    engine = await start(gate=asyncio.Event())
    course = hasty.begin(handoff("sglang", engine.endpoint("p")))
    await course.decided()

    await course.close()
    await course.close()

    assert (books.ways, diary.endings) == ([("dropped", False)], ["left"])


async def test_leaving_while_waiting_for_a_failure_ends_the_prefill(hasty, handoff, start, books, until):
    """The caller needs no more than to be cancelled."""
    engine = await start(gate=asyncio.Event())
    course = hasty.begin(handoff("nixl-push", engine.endpoint("p")))
    await course.decided()
    await until(lambda: engine.open)
    waiting = asyncio.get_running_loop().create_task(course.failed())
    await asyncio.sleep(0)

    waiting.cancel()

    await until(lambda: engine.aborted)
    await until(lambda: books.live == {})
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("connector", [*courses("sequential"), *courses("concurrent")])
async def test_leaving_while_waiting_for_a_decision_ends_the_course(
    driver, handoff, start, books, diary, until, connector
):
    engine = await start(gate=asyncio.Event())
    course = driver.begin(handoff(connector, engine.endpoint("p")))
    waiting = asyncio.get_running_loop().create_task(course.decided())
    await until(lambda: engine.open)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (books.ways, diary.endings) == ([("dropped", False)], ["left"])
    await until(lambda: engine.aborted)
