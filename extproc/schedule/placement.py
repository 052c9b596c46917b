"""The result of scheduling: a value that also explains itself."""

from dataclasses import dataclass

from extproc.state.snapshot import Endpoint


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint and the requests in flight on its pod when the choice was made."""

    endpoint: Endpoint
    in_flight: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request goes: the first candidate, then the others as Envoy's retries need them."""

    candidates: tuple[Candidate, ...]
    """Best first, never empty."""
    considered: int
    """How many endpoints were ready."""

    @property
    def chosen(self) -> Candidate:
        return self.candidates[0]

    @property
    def destinations(self) -> str:
        """The endpoint list as the Endpoint Picker protocol writes it: ``ip:port,ip:port…``."""
        return ",".join(candidate.endpoint.address for candidate in self.candidates)

    def why(self) -> str:
        """The reason in words."""
        chosen = self.chosen
        if self.considered == 1:
            return "the only ready pod"
        tied = sum(candidate.in_flight == chosen.in_flight for candidate in self.candidates)
        least = f"fewest requests in flight ({chosen.in_flight}) of {self.considered} ready pods"
        return f"{least}, drawn among {tied} equals" if tied > 1 else least
