import asyncio
import json
import socket
import ssl
from pathlib import Path

import pytest

from extproc.handoff import engines as module
from extproc.handoff.engines import EngineFailed, Engines
from extproc.state.records import Tls
from extproc.state.snapshot import Source

CERTIFICATES = Path(__file__).parents[2] / "controller" / "xds" / "tls"
CA = str(CERTIFICATES / "ca.pem")
PATH = "/v1/chat/completions"


async def post(engines, engine, body=b"{}", headers=None, tls=None, timeout_s=30.0):
    return await engines.post(engine.address, PATH, body, headers or {}, tls, timeout_s)


async def failure(asking) -> EngineFailed:
    with pytest.raises(EngineFailed) as failed:
        await asking
    return failed.value


async def test_the_answer_of_an_engine_is_its_body(engines, start):
    engine = await start(answer=b'{"a":1}')

    assert await post(engines, engine, b'{"b":2}', {"x-request-id": "r"}) == b'{"a":1}'
    (asked,) = engine.asked
    assert (asked.path, asked.body, asked.headers["x-request-id"]) == (PATH, {"b": 2}, "r")


@pytest.mark.parametrize("status", [201, 302, 400, 429, 500, 503])
async def test_any_status_but_200_is_a_failure(engines, start, status):
    engine = await start(status=status, answer=b'{"error":1}', headers={"location": "/v1/completions"})

    failed = await failure(post(engines, engine))

    assert (failed.kind, failed.status, failed.body) == ("status", status, b'{"error":1}')
    assert len(engine.asked) == 1


async def test_nobody_there_is_refused(engines, nobody):
    assert (await failure(post(engines, nobody()))).kind == "refused"


def knocking_at(address) -> socket.socket:
    knocking = socket.socket()
    knocking.setblocking(False)
    knocking.connect_ex(address)
    return knocking


async def test_who_never_accepts_is_refused_and_not_waited_for(clock, monkeypatch):
    """A connection that is never made is a dead endpoint, however long a prompt may take."""
    monkeypatch.setattr(module, "CONNECT_S", 0.05)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        queue = [knocking_at(full.getsockname()) for _ in range(4)]
        async with Engines(clock) as engines:
            address = f"127.0.0.1:{full.getsockname()[1]}"
            failed = await failure(engines.post(address, PATH, b"{}", {}, None, 600))
        for knocking in queue:
            knocking.close()

    assert failed.kind == "refused"


async def test_an_engine_that_takes_too_long_is_left(engines, start, until):
    engine = await start(gate=asyncio.Event())

    assert (await failure(post(engines, engine, timeout_s=0.1))).kind == "timeout"
    await until(lambda: engine.aborted == 1)


async def test_a_reset_in_the_middle_of_the_answer_is_broken(engines, start):
    assert (await failure(post(engines, await start(resets=True)))).kind == "broken"


async def test_what_is_no_http_is_broken(engines):
    async def talk(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failed = await failure(engines.post(f"127.0.0.1:{port}", PATH, b"{}", {}, None, 30))

    assert failed.kind == "broken"


async def test_an_answer_without_end_is_broken(engines, start, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_ANSWER", 1000)

    assert (await failure(post(engines, await start(answer=b"x" * 5000)))).kind == "broken"


async def test_a_failure_tells_nothing_of_the_request(engines, start, nobody):
    secret = {"authorization": "Bearer s3cret"}
    for engine in (nobody(), await start(resets=True), await start(status=500)):
        failed = await failure(post(engines, engine, b'{"prompt":"s3cret"}', secret))
        assert "s3cret" not in str(failed)


async def test_a_body_of_many_megabytes_arrives_whole_and_without_a_warning(engines, start):
    engine = await start()
    prompt = "a" * (5 * 2**20)

    await post(engines, engine, json.dumps({"prompt": prompt}).encode())

    assert engine.asked[0].body == {"prompt": prompt}
    assert "content-length" in engine.asked[0].headers


async def test_connections_are_used_again(engines, start):
    engine = await start()
    for _ in range(3):
        await post(engines, engine)

    assert len({asked.port for asked in engine.asked}) == 1


async def test_many_prompts_are_computed_at_once(engines, start, until):
    """No limit of connections is between an engine and its batch."""
    engine = await start(gate=asyncio.Event())
    async with asyncio.TaskGroup() as tasks:
        for _ in range(110):
            tasks.create_task(post(engines, engine))
        await until(lambda: engine.open == 110)
        engine.gate.set()


async def test_no_cookie_of_one_client_is_sent_for_another(engines, start):
    engine = await start(headers={"set-cookie": "session=1"})
    engine.address = engine.address.replace("127.0.0.1", "localhost")  # a name: jars keep none of addresses
    await post(engines, engine)
    await post(engines, engine)

    assert all("cookie" not in asked.headers for asked in engine.asked)


async def test_a_cancelled_call_ends_at_the_engine(engines, start, until):
    engine = await start(gate=asyncio.Event())
    asking = asyncio.get_running_loop().create_task(post(engines, engine))
    await until(lambda: engine.open == 1)

    asking.cancel()

    await until(lambda: engine.aborted == 1)
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.fixture
async def tls_engine(start):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATES / "engine.pem", CERTIFICATES / "engine.key")
    return await start(ssl=context)


async def test_https_engines_are_known_by_their_name_and_not_their_address(engines, tls_engine):
    for _ in range(2):
        await post(engines, tls_engine, tls=Tls("engine.test", CA))

    assert len({asked.port for asked in tls_engine.asked}) == 1


@pytest.mark.parametrize(
    "tls", [Tls("other.test", CA), Tls("engine.test"), Tls("engine.test", "/no/such.pem")]
)
async def test_an_engine_that_cannot_be_verified_gets_no_prompt(engines, tls_engine, tls):
    assert (await failure(post(engines, tls_engine, tls=tls))).kind == "refused"
    assert tls_engine.asked == []


async def test_an_engine_that_need_not_be_verified_gets_it(engines, tls_engine):
    await post(engines, tls_engine, tls=Tls("other.test", CA, verify=False))

    assert len(tls_engine.asked) == 1


async def test_a_new_ca_file_counts_after_a_while(engines, tls_engine, clock, tmp_path):
    bundle = tmp_path / "ca.pem"
    tls = Tls("engine.test", str(bundle))
    assert (await failure(post(engines, tls_engine, tls=tls))).kind == "refused"
    bundle.write_bytes(Path(CA).read_bytes())
    await post(engines, tls_engine, tls=tls)
    bundle.unlink()
    await post(engines, tls_engine, tls=tls)

    clock.now += 301

    assert (await failure(post(engines, tls_engine, tls=tls))).kind == "refused"


async def test_a_bootstrap_server_tells_the_engine_of_each_rank(engines, start):
    engine = await start()

    assert await engines.engine_id(engine.source, 0, 30) == "eng-zero"
    assert await engines.engine_id(engine.source, 1, 30) == "eng-one"
    assert engine.queries == 1


async def test_engine_ids_are_believed_for_a_while(engines, start, clock):
    engine = await start()
    await engines.engine_id(engine.source, 0, 30)
    engine.ranks = {"0": {"engine_id": "reborn"}}
    clock.now += 9
    assert await engines.engine_id(engine.source, 0, 30) == "eng-zero"

    clock.now += 2

    assert await engines.engine_id(engine.source, 0, 30) == "reborn"


async def test_engine_ids_of_an_engine_that_failed_are_forgotten(engines, start):
    engine = await start()
    await engines.engine_id(engine.source, 0, 30)
    engine.ranks = {"0": {"engine_id": "reborn"}}

    engines.forget(engine.source)

    assert await engines.engine_id(engine.source, 0, 30) == "reborn"


async def test_a_rank_that_is_not_there_yet_is_asked_for_again(engines, start):
    engine = await start(ranks={})
    assert (await failure(engines.engine_id(engine.source, 0, 30))).kind == "broken"

    engine.ranks = {"0": {"engine_id": "now"}}

    assert await engines.engine_id(engine.source, 0, 30) == "now"


@pytest.mark.parametrize("ranks", [[], {"0": {}}, {"0": {"engine_id": 7}}, None])
async def test_a_bootstrap_server_that_says_something_else_is_broken(engines, start, ranks):
    engine = await start(ranks=ranks)

    assert (await failure(engines.engine_id(engine.source, 0, 30))).kind == "broken"


async def test_a_bootstrap_server_that_is_not_there_is_refused(engines, nobody):
    assert (await failure(engines.engine_id(nobody().source, 0, 30))).kind == "refused"


async def test_ids_of_engines_that_are_gone_are_not_kept(engines, start, clock):
    first, second = await start(), await start()
    await engines.engine_id(first.source, 0, 30)
    clock.now += 11
    await engines.engine_id(second.source, 0, 30)

    assert list(engines._ids) == [second.source]


async def test_ipv6_bootstrap_servers_are_reached(engines):
    assert (await failure(engines.engine_id(Source("::1", 1, "e"), 0, 30))).kind == "refused"
