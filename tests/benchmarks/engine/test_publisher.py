import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import zmq
import zmq.asyncio

from benchmarks.engine import EngineSettings, running
from benchmarks.engine.events import EventBatch
from benchmarks.engine.faults import LoseEvents
from benchmarks.engine.publisher import opened

END = b"\xff" * 8
DEADLINE_S = 20


class Subscriber:
    """What a collector does, with nothing in between."""

    def __init__(self) -> None:
        self._context = zmq.asyncio.Context()
        self._sockets: list[zmq.asyncio.Socket] = []

    def close(self) -> None:
        for socket in self._sockets:
            socket.close(linger=0)
        self._context.term()

    async def follow(self, source: dict[str, object], topic: str = "") -> zmq.asyncio.Socket:
        sub = self._socket(zmq.SUB)
        monitor = sub.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        sub.subscribe(topic)
        sub.connect(self._url(source["endpoint"]))
        async with asyncio.timeout(DEADLINE_S):
            await monitor.recv_multipart()
        sub.disable_monitor()
        monitor.close(linger=0)
        # The publisher learns of the subscription after the handshake, at the next look at its connections.
        await asyncio.sleep(0.1)
        return sub

    async def replay(self, source: dict[str, object], *request: bytes) -> list[list[bytes]]:
        dealer = self._socket(zmq.DEALER)
        dealer.connect(self._url(source["replay_endpoint"]))
        await dealer.send_multipart(request)
        frames = []
        async with asyncio.timeout(DEADLINE_S):
            while not frames or frames[-1][2] != END:
                frames.append(await dealer.recv_multipart())
        return frames

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        self._sockets.append(self._context.socket(kind))
        return self._sockets[-1]

    def _url(self, endpoint: object) -> str:
        return str(endpoint).replace("*", "127.0.0.1")


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    yield subscriber
    subscriber.close()


async def received(sub: zmq.asyncio.Socket) -> tuple[bytes, int, EventBatch]:
    async with asyncio.timeout(DEADLINE_S):
        topic, number, payload = await sub.recv_multipart()
    return topic, int.from_bytes(number, "big"), msgspec.msgpack.decode(payload, type=EventBatch)


async def ask(http, engine, prompt: str, rank: int = 0) -> None:
    body = {"prompt": prompt, "max_tokens": 1}
    headers = {"x-data-parallel-rank": str(rank)}
    async with http.post(f"{engine.url}/v1/completions", json=body, headers=headers) as answer:
        assert answer.status == 200


@pytest.fixture
def begin(start) -> Callable:
    async def publishing(**knobs: object):
        return await start(**{"kv_events": 0, "kv_events_replay": 0, **knobs})

    return publishing


async def test_a_batch_is_topic_number_and_events(begin, http, subscriber) -> None:
    engine = await begin(kv_events_topic="kv@pod-a@tiny")
    sub = await subscriber.follow(engine.kv_event_sources["0"], "kv@")
    for prompt in ("a" * 128, "b" * 64):
        await ask(http, engine, prompt)
    batches = [await received(sub) for _ in range(2)]
    assert [(topic, number) for topic, number, _ in batches] == [(b"kv@pod-a@tiny", 0), (b"kv@pod-a@tiny", 1)]
    (stored,) = batches[0][2].events
    assert (stored.block_size, len(stored.block_hashes), len(stored.token_ids)) == (16, 2, 32)
    assert (batches[0][2].data_parallel_rank, batches[0][2].ts > 1e9) == (0, True)


async def test_each_rank_publishes_on_a_port_of_its_own(begin, http, subscriber) -> None:
    engine = await begin(data_parallel_size=3)
    sources = engine.kv_event_sources
    assert list(sources) == ["0", "1", "2"]
    for kind in ("endpoint", "replay_endpoint"):
        ports = [int(str(sources[rank][kind]).rpartition(":")[2]) for rank in sources]
        assert ports == [ports[0], ports[0] + 1, ports[0] + 2]
    subs = [await subscriber.follow(source) for source in sources.values()]
    await ask(http, engine, "a" * 64, rank=2)
    await ask(http, engine, "b" * 64, rank=1)
    for rank in (1, 2):
        _, number, batch = await received(subs[rank])
        assert (number, batch.data_parallel_rank) == (0, rank)


async def test_a_replay_gives_what_is_kept_from_a_number_on_and_an_end(begin, http, subscriber) -> None:
    engine = await begin(kv_events_buffer=3, kv_events_topic="t")
    for letter in "abcde":
        await ask(http, engine, letter * 64)
    source = engine.kv_event_sources["0"]
    whole = await subscriber.replay(source, b"", (0).to_bytes(8, "big"))
    assert [(frames[0], frames[1], frames[2][-1]) for frames in whole[:-1]] == [
        (b"", b"t", 2), (b"", b"t", 3), (b"", b"t", 4),
    ]  # fmt: skip
    assert whole[-1] == [b"", b"", END, b""]
    late = await subscriber.replay(source, b"", (4).to_bytes(8, "big"))
    assert [frames[3] for frames in late] == [whole[2][3], b""]
    assert len(await subscriber.replay(source, b"", (5).to_bytes(8, "big"))) == 1


async def test_a_malformed_replay_request_is_ignored(begin, http, subscriber) -> None:
    engine = await begin()
    await ask(http, engine, "a" * 64)
    source = engine.kv_event_sources["0"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await subscriber.replay(source, b"just one")
    assert len(await subscriber.replay(source, b"", (0).to_bytes(8, "big"))) == 2


async def test_lost_batches_miss_subscribers_but_not_the_replay(begin, http, subscriber) -> None:
    engine = await begin()
    source = engine.kv_event_sources["0"]
    sub = await subscriber.follow(source)
    await ask(http, engine, "a" * 64)
    engine.set_faults([LoseEvents(batches=2)])
    for letter in "bcd":
        await ask(http, engine, letter * 64)
    assert [(await received(sub))[1] for _ in range(2)] == [0, 3]
    replayed = await subscriber.replay(source, b"", (1).to_bytes(8, "big"))
    assert [frames[2][-1] for frames in replayed[:-1]] == [1, 2, 3]


async def test_a_new_engine_on_the_same_port_counts_from_0(begin, http, subscriber) -> None:
    async with running(EngineSettings(kv_events=0)) as engine:
        source = engine.kv_event_sources["0"]
        port = int(str(source["endpoint"]).rpartition(":")[2])
        sub = await subscriber.follow(source)
        await ask(http, engine, "a" * 64)
        assert (await received(sub))[1] == 0
    second = await begin(kv_events=port)
    sub = await subscriber.follow(second.kv_event_sources["0"])
    await ask(http, second, "b" * 64)
    assert (await received(sub))[1] == 0


async def test_the_sources_have_the_shape_of_vllms(begin, http, captures, same_shape) -> None:
    engine = await begin(kv_events_topic="t", kv_events_buffer=1000)
    async with http.get(f"{engine.url}/kv_event_sources") as answer:
        told = await answer.json()
    assert same_shape(told, captures["kv_sources"].json)
    assert (told["0"]["topic"], told["0"]["buffer_steps"]) == ("t", 1000)
    assert told == engine.kv_event_sources


async def test_without_replay_there_is_no_endpoint_for_it(start) -> None:
    engine = await start(kv_events=0)
    assert engine.kv_event_sources["0"]["replay_endpoint"] is None


async def test_without_events_there_is_no_source(start, http) -> None:
    engine = await start()
    async with http.get(f"{engine.url}/kv_event_sources") as answer:
        assert await answer.json() == {}


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with opened(EngineSettings(kv_events=0)) as (taken,):
        port = int(taken.pub.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        with pytest.raises(OSError, match=f"ports from {port}"), opened(EngineSettings(kv_events=port)):
            pytest.fail("the port is taken")
        with opened(EngineSettings(kv_events=port, host="127.0.0.2")) as (other,):
            assert not other.pub.closed
        assert other.pub.closed


async def test_it_stops_publishing_when_the_engine_ends() -> None:
    async with running(EngineSettings(kv_events=0, kv_events_replay=0)) as engine:
        source = engine.kv_event_sources["0"]
    for kind in ("endpoint", "replay_endpoint"):
        port = int(str(source[kind]).rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
