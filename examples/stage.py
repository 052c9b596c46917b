"""What the demos have in common: engines and kvoy on this machine, requests and the reasons for their way."""

import asyncio
import json
import re
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiohttp
import yaml

from controller.up.ready import Ready
from extproc.supervise import PortTaken, Probe, claim, python, tethered, why_not_ready

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
    options: tuple[str, ...]
    """Of the simulated engine, beside name and address."""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request."""

    title: str
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    """None asks by GET."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    request_id: str
    status: int
    served_by: str | None
    """The name that the engine itself gives."""
    first_byte_ms: float
    body: bytes
    explanation: dict[str, Any]
    """Of the worker that decided; empty if none did."""

    @property
    def usage(self) -> dict[str, int]:
        """What the engine counted, in a plain or a streamed answer; empty where there is no count."""
        found = re.findall(rb'"usage":\s*(\{(?:[^{}]|\{[^{}]*\})*\})', self.body)
        if not found:
            return {}
        told = json.loads(found[-1])
        details = told.get("prompt_tokens_details") or {}
        return {
            "prompt": told["prompt_tokens"],
            "cached": details.get("cached_tokens", 0),
            "answer": told["completion_tokens"],
        }

    @property
    def chosen(self) -> str | None:
        """The pod that the decision names first to answer; None where it names none."""
        return first_pod(self.explanation)

    @property
    def text(self) -> str:
        """The beginning of its body."""
        return self.body[:300].decode(errors="replace")


def first_pod(choice: Mapping[str, Any]) -> str | None:
    """The name of the pod that a choice names first; None where it names none."""
    candidates = choice.get("candidates")
    return candidates[0]["pod"].rpartition("/")[2] if candidates else None


@dataclass(frozen=True)
class Stage:
    """Engines and a kvoy that are running."""

    ready: Ready
    session: aiohttp.ClientSession

    async def send(self, question: Question) -> Answer:
        """One request through Envoy, and the reason of its worker."""
        began = time.perf_counter()
        method = "GET" if question.body is None else "POST"
        async with self.session.request(
            method, self.ready.url + question.path, json=question.body, headers=question.headers
        ) as answer:
            body = await answer.content.readany()
            first_byte_ms = (time.perf_counter() - began) * 1000
            body += await answer.content.read()
            request_id = answer.headers.get("x-request-id", "")
            served_by = answer.headers.get("x-engine-name")
        why = await self._explanation(request_id)
        return Answer(request_id, answer.status, served_by, first_byte_ms, body, why)

    async def _explanation(self, request_id: str) -> dict[str, Any]:
        """Each worker knows only its own decisions."""
        for admin in self.ready.admin:
            async with self.session.get(f"{admin}/explain/{request_id}") as answer:
                if answer.status == 200:
                    return dict(await answer.json())
        return {}


@asynccontextmanager
async def on_stage(directory: Path, engines: Sequence[Engine]) -> AsyncIterator[Stage]:
    """Run these engines and `kvoy up` on `directory`, and say so; raises Failed."""
    with tempfile.TemporaryFile() as said:  # has no name: nothing is left of it
        async with AsyncExitStack() as stack:
            with step(f"starting {len(engines)} simulated engines"):
                await _start_engines(stack, engines, said)
            with step("starting Valkey, the controller, two workers, a collector and Envoy (kvoy up)"):
                ready = await _start_kvoy(stack, directory, said)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
            )
            yield Stage(ready, session)
            with step("stopping everything"):
                await stack.aclose()


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


def pods(directory: Path) -> list[dict[str, Any]]:
    """The documents of ``pods.yaml``."""
    return list(yaml.safe_load_all((directory / "pods.yaml").read_text()))


def engine(pod: Mapping[str, Any], *options: str) -> Engine:
    """The engine of a pod, which serves the model that its container is told to."""
    container = pod["spec"]["containers"][0]
    model = option(pod, "--model")
    port = container["ports"][0]["containerPort"]
    return Engine(pod["metadata"]["name"], pod["status"]["podIP"], port, ("--model", model, *options))


def option(pod: Mapping[str, Any], name: str) -> str:
    """What follows `name` in the arguments of a pod's container."""
    args = pod["spec"]["containers"][0]["args"]
    text: str = args[args.index(name) + 1]
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One line for each row."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def perform(demo: Callable[[Path], Coroutine[Any, Any, list[str]]], home: Path, promise: str) -> int:
    """Run a demo on the directory that the command line names, or on its own, `home`; the exit status.

    `demo` returns what went wrong; `promise` is said if nothing did.
    """
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else home
    problems = asyncio.run(_unless_interrupted(demo(directory)))
    for problem in problems:
        print(f"demo failed: {problem}", file=sys.stderr)
    if not problems:
        print(promise)
    return 1 if problems else 0


async def _unless_interrupted(demo: Coroutine[Any, Any, list[str]]) -> list[str]:
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    try:
        return await demo
    except Failed as error:
        return [str(error)]
    except asyncio.CancelledError:
        return ["interrupted"]


async def _start_engines(stack: AsyncExitStack, wanted: Sequence[Engine], said: IO[bytes]) -> None:
    """All of them, until they answer; raises Failed."""
    for each in wanted:
        try:
            claim(each.host, each.port)
        except PortTaken as error:
            raise Failed(f"engine {each.name}: {error}. Does another demo run?") from None
    started = []
    for each in wanted:
        where = ("--name", each.name, "--host", each.host, "--port", str(each.port))
        argv = python("-m", "benchmarks.engine", *where, *each.options)
        started.append((each, await stack.enter_async_context(_running(argv, said, said))))
    for each, process in started:
        probes = (Probe(f"{each.host}:{each.port}", "/health"),)
        deadline = time.monotonic() + START_S
        while (why := await why_not_ready(probes)) is not None:
            if process.returncode is not None or time.monotonic() > deadline:
                raise Failed(f"engine {each.name} did not start: {why}\n{_tail(said)}")
            await asyncio.sleep(0.05)


async def _start_kvoy(stack: AsyncExitStack, directory: Path, said: IO[bytes]) -> Ready:
    """`kvoy up` on free ports, until it says where it is; raises Failed."""
    argv = python("-m", "extproc.cli", "up", "-f", str(directory), "--port", "0", "--admin-port", "0")
    process = await stack.enter_async_context(_running(argv, PIPE, said))
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        return Ready.parse(line.decode())
    except (TimeoutError, ValueError):
        raise Failed(f"`kvoy up` did not get ready:\n{_tail(said)}") from None


@asynccontextmanager
async def _running(argv: tuple[str, ...], stdout: int | IO[bytes], said: IO[bytes]) -> AsyncIterator[Process]:
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


def _tail(said: IO[bytes], lines: int = 30) -> str:
    """The end of what children said."""
    said.seek(0)
    return "\n".join(said.read().decode(errors="replace").splitlines()[-lines:])
