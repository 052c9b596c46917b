"""The decisions of one worker: all of it but gRPC, and requests that end."""

import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import TypeVar, cast

from benchmarks.schedule.prompts import Prompt
from benchmarks.schedule.scene import SECRET, Scene
from extproc.accesslog import Entry, settle
from extproc.cache.holdings import Holdings
from extproc.calibration import Calibration, Claim
from extproc.decide import Decider
from extproc.exchange import Decide, Routing
from extproc.explain import Journal
from extproc.fleet import Fleet
from extproc.legs import Legs
from extproc.plan import Plan
from extproc.request import Head
from extproc.reservations import Reservations
from extproc.schedule.placement import Placement
from extproc.state.engines import Engines
from extproc.tokens import Found, Question, Tokens
from extproc.turns import Turns

T = TypeVar("T")

IN_FLIGHT = 128
"""Requests of one worker that have not ended."""


@dataclass(slots=True)
class _Told:
    """Stands for the tokeniser: it has the token ids of the next prompt at hand."""

    ids_of_next: bytes = b""

    async def ids(self, _question: Question, _within_s: float) -> Found:
        return Found(self.ids_of_next, "local", 0.0)


class Worker:
    """A worker that serves a scene."""

    def __init__(self, scene: Scene, instance: str) -> None:
        self.instance = instance
        self.reservations = Reservations(time.monotonic)
        self.engines = Engines(time.monotonic)
        self.holdings = Holdings()
        self.fleet = Fleet(self.reservations, self.engines, self.holdings, Calibration(), lambda: SECRET)
        self._journal = Journal(instance, time.time)
        self._tokens = _Told()
        turns = Turns(instance, self.reservations.peers, time.time)
        tokens = cast(Tokens, self._tokens)
        legs = Legs(self.fleet, lambda _: None)
        self._decider = Decider(self.fleet, legs, tokens, self._journal, Random(scene.seed), turns.now)
        self._open: deque[Routing] = deque()
        self._count = 0
        self._decider.adopt(scene.snapshot)
        for engine in scene.engines:
            self.engines.observe(engine)

    def decide(self, prompt: Prompt) -> float:
        """Place one request, and end the oldest one in flight.

        Seconds from the request's bytes to its reservation.
        """
        self._count += 1
        self._tokens.ids_of_next = prompt.ids
        ask = Decide(Head("POST", "/v1/chat/completions", {}, f"{self.instance}-{self._count}"), prompt.body)
        began = time.perf_counter()
        decision = self._decider.decide(ask)
        if isinstance(decision, Plan):
            decision = _finished(self._decider.informed(decision))
        took = time.perf_counter() - began
        assert isinstance(decision, Routing), decision
        self._open.append(decision)
        if len(self._open) > IN_FLIGHT:
            self._end(self._open.popleft())
        return took

    def _end(self, routing: Routing) -> None:
        """The answer came whole, with as many cached tokens as was predicted."""
        placement = routing.placement
        assert isinstance(placement, Placement), "the scene has no prefill endpoints"
        chosen = placement.chosen
        entry = Entry(
            self.instance,
            routing.reservation,
            request_id="",
            status=200,
            client_gone=False,
            broken=False,
            served=chosen.endpoint.address,
            first_byte_s=0.2,
            duration_s=1.0,
            prompt_tokens=placement.evidence.pool.prompt.tokens,
            completion_tokens=16,
            cached_tokens=None,
        )
        outcome = settle(entry, self.reservations, self.instance)
        assert outcome is not None
        assert isinstance(outcome.reservation.claim, Claim)
        self._journal.ended(outcome.reservation.request_id, outcome)
        self.fleet.ended(outcome)


def _finished(coroutine: Coroutine[None, None, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise AssertionError("token ids were waited for")
