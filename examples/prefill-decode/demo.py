"""Prefill and decode apart on one machine: four simulated engines, `kvoy up` on this directory, and requests.

Prints for each request which pod computed its prompt and which one its answer, and why. Exits with 1 if that
is not as the manifests promise, by what the engines themselves have received. An argument names another
directory with the same pods.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from examples import stage
from examples.stage import Answer, Engine, Stage

Role = Literal["prefill", "decode"]
ROLES: Mapping[str, Role] = {"kv_producer": "prefill", "kv_consumer": "decode"}
KV_PORT = 5600
"""Of NIXL, unless VLLM_NIXL_SIDE_CHANNEL_PORT says otherwise."""


@dataclass(frozen=True)
class Pod:
    """An engine and its part."""

    engine: Engine
    role: Role
    rack: str


@dataclass(frozen=True, kw_only=True)
class Ask(stage.Question):
    """A request, and what must become of it."""

    hop: bool
    """A prefill pod is asked for its prompt; else the decode pod is enough."""
    ending: str | None = None
    """How its hand-off must end."""
    refused: bool = False
    """Every prefill pod answers 503 meanwhile."""
    continues: str | None = None
    """Title of an earlier request with the same long beginning: the same decode pod must answer."""


Outcomes = list[tuple[Ask, Answer]]


def chat(words: str) -> dict[str, Any]:
    """The body of a chat request."""
    messages = [{"role": "user", "content": words}]
    return {"model": "llama", "messages": messages, "max_tokens": 24, "stream": True}


def book(title: str) -> str:
    """A long prompt."""
    return " ".join(f"{title}, chapter {number}: what happened next, and why." for number in range(120))


SEA, WAR = book("The sea"), book("The war")
ASKS = (
    Ask(title="a book", hop=True, ending="transferred", body=chat(f"{SEA} Who is the hero?")),
    Ask(title="the same book", hop=False, continues="a book", body=chat(f"{SEA} And who is the villain?")),
    Ask(title="a short question", hop=False, body=chat("Why is the sky blue?")),
    Ask(title="another book", hop=True, ending="transferred", body=chat(f"{WAR} Who wins?")),
    Ask(
        title="a third book, prefill fails",
        hop=True,
        ending="alone",
        refused=True,
        body=chat(f"{book('The city')} Who built it?"),
    ),
)
HEAD = ("REQUEST", "PREFILL", "DECODE", "STATUS", "PROMPT", "CACHED", "FIRST BYTE", "WHY")


def read(directory: Path) -> dict[str, Pod]:
    """The pods by name, with what their engines are told to do."""
    found = {}
    for pod in stage.pods(directory):
        role = ROLES[json.loads(stage.option(pod, "--kv-transfer-config"))["kv_role"]]
        plays = ("--role", role, "--connector", "nixl", "--kv-port", str(KV_PORT))
        engine = stage.engine(pod, *plays)
        found[engine.name] = Pod(engine, role, pod["metadata"]["labels"]["rack"])
    return found


async def send_all(running: Stage, pods: Mapping[str, Pod]) -> Outcomes:
    """Every request, one after the other."""
    outcomes = []
    for ask in ASKS:
        faults = [{"kind": "status", "status": 503}] if ask.refused else []
        for pod in pods.values():
            if pod.role == "prefill":
                async with running.session.post(f"{pod.engine.url}/_engine/faults", json=faults) as answer:
                    answer.raise_for_status()
        outcomes.append((ask, await running.send(ask)))
    return outcomes


async def received(running: Stage, pods: Mapping[str, Pod]) -> dict[str, dict[str, int | None]]:
    """Request id to the names of the pods whose engines got it, and the status that each answered."""
    found: dict[str, dict[str, int | None]] = {}
    for pod in pods.values():
        async with running.session.get(f"{pod.engine.url}/_engine/requests") as answer:
            for request in (await answer.json())["requests"]:
                request_id = dict(request["headers"]).get("x-request-id", "")
                found.setdefault(request_id, {})[pod.engine.name] = request["status"]
    return found


def rows(outcomes: Outcomes) -> Iterator[tuple[str, ...]]:
    """The table, without its head."""
    for ask, answer in outcomes:
        handoff = answer.explanation.get("handoff") or {}
        tries, counted = handoff.get("tries", []), answer.usage
        computed = [name(each) for each in tries if each["result"] == "computed"]
        failed = [f"{name(each)} failed ({each['result']})" for each in tries if each["result"] != "computed"]
        yield (
            ask.title,
            *(computed or ["-"]),
            answer.served_by or "-",
            str(answer.status),
            *(str(counted.get(kind, "-")) for kind in ("prompt", "cached")),
            f"{answer.first_byte_ms:.0f} ms",
            "; but ".join([handoff.get("why", "-"), *failed]),
        )


def name(tried: Mapping[str, Any]) -> str:
    """The pod of a prefill endpoint that was asked."""
    pod: str = tried["endpoint"].rpartition("/")[2]
    return pod


def wrong(
    ask: Ask,
    answer: Answer,
    earlier: Mapping[str, Answer],
    pods: Mapping[str, Pod],
    got: Mapping[str, int | None],
) -> str | None:
    """What is not as it should be; None if all is well.

    `earlier` are the answers by title, `got` the pods that received the request, with the status of each.
    """
    if answer.status != 200:
        return f"{ask.title}: status {answer.status}: {answer.text}"
    served = pods.get(answer.served_by or "")
    if served is None or served.role != "decode":
        return f"{ask.title}: {answer.served_by} answered, which is no decode pod"
    asked = {pod: status for pod, status in got.items() if pod != answer.served_by}
    partners = [each for each, pod in pods.items() if (pod.role, pod.rack) == ("prefill", served.rack)]
    wanted = dict.fromkeys(partners, 503 if ask.refused else 200) if ask.hop else {}
    if asked != wanted:
        return f"{ask.title}: beside {answer.served_by}, {told(asked)} should have been {told(wanted)}"
    ending = (answer.explanation.get("handoff") or {}).get("ending")
    if ending != ask.ending:
        return f"{ask.title}: the hand-off ended as {ending}, not {ask.ending}"
    if ask.continues is not None and answer.served_by != earlier[ask.continues].served_by:
        return f"{ask.title}: served by {answer.served_by}, whose cache has nothing of it"
    return None


def told(asked: Mapping[str, int | None]) -> str:
    """Pods and what each answered."""
    return " and ".join(f"{pod} ({status})" for pod, status in asked.items()) or "nobody"


async def demo(directory: Path) -> list[str]:
    """All of it; returns what went wrong."""
    pods = read(directory)
    async with stage.on_stage(directory, [pod.engine for pod in pods.values()]) as running:
        with stage.step(f"sending {len(ASKS)} requests to {running.ready.url}"):
            outcomes = await send_all(running, pods)
            got = await received(running, pods)
        print(f"\n{stage.table(HEAD, list(rows(outcomes)))}\n")
    earlier = {ask.title: answer for ask, answer in outcomes}
    problems = (wrong(ask, answer, earlier, pods, got.get(answer.request_id, {})) for ask, answer in outcomes)
    return [problem for problem in problems if problem is not None]


if __name__ == "__main__":
    promise = "every prompt was computed where the manifests say"
    sys.exit(stage.perform(demo, Path(__file__).parent, promise))
