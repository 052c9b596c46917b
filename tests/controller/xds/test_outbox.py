"""What a slow Envoy gets: the newest of each type, in order."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from controller.xds.outbox import Outbox
from controller.xds.resources import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES
from controller.xds.session import Response

TYPES = (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES)


def response(type_url: str, version: int) -> Response:
    return Response(type_url, str(version), str(version), {})


async def taken(outbox: Outbox) -> list[Response]:
    return [await outbox.take() for _ in range(len(outbox))]


async def test_responses_leave_in_the_order_in_which_they_came():
    outbox = Outbox()
    posted = [response(each, 1) for each in TYPES]
    for each in posted:
        outbox.post(each)

    assert await taken(outbox) == posted


async def test_a_newer_one_replaces_an_older_and_keeps_behind_what_it_follows():
    """Envoy must have a new cluster before the endpoints that are meant for it."""
    outbox = Outbox()
    for each in (response(ENDPOINTS, 1), response(CLUSTERS, 2), response(ENDPOINTS, 2)):
        outbox.post(each)

    assert await taken(outbox) == [response(CLUSTERS, 2), response(ENDPOINTS, 2)]


@given(st.lists(st.sampled_from([*TYPES, None]), max_size=40))
def test_however_seldom_one_is_taken_only_the_newest_of_each_type_wait(script):
    async def play() -> None:
        outbox = Outbox()
        expected: list[Response] = []
        for version, type_url in enumerate(script):
            if type_url is not None:
                expected = [each for each in expected if each.type_url != type_url]
                expected.append(response(type_url, version))
                outbox.post(expected[-1])
            elif expected:
                assert await outbox.take() == expected.pop(0)
            assert len(outbox) == len(expected) <= len(TYPES)
        assert await taken(outbox) == expected

    asyncio.run(play())


async def test_whoever_takes_waits_for_a_response():
    outbox = Outbox()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for version in (1, 2):
            taking = tasks.create_task(outbox.take())
            await asyncio.sleep(0)
            assert not taking.done()
            outbox.post(response(CLUSTERS, version))
            assert await taking == response(CLUSTERS, version)
