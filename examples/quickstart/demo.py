"""kvoy on one machine: three simulated engines, `kvoy up` on this directory, and requests through Envoy.

Prints for each request which rule took it, to which pod, and why that pod. Exits with 1 if one went elsewhere
than the manifests say, or away from the pod that has its prompt cached. An argument names another directory
with the same ModelServers.
"""

import asyncio
import json
import re
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiohttp
import yaml

from controller.up.ready import Ready
from extproc.supervise import PortTaken, Probe, claim, python, tethered, why_not_ready

MODEL = "deepseek-multi-models"
LONGEST_REPLY = 150
"""Tokens; an engine says 100 of them per second."""
START_S = 60.0
STOP_S = 20.0


class Failed(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(frozen=True)
class Engine:
    """A pod of the manifests, which a simulated vLLM plays."""

    name: str
    host: str
    port: int
    model: str


@dataclass(frozen=True)
class Ask:
    """A request, and what the manifests promise for it."""

    title: str
    status: int = 200
    server: str | None = None
    """The ModelServer that must get it; None if kvoy answers itself."""
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    continues: str | None = None
    """Title of an earlier request with the same long beginning: its pod must get this one."""


@dataclass
class Outcome:
    """What came back."""

    ask: Ask
    request_id: str
    status: int
    served_by: str | None
    """The name that the engine itself gives."""
    first_byte_ms: float
    body: bytes
    explanation: dict[str, Any]


def chat(words: str, **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": words}], "max_tokens": 24} | more


PREMIUM = {"user-type": "premium"}
LARGE, SMALL = "default/deepseek-r1-7b", "default/deepseek-r1-1-5b"
BOOK = " ".join(f"Chapter {number}: what happened next, and what was said about it." for number in range(120))
"""Two long prompts begin with it."""
ASKS = (
    Ask("premium user", server=LARGE, headers=PREMIUM, body=chat("Why is the sky blue?")),
    Ask("premium user, streamed", server=LARGE, headers=PREMIUM, body=chat("And the sea?", stream=True)),
    Ask("any user, a book", server=SMALL, body=chat(f"{BOOK} Who is the hero?", stream=True)),
    Ask(
        "the same book",
        server=SMALL,
        body=chat(f"{BOOK} And who is the villain?", stream=True),
        continues="any user, a book",
    ),
    Ask("free user", server=SMALL, headers={"user-type": "free"}, body=chat("Tell me a joke.")),
    Ask(
        "any user, long answer",
        server=SMALL,
        body=chat("A long story?", stream=True, max_tokens=LONGEST_REPLY),
    ),
    Ask("another one meanwhile", server=SMALL, body=chat("And me too.", stream=True)),
    Ask("unknown model", status=404, body={**chat("Hello?"), "model": "no-such-model"}),
    Ask("which models are there?", path="/v1/models"),
)
LONG, MEANWHILE = ASKS[5:7]
"""The second is sent while the first is being answered, so it should find another pod idler."""
SHARED_AFTER_S = 0.3
"""By then each worker knows what the others have in flight."""


def engines(directory: Path) -> list[Engine]:
    """The pods of `directory`, with what their containers are told to serve."""
    found = []
    for pod in yaml.safe_load_all((directory / "pods.yaml").read_text()):
        container = pod["spec"]["containers"][0]
        model = container["args"][container["args"].index("--model") + 1]
        port = container["ports"][0]["containerPort"]
        found.append(Engine(pod["metadata"]["name"], pod["status"]["podIP"], port, model))
    return found


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says what is going on, and how long it took."""
    print(f"· {text} …", end="", flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f" {time.monotonic() - began:.1f} s", flush=True)


@asynccontextmanager
async def running(argv: tuple[str, ...], stdout: int | IO[bytes], said: IO[bytes]) -> AsyncIterator[Process]:
    """A child that is stopped at the end, and that dies with this process in any case."""
    process = await asyncio.create_subprocess_exec(
        *tethered(argv), stdin=DEVNULL, stdout=stdout, stderr=said, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def start_engines(stack: AsyncExitStack, wanted: list[Engine], said: IO[bytes]) -> None:
    """All of them, until they answer; raises Failed."""
    for engine in wanted:
        try:
            claim(engine.host, engine.port)
        except PortTaken as error:
            raise Failed(f"engine {engine.name}: {error}. Does another demo run?") from None
    started = []
    for engine in wanted:
        where = ("--host", engine.host, "--port", str(engine.port))
        plays = ("--name", engine.name, "--model", engine.model, "--reply-tokens", str(LONGEST_REPLY))
        argv = python("-m", "benchmarks.engine", *plays, *where)
        started.append((engine, await stack.enter_async_context(running(argv, said, said))))
    for engine, process in started:
        probes = (Probe(f"{engine.host}:{engine.port}", "/health"),)
        deadline = time.monotonic() + START_S
        while (why := await why_not_ready(probes)) is not None:
            if process.returncode is not None or time.monotonic() > deadline:
                raise Failed(f"engine {engine.name} did not start: {why}\n{tail(said)}")
            await asyncio.sleep(0.05)


async def start_kvoy(stack: AsyncExitStack, directory: Path, said: IO[bytes]) -> Ready:
    """`kvoy up` on free ports, until it says where it is; raises Failed."""
    argv = python("-m", "extproc.cli", "up", "-f", str(directory), "--port", "0", "--admin-port", "0")
    process = await stack.enter_async_context(running(argv, PIPE, said))
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        return Ready.parse(line.decode())
    except (TimeoutError, ValueError):
        raise Failed(f"`kvoy up` did not get ready:\n{tail(said)}") from None


def tail(said: IO[bytes], lines: int = 30) -> str:
    """The end of what children said."""
    said.seek(0)
    return "\n".join(said.read().decode(errors="replace").splitlines()[-lines:])


async def send(session: aiohttp.ClientSession, ready: Ready, ask: Ask) -> Outcome:
    """One request through Envoy, and the reason of its worker."""
    began = time.perf_counter()
    method = "GET" if ask.body is None else "POST"
    async with session.request(method, ready.url + ask.path, json=ask.body, headers=ask.headers) as answer:
        body = await answer.content.readany()
        first_byte_ms = (time.perf_counter() - began) * 1000
        body += await answer.content.read()
        request_id = answer.headers.get("x-request-id", "")
        served_by = answer.headers.get("x-engine-name")
    why = await explanation(session, ready, request_id)
    return Outcome(ask, request_id, answer.status, served_by, first_byte_ms, body, why)


async def explanation(session: aiohttp.ClientSession, ready: Ready, request_id: str) -> dict[str, Any]:
    """What the worker that decided says; each worker knows only its own decisions. Empty if none did."""
    for admin in ready.admin:
        async with session.get(f"{admin}/explain/{request_id}") as answer:
            if answer.status == 200:
                return dict(await answer.json())
    return {}


async def send_all(session: aiohttp.ClientSession, ready: Ready) -> list[Outcome]:
    """Every request, in order."""
    outcomes = []
    async with asyncio.TaskGroup() as tasks:
        for ask in ASKS:
            sent = tasks.create_task(send(session, ready, ask))
            outcomes.append(sent)
            if ask is LONG:
                await asyncio.sleep(SHARED_AFTER_S)
            else:
                await asyncio.wait([sent])
    return [sent.result() for sent in outcomes]


def usage(body: bytes) -> dict[str, int] | None:
    """What the engine counted, from a plain or a streamed answer; None where there is no count."""
    found = re.findall(rb'"usage":\s*(\{(?:[^{}]|\{[^{}]*\})*\})', body)
    if not found:
        return None
    told = json.loads(found[-1])
    details = told.get("prompt_tokens_details") or {}
    return {
        "prompt": told["prompt_tokens"],
        "cached": details.get("cached_tokens", 0),
        "answer": told["completion_tokens"],
    }


def rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    """The table, without its head."""
    for outcome in outcomes:
        told = outcome.explanation
        counted = usage(outcome.body) or {}
        yield (
            outcome.ask.title,
            told.get("rule", "-"),
            chosen(told) or "-",
            str(outcome.status),
            *(str(counted.get(kind, "-")) for kind in ("prompt", "cached", "answer")),
            f"{outcome.first_byte_ms:.0f} ms",
            told.get("why") or "kvoy answers this itself",
        )


def table(outcomes: list[Outcome]) -> str:
    """One request per line."""
    head = ("REQUEST", "RULE", "POD", "STATUS", "PROMPT", "CACHED", "ANSWER", "FIRST BYTE", "WHY")
    lines = [head, *rows(outcomes)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def chosen(told: dict[str, Any]) -> str | None:
    """The pod that a decision names first; None where it names none."""
    candidates = told.get("candidates")
    return candidates[0]["pod"].rpartition("/")[2] if candidates else None


def wrong(outcome: Outcome, earlier: dict[str, Outcome], pods: set[str]) -> str | None:
    """What is not as it should be; None if all is well. `earlier` are the outcomes by title."""
    ask, told = outcome.ask, outcome.explanation
    if outcome.status != ask.status:
        said = outcome.body[:300].decode(errors="replace")
        return f"{ask.title}: status {outcome.status}, not {ask.status}: {said}"
    if ask.server is None:
        return None if outcome.served_by is None else f"{ask.title}: {outcome.served_by} answered, not kvoy"
    if told.get("server") != ask.server:
        return f"{ask.title}: went to ModelServer {told.get('server')}, not {ask.server}"
    if outcome.served_by not in pods or not outcome.served_by.startswith(ask.server.rpartition("/")[2]):
        return f"{ask.title}: served by {outcome.served_by}, which is no pod of {ask.server}"
    if chosen(told) != outcome.served_by:
        return f"{ask.title}: placed on {chosen(told)} but served by {outcome.served_by}"
    if ask.continues is not None and outcome.served_by != earlier[ask.continues].served_by:
        return f"{ask.title}: served by {outcome.served_by}, whose cache has nothing of it"
    return None


async def demo(directory: Path) -> list[str]:
    """All of it; returns what went wrong."""
    wanted = engines(directory)
    with tempfile.TemporaryFile() as said:  # has no name: nothing is left of it
        async with AsyncExitStack() as stack:
            with step(f"starting {len(wanted)} simulated engines"):
                await start_engines(stack, wanted, said)
            with step("starting Valkey, the controller, two workers, a collector and Envoy (kvoy up)"):
                ready = await start_kvoy(stack, directory, said)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
            )
            with step(f"sending {len(ASKS)} requests to {ready.url}"):
                outcomes = await send_all(session, ready)
            print(f"\n{table(outcomes)}\n")
            with step("stopping everything"):
                await stack.aclose()
    pods = {engine.name for engine in wanted}
    earlier = {outcome.ask.title: outcome for outcome in outcomes}
    return [problem for outcome in outcomes if (problem := wrong(outcome, earlier, pods))]


async def main() -> int:
    """The exit status."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    try:
        problems = await demo(directory)
    except Failed as error:
        problems = [str(error)]
    except asyncio.CancelledError:
        problems = ["interrupted"]
    for problem in problems:
        print(f"demo failed: {problem}", file=sys.stderr)
    if not problems:
        print("every request went where the manifests say")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
