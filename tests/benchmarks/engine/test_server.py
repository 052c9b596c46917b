import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from benchmarks.engine import EngineSettings, running
from benchmarks.engine.faults import Die, Refuse
from benchmarks.engine.journal import Outcome

ROOT = Path(__file__).parents[3]
STREAM = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "stream": True}


async def refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_engines_in_one_process_are_told_apart(start, http) -> None:
    engines = [await start(name=name) for name in ("pod-a", "pod-b")]
    for engine in engines:
        async with http.post(f"{engine.url}/v1/completions", json={"prompt": "x"}) as answer:
            assert (await answer.json())["choices"][0]["text"].startswith(f"{engine.name} says")
        assert engine.requests.received == 1


async def test_it_stops_listening_when_the_block_ends(http) -> None:
    async with running(EngineSettings()) as engine:
        assert not await refused(engine.port)
    assert await refused(engine.port)


async def test_the_callers_error_comes_through_unwrapped() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with running(EngineSettings()):
            raise KeyError("mine")


async def test_an_address_in_use_is_an_error() -> None:
    async with running(EngineSettings()) as engine:
        with pytest.raises(OSError, match="address already in use"):
            async with running(EngineSettings(port=engine.port)):
                pytest.fail("the port is taken")


async def test_open_streams_are_cut_when_it_stops(http) -> None:
    async with running(EngineSettings(inter_token_s=60.0)) as engine:
        answer = await http.post(f"{engine.url}/v1/chat/completions", json=STREAM)
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
    assert engine.requests.count(Outcome.ABORTED) == 1
    assert engine.running == 0


async def test_a_refusal_resets_streams_and_ends_by_itself(start, http, until) -> None:
    engine = await start(inter_token_s=60.0)
    answer = await http.post(f"{engine.url}/v1/chat/completions", json=STREAM)
    engine.set_faults([Refuse(0.5)])
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
    assert await refused(engine.port)
    async with asyncio.timeout(20):
        while await refused(engine.port):
            await asyncio.sleep(0.02)
    async with http.get(f"{engine.url}/health") as answer:
        assert answer.status == 200
    await until(lambda: engine.running == 0)


async def test_a_refusal_asked_for_over_http_is_answered_first(start, http) -> None:
    engine = await start()
    async with http.post(f"{engine.url}/_engine/faults", json=[{"kind": "refuse", "seconds": 60}]) as answer:
        assert answer.status == 200
        assert await answer.json() == [{"kind": "refuse", "seconds": 60}]
    async with asyncio.timeout(20):
        while not await refused(engine.port):
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


async def test_with_a_certificate_it_speaks_https(start, http, certificate) -> None:
    cert, key = certificate
    engine = await start(tls_cert=cert, tls_key=key)
    trust = ssl.create_default_context(cafile=str(cert))
    async with http.post(f"{engine.url}/v1/completions", json={"prompt": "x"}, ssl=trust) as answer:
        assert engine.url.startswith("https://")
        assert answer.status == 200


class Process:
    """An engine started from the command line."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engine", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_at_once_even_with_open_streams(http, number: signal.Signals) -> None:
    with Process("--name", "pod-x", "--port", "0", "--inter-token-s", "60") as process:
        line = await asyncio.to_thread(process.stderr.readline)
        assert line.startswith("INFO engine pod-x serves sim-model on http://127.0.0.1:")
        url = line.split()[-1]
        answer = await http.post(f"{url}/v1/chat/completions", json=STREAM)
        os.kill(process.pid, number)
        assert await asyncio.to_thread(process.wait, 20) == 0
        assert process.stderr.read() == ""
        answer.close()


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Process("--name", "pod-x", "--port", str(port)) as process:
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 1
    assert errors.count("\n") == 1
    assert errors.startswith(f"ERROR engine pod-x cannot listen on 127.0.0.1:{port}: ")
    assert "in use" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fault", "[{]"], "expected a list such as"),
        (["--num-blocks", "3"], "num_blocks"),
        (["--tls-cert", __file__], "tls_cert and tls_key"),
        (["--port", "99999"], "--port"),
        (["--kv-events-replay", "0"], "kv_events_replay"),
        (["--role", "prefill"], "role: prefill needs a connector"),
        (["--connector", "p2p"], "--connector"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], said: str) -> None:
    with Process(*arguments) as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 2
    assert said in errors
    assert "Traceback" not in errors


def test_a_missing_certificate_is_named() -> None:
    with Process("--tls-cert", "/nowhere/c.pem", "--tls-key", "/nowhere/k.pem") as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 2
    assert "/nowhere/c.pem" in errors


def test_a_certificate_that_is_none_is_one_clear_line() -> None:
    with Process("--tls-cert", __file__, "--tls-key", __file__) as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
    assert errors.count("\n") == 1


def test_help_shows_examples() -> None:
    with Process("--help") as process:
        text, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert "python -m benchmarks.engine --name pod-a" in text
    assert '{"kind":"reset","after_tokens":3}' in text
    assert '{"kind":"lose_events","batches":3}' in text
    assert "--role prefill --connector nixl --kv-port 5600" in text


async def test_a_killed_engine_cuts_all_and_listens_no_more(start, http, until) -> None:
    engine = await start(inter_token_s=60.0)
    stream = await http.post(f"{engine.url}/v1/chat/completions", json=STREAM)
    assert engine.alive
    engine.set_faults([Die(after_tokens=1)])
    with pytest.raises(aiohttp.ClientError):
        await http.post(f"{engine.url}/v1/chat/completions", json={**STREAM, "stream": False})
    with pytest.raises(aiohttp.ClientError):
        await stream.read()
    await engine.death()
    assert not engine.alive
    assert await refused(engine.port)
    await until(lambda: engine.running == 0)


async def test_a_process_whose_engine_dies_ends_with_status_one(http) -> None:
    arguments = ["--name", "pod-x", "--port", "0", "--role", "decode", "--connector", "nixl"]
    with Process(*arguments) as process:
        url = (await asyncio.to_thread(process.stderr.readline)).split()[-1]
        body = {"prompt": "x", "kv_transfer_params": {"do_remote_prefill": True}}
        async with http.post(f"{url}/v1/completions", json=body) as answer:
            assert answer.status == 500
        assert await asyncio.to_thread(process.wait, 20) == 1
        assert process.stderr.read() == "ERROR engine pod-x died\n"
