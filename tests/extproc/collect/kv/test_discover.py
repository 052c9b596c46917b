import contextlib
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from extproc.collect.kv.discover import NoSource, Source, configured, discover, told
from extproc.collect.kv.target import Target
from extproc.state.records import KvEvents

VLLM = Target("pod/ns/a", 1, "10.0.0.1", "http://127.0.0.1:1", 0, "vLLM", None, b"")
SGLANG = replace(VLLM, engine="SGLang")
PUBLISHER = {
    "enable_kv_cache_events": True,
    "publisher": "zmq",
    "endpoint": "tcp://*:5570",
    "replay_endpoint": "tcp://*:5580",
    "buffer_steps": 1000,
    "hwm": 100000,
    "max_queue_size": 100000,
    "topic": "kv@127.0.0.1:8100@tiny",
}
"""As vLLM 0.32 answers."""


def sglang(**fields):
    return {
        "model_path": "m",
        "kv_events": {
            "publisher": "zmq",
            "endpoint_host": "*",
            "endpoint_port_base": 5557,
            "topic": "",
            "block_size": 16,
            "dp_size": 2,
            "replay_endpoint_port_base": 5600,
        }
        | fields,
    }


def test_a_wildcard_is_the_pod():
    assert told({"0": PUBLISHER}, VLLM) == Source("tcp://10.0.0.1:5570", "tcp://10.0.0.1:5580")


def test_vllm_tells_the_addresses_of_each_rank():
    second = PUBLISHER | {"endpoint": "tcp://*:5571", "replay_endpoint": "tcp://*:5581"}

    source = told({"0": PUBLISHER, "1": second}, replace(VLLM, rank=1))
    assert source == Source("tcp://10.0.0.1:5571", "tcp://10.0.0.1:5581")


def test_a_pod_that_is_one_rank_of_many_pods_tells_only_itself():
    assert told({"3": PUBLISHER}, VLLM).endpoint == "tcp://10.0.0.1:5570"


def test_sglang_tells_the_ports_of_rank_0():
    source = told(sglang(), replace(SGLANG, rank=1))

    assert source == Source("tcp://10.0.0.1:5558", "tcp://10.0.0.1:5601")


@pytest.mark.parametrize(
    ("host", "pod_ip", "seen"),
    [
        ("*", "fd00::7", "[fd00::7]"),
        ("0.0.0.0", "10.0.0.1", "10.0.0.1"),
        ("[::]", "10.0.0.1", "10.0.0.1"),
        ("10.9.9.9", "10.0.0.1", "10.9.9.9"),
        ("[fd00::9]", "10.0.0.1", "[fd00::9]"),
        ("engine.example", "10.0.0.1", "engine.example"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("localhost", "::1", "localhost"),
    ],
)
def test_hosts_as_seen_from_here(host, pod_ip, seen):
    document = {"0": PUBLISHER | {"endpoint": f"tcp://{host}:5570"}}

    assert told(document, replace(VLLM, pod_ip=pod_ip)).endpoint == f"tcp://{seen}:5570"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]"])
def test_another_machines_loopback_is_not_ours(host):
    with pytest.raises(NoSource, match=r"inside its pod.*tcp://\*:5570"):
        told({"0": PUBLISHER | {"endpoint": f"tcp://{host}:5570"}}, VLLM)


@pytest.mark.parametrize("repeats", [None, "tcp://127.0.0.1:5580", "ipc:///tmp/replay"])
def test_without_replay_events_are_followed_all_the_same(repeats):
    source = told({"0": PUBLISHER | {"replay_endpoint": repeats}}, VLLM)

    assert (source.endpoint, source.replay) == ("tcp://10.0.0.1:5570", None)
    assert source.flaw


@pytest.mark.parametrize(
    ("document", "target"),
    [
        ({}, VLLM),
        ({"0": PUBLISHER}, replace(VLLM, rank=1)),
        ({"0": PUBLISHER | {"publisher": "null"}}, VLLM),
        ({"0": PUBLISHER | {"enable_kv_cache_events": False}}, VLLM),
        (sglang(publisher="null"), SGLANG),
        ({"model_path": "m"}, SGLANG),
        ({"kv_events": None}, SGLANG),
    ],
)
def test_an_engine_without_events_is_told_how_to_have_them(document, target):
    with pytest.raises(NoSource, match="--kv-events-config"):
        told(document, target)


@pytest.mark.parametrize(
    ("document", "target"),
    [
        (None, VLLM),
        ([], VLLM),
        ({"x": PUBLISHER}, VLLM),
        ({"0": {}}, VLLM),
        ({"0": PUBLISHER | {"endpoint": None}}, VLLM),
        ({"0": PUBLISHER | {"endpoint": "tcp://*"}}, VLLM),
        ({"0": PUBLISHER | {"endpoint": "tcp://*:x"}}, VLLM),
        ({"0": PUBLISHER | {"endpoint": "tcp://:5570"}}, VLLM),
        ({"0": PUBLISHER | {"endpoint": "ipc:///tmp/x"}}, VLLM),
        (sglang(endpoint_port_base=65535), replace(SGLANG, rank=1)),
        (sglang(endpoint_port_base="x"), SGLANG),
        (sglang(endpoint_host=7), SGLANG),
    ],
)
def test_answers_that_are_not_understood(document, target):
    with pytest.raises(NoSource):
        told(document, target)


values = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("tcp://*:5570")


@given(st.dictionaries(st.sampled_from(["endpoint", "publisher", "replay_endpoint"]), values))
def test_any_answer_is_a_source_or_none(fields):
    for document, target in (({"0": fields}, VLLM), (sglang(**fields), SGLANG)):
        with contextlib.suppress(NoSource):
            assert told(document, target).endpoint.startswith("tcp://")


def test_a_configured_address_is_that_of_rank_0():
    target = replace(VLLM, rank=2, configured=KvEvents("tcp://*:5557", "tcp://*:5657"))

    assert configured(target) == Source("tcp://10.0.0.1:5559", "tcp://10.0.0.1:5659")


def test_nothing_is_configured():
    with pytest.raises(NoSource, match=r"kvoy\.io/kv-events"):
        configured(VLLM)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def engine():
    """Serves the given answers, by path; its base URL."""
    runners = []

    async def serve(answers):
        app = web.Application()
        for path, answer in answers.items():

            async def respond(_, answer=answer):
                return answer

            app.router.add_get(path, respond)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()


async def test_vllm_is_asked(http, engine):
    url = await engine({"/kv_event_sources": web.json_response({"0": PUBLISHER})})

    found = await discover(http, replace(VLLM, http_base_url=url))
    assert found.endpoint == "tcp://10.0.0.1:5570"


async def test_sglang_is_asked(http, engine):
    url = await engine({"/server_info": web.json_response(sglang())})

    found = await discover(http, replace(SGLANG, http_base_url=url))
    assert found.endpoint == "tcp://10.0.0.1:5557"


ANNOTATED = KvEvents("tcp://*:7000")


async def test_what_the_engine_says_comes_before_what_is_configured(http, engine):
    url = await engine({"/kv_event_sources": web.json_response({"0": PUBLISHER})})

    found = await discover(http, replace(VLLM, http_base_url=url, configured=ANNOTATED))
    assert found.endpoint == "tcp://10.0.0.1:5570"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response({}),
        lambda: web.json_response(["?"]),
        lambda: web.Response(text="not JSON"),
        lambda: web.Response(body=b'{"\xff":1}'),
        lambda: web.Response(text="[" * 100_000),
        lambda: web.Response(status=500),
        lambda: web.Response(status=404),
    ],
)
async def test_an_engine_that_can_not_tell_is_as_configured(http, engine, answer):
    target = replace(VLLM, http_base_url=await engine({"/kv_event_sources": answer()}))
    with pytest.raises(NoSource):
        await discover(http, target)

    url = await engine({"/kv_event_sources": answer()})
    found = await discover(http, replace(target, http_base_url=url, configured=ANNOTATED))
    assert found.endpoint == "tcp://10.0.0.1:7000"


async def test_an_engine_that_is_not_there(http):
    with pytest.raises(NoSource, match="fails"):
        await discover(http, VLLM)


async def test_off_asks_nobody(http):
    with pytest.raises(NoSource, match="off"):
        await discover(http, replace(VLLM, configured="off"))
