"""The two legs of a request whose prompt and answer are computed by different engines, as they are counted.

Each leg is a reservation. Envoy's access log releases the answer's, like any other. The prompt's is released
when the prefill endpoint has answered, which teaches what it had cached and how fast it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from extproc.accesslog import Entry, Outcome
from extproc.fleet import Fleet
from extproc.handoff.connector import Reply
from extproc.lookup import Lookup
from extproc.request import InferenceRequest
from extproc.reservations import Reservation
from extproc.schedule.placement import Placement
from extproc.state.snapshot import Endpoint


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The prompt of a leg that is under way."""

    found: Lookup
    server: str
    route: str


class Legs:
    """Counts both legs in the fleet."""

    def __init__(self, fleet: Fleet, told: Callable[[Outcome], object]) -> None:
        """`told` hears of each prompt that was computed."""
        self._fleet = fleet
        self._told = told
        self._prompts: dict[int, _Prompt] = {}
        """By reservation of the prompt's leg."""
        self._awaiting: dict[int, Lookup] = {}
        """Reservation of the answer's leg to its prompt, until it is known who computes that."""
        self._left: dict[int, int] = {}
        """Reservation of the answer's leg to that of the prompt's, where a sidecar sees to the prompt."""

    @property
    def open(self) -> int:
        """Prompts that prefill endpoints are computing for this worker."""
        return len(self._prompts)

    def reserve(
        self,
        server: str,
        route: str,
        request_id: str,
        asked: InferenceRequest,
        found: Lookup,
        decode: Placement,
        prefill: Endpoint,
    ) -> tuple[Reservation, Reservation]:
        """Count the answer's leg, and the prompt's."""
        answer = self._fleet.reserve(server, route, request_id, asked, found, decode, receives=True)
        self._awaiting[answer.id] = found
        return answer, self._begin(_Prompt(found, server, route), prefill)

    def settled(self, answer: int, *, receives: bool) -> None:
        """Who answers gets the prompt from another engine, or has to compute it, too."""
        found = self._awaiting.pop(answer, None)
        if found is not None and not receives:
            self._fleet.owe(answer, found)

    def refused(self, answer: int) -> None:
        """Nobody answers."""
        self._awaiting.pop(answer, None)
        self._fleet.take_back(answer)
        self.ended(answer)

    def left_to_sidecar(self, answer: int, prompt: int) -> None:
        """Nobody will tell when the prompt is computed: it counts until the answer has ended."""
        self._left[answer] = prompt

    def ended(self, answer: int) -> None:
        """An answer's leg has ended."""
        prompt = self._left.pop(answer, None)
        if prompt is not None:
            self.dropped(prompt, failed=False)

    def moved(self, reservation: int, endpoint: Endpoint) -> int:
        """Another prefill endpoint than the chosen one computes a prompt; the id of its reservation."""
        prompt = self._prompts.pop(reservation)
        self._fleet.take_back(reservation)
        return self._begin(prompt, endpoint).id

    def computed(self, reservation: int, reply: Reply, seconds: float) -> None:
        """A prefill endpoint has computed a prompt, which took so long."""
        self._prompts.pop(reservation, None)
        released = self._fleet.reservations.release(reservation)
        if released is not None:
            outcome = Outcome(released, _entry(released, reply, seconds))
            self._told(outcome)
            self._fleet.ended(outcome)

    def dropped(self, reservation: int, failed: bool) -> None:
        """A prefill endpoint did not compute a prompt: it failed, or nobody waits for it any more."""
        self._prompts.pop(reservation, None)
        if failed:
            self._fleet.take_back(reservation)
        else:
            # How much of the prompt the engine has computed and cached by now is unknown.
            self._fleet.reservations.release(reservation)

    def _begin(self, prompt: _Prompt, endpoint: Endpoint) -> Reservation:
        reservation = self._fleet.reserve_leg(prompt.server, prompt.route, prompt.found, endpoint)
        self._prompts[reservation.id] = prompt
        return reservation


def _entry(reservation: Reservation, reply: Reply, seconds: float) -> Entry:
    """The end of a prompt's leg in the words of the access log, so that the same lessons follow."""
    return Entry(
        instance="",
        reservation=reservation.id,
        request_id="",
        status=200,
        client_gone=False,
        broken=False,
        served=reservation.address,
        first_byte_s=None,
        duration_s=seconds,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=1,
        cached_tokens=reply.cached_tokens,
    )
