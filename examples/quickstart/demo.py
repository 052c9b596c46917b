"""kvoy on one machine: three simulated engines, `kvoy up` on this directory, and requests through Envoy.

Prints for each request which rule took it, to which pod, and why that pod. Exits with 1 if one went elsewhere
than the manifests say, or away from the pod that has its prompt cached. An argument names another directory
with the same ModelServers.
"""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples import stage
from examples.stage import Answer, Stage

MODEL = "deepseek-multi-models"
LONGEST_REPLY = 150
"""Tokens; an engine says 100 of them per second."""


@dataclass(frozen=True, kw_only=True)
class Ask(stage.Question):
    """A request, and what the manifests promise for it."""

    status: int = 200
    server: str | None = None
    """The ModelServer that must get it; None if kvoy answers itself."""
    continues: str | None = None
    """Title of an earlier request with the same long beginning: its pod must get this one."""


def chat(words: str, **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": words}], "max_tokens": 24} | more


PREMIUM = {"user-type": "premium"}
LARGE, SMALL = "default/deepseek-r1-7b", "default/deepseek-r1-1-5b"
BOOK = " ".join(f"Chapter {number}: what happened next, and what was said about it." for number in range(120))
"""Two long prompts begin with it."""
ASKS = (
    Ask(title="premium user", server=LARGE, headers=PREMIUM, body=chat("Why is the sky blue?")),
    Ask(
        title="premium user, streamed",
        server=LARGE,
        headers=PREMIUM,
        body=chat("And the sea?", stream=True),
    ),
    Ask(title="any user, a book", server=SMALL, body=chat(f"{BOOK} Who is the hero?", stream=True)),
    Ask(
        title="the same book",
        server=SMALL,
        body=chat(f"{BOOK} And who is the villain?", stream=True),
        continues="any user, a book",
    ),
    Ask(title="free user", server=SMALL, headers={"user-type": "free"}, body=chat("Tell me a joke.")),
    Ask(
        title="any user, long answer",
        server=SMALL,
        body=chat("A long story?", stream=True, max_tokens=LONGEST_REPLY),
    ),
    Ask(title="another one meanwhile", server=SMALL, body=chat("And me too.", stream=True)),
    Ask(title="unknown model", status=404, body={**chat("Hello?"), "model": "no-such-model"}),
    Ask(title="which models are there?", path="/v1/models"),
)
LONG, MEANWHILE = ASKS[5:7]
"""The second is sent while the first is being answered, so it should find another pod idler."""
SHARED_AFTER_S = 0.3
"""By then each worker knows what the others have in flight."""
HEAD = ("REQUEST", "RULE", "POD", "STATUS", "PROMPT", "CACHED", "ANSWER", "FIRST BYTE", "WHY")

Outcomes = list[tuple[Ask, Answer]]


async def send_all(running: Stage) -> Outcomes:
    """Every request, in order."""
    outcomes = []
    async with asyncio.TaskGroup() as tasks:
        for ask in ASKS:
            sent = tasks.create_task(running.send(ask))
            outcomes.append((ask, sent))
            if ask is LONG:
                await asyncio.sleep(SHARED_AFTER_S)
            else:
                await asyncio.wait([sent])
    return [(ask, sent.result()) for ask, sent in outcomes]


def rows(outcomes: Outcomes) -> Iterator[tuple[str, ...]]:
    """The table, without its head."""
    for ask, answer in outcomes:
        told, counted = answer.explanation, answer.usage
        yield (
            ask.title,
            told.get("rule", "-"),
            answer.chosen or "-",
            str(answer.status),
            *(str(counted.get(kind, "-")) for kind in ("prompt", "cached", "answer")),
            f"{answer.first_byte_ms:.0f} ms",
            told.get("why") or "kvoy answers this itself",
        )


def wrong(ask: Ask, answer: Answer, earlier: dict[str, Answer], pods: set[str]) -> str | None:
    """What is not as it should be; None if all is well. `earlier` are the answers by title."""
    told = answer.explanation
    if answer.status != ask.status:
        return f"{ask.title}: status {answer.status}, not {ask.status}: {answer.text}"
    if ask.server is None:
        return None if answer.served_by is None else f"{ask.title}: {answer.served_by} answered, not kvoy"
    if told.get("server") != ask.server:
        return f"{ask.title}: went to ModelServer {told.get('server')}, not {ask.server}"
    if answer.served_by not in pods or not answer.served_by.startswith(ask.server.rpartition("/")[2]):
        return f"{ask.title}: served by {answer.served_by}, which is no pod of {ask.server}"
    if answer.chosen != answer.served_by:
        return f"{ask.title}: placed on {answer.chosen} but served by {answer.served_by}"
    if ask.continues is not None and answer.served_by != earlier[ask.continues].served_by:
        return f"{ask.title}: served by {answer.served_by}, whose cache has nothing of it"
    return None


async def demo(directory: Path) -> list[str]:
    """All of it; returns what went wrong."""
    engines = [stage.engine(pod, "--reply-tokens", str(LONGEST_REPLY)) for pod in stage.pods(directory)]
    async with stage.on_stage(directory, engines) as running:
        with stage.step(f"sending {len(ASKS)} requests to {running.ready.url}"):
            outcomes = await send_all(running)
        print(f"\n{stage.table(HEAD, list(rows(outcomes)))}\n")
    pods = {engine.name for engine in engines}
    earlier = {ask.title: answer for ask, answer in outcomes}
    return [problem for each in outcomes if (problem := wrong(*each, earlier, pods))]


if __name__ == "__main__":
    sys.exit(stage.perform(demo, Path(__file__).parent, "every request went where the manifests say"))
