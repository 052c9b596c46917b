"""The prefill endpoint's reservation of a hand-off: given back exactly once, with how that ended."""

from collections.abc import Callable
from typing import Literal, Protocol

from extproc.handoff.connector import Reply
from extproc.handoff.handoff import HandOff
from extproc.state.snapshot import Endpoint

Result = Literal[
    "computed", "refused", "timeout", "broken", "status", "rejected", "no-parameters", "defect", "left"
]
"""What came of one try. ``refused``: no connection; ``timeout``: no whole answer in time; ``broken``: reset,
or nothing that can be read; ``status``: an error of the engine's; ``rejected``: an error of the request's;
``no-parameters``: an answer without what the decode engine needs; ``defect``: ours; ``left``: nobody waited
any more."""

Ending = Literal["transferred", "alone", "failed", "left", "sidecar"]
"""How a hand-off ended. ``transferred``: a prefill endpoint has computed the prompt; ``alone``: the decode
endpoint computes it; ``failed``: the client gets an error; ``left``: nobody waited any more; ``sidecar``: a
proxy sees to it."""


class Accounts(Protocol):
    """Counts what prefill endpoints have to do. Of the last three, each hand-off calls exactly one."""

    def moved(self, reservation: int, endpoint: Endpoint) -> int:
        """The reserved endpoint failed, another one is asked; the id of its reservation."""

    def computed(self, reservation: int, reply: Reply, seconds: float) -> None:
        """The endpoint has computed the prompt, which took so long."""

    def dropped(self, reservation: int, failed: bool) -> None:
        """The endpoint computed nothing (`failed`), or nobody waits for it any more."""

    def left_to_sidecar(self, answer: int, prompt: int) -> None:
        """Nobody will tell when the prompt is computed; `answer` is the decode endpoint's reservation."""


class Watcher(Protocol):
    """Is told what happens, for people."""

    def tried(self, handoff: HandOff, endpoint: Endpoint, result: Result, seconds: float) -> None:
        """One try is over, after so long."""

    def ended(self, handoff: HandOff, ending: Ending) -> None:
        """The hand-off is over: once for each."""


class Ledger:
    """One hand-off's entries. After the first that ends it, all others that would do nothing."""

    def __init__(
        self, handoff: HandOff, accounts: Accounts, watcher: Watcher, clock: Callable[[], float]
    ) -> None:
        self._handoff = handoff
        self._accounts = accounts
        self._watcher = watcher
        self.clock = clock
        self._reservation = handoff.reservation
        self._over = False

    def tried(self, endpoint: Endpoint, result: Result, began: float) -> None:
        """One try is over; `began` by `clock`."""
        self._watcher.tried(self._handoff, endpoint, result, self.clock() - began)

    def moved(self, endpoint: Endpoint) -> None:
        """Another prefill endpoint is tried."""
        self._reservation = self._accounts.moved(self._reservation, endpoint)

    def computed(self, reply: Reply, seconds: float) -> None:
        """The prefill endpoint has done its part."""
        if self._ends():
            self._accounts.computed(self._reservation, reply, seconds)
            self._watcher.ended(self._handoff, "transferred")

    def failed(self, *, alone: bool) -> None:
        """No prefill endpoint has; `alone`: the decode endpoint does it."""
        if self._ends():
            self._accounts.dropped(self._reservation, failed=True)
            self._watcher.ended(self._handoff, "alone" if alone else "failed")

    def left(self) -> None:
        """Nobody waits for the prefill endpoint any more."""
        if self._ends():
            self._accounts.dropped(self._reservation, failed=False)
            self._watcher.ended(self._handoff, "left")

    def left_to_sidecar(self) -> None:
        """A proxy asks the prefill endpoint."""
        if self._ends():
            self._accounts.left_to_sidecar(self._handoff.routing.reservation, self._reservation)
            self._watcher.ended(self._handoff, "sidecar")

    def _ends(self) -> bool:
        first, self._over = not self._over, True
        return first
