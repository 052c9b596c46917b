"""What this worker knows of every engine: for a decision a pool of columns, from every answer a lesson.

Brings together the parts that each know one thing: requests in flight (`reservations`), the collectors'
observations (`engines`), cached blocks (`holdings`), and what answers have taught (`calibration`).
"""

from collections.abc import Callable, Mapping, Sequence

from extproc.accesslog import Outcome
from extproc.cache.capacity import capacity_bytes
from extproc.cache.chain import kv_root, prefix_root
from extproc.cache.frames import Namespace
from extproc.cache.holdings import Holdings
from extproc.calibration import Calibration, Claim, Forget, Resize, Unlearn
from extproc.lookup import Knowledge, Lookup, lookup
from extproc.request import InferenceRequest
from extproc.reservations import Reservation, Reservations
from extproc.schedule.placement import Placement
from extproc.schedule.pool import Pool, Prompt
from extproc.state.engines import Engines
from extproc.state.live import life as life_of
from extproc.state.records import ModelServer
from extproc.state.snapshot import Endpoint, Snapshot

STEERING_AGE_S = 5.0
"""An observation older than this says nothing any more: the endpoint counts as average."""


class Fleet:
    """Every engine, by endpoint key."""

    def __init__(
        self,
        reservations: Reservations,
        engines: Engines,
        holdings: Holdings,
        calibration: Calibration,
        secret: Callable[[], bytes],
    ) -> None:
        """`secret` seeds the hashes of prompts."""
        self.reservations = reservations
        self.engines = engines
        self.holdings = holdings
        self.calibration = calibration
        self._secret = secret
        self._lives: dict[str, int] = {}
        self._known = Knowledge(self._lives, engines, holdings, calibration)
        self._snapshot: Snapshot | None = None
        self._at: Mapping[tuple[str, int | None], Endpoint] = {}
        engines.watch(self._restarted)

    def adopt(self, snapshot: Snapshot) -> None:
        """Know the endpoints of a snapshot, and no others; cheap where it is the same as before."""
        if snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        every = [endpoint for endpoints in snapshot.endpoints.values() for endpoint in endpoints]
        self._at = {(endpoint.address, endpoint.rank): endpoint for endpoint in every}
        keys = {endpoint.key for endpoint in every}
        for key in self._lives.keys() - keys:
            self._retire(self._lives.pop(key))
        for endpoint in every:
            self._enter(endpoint.key, self._life(endpoint))

    def lookup(
        self, server: ModelServer, asked: InferenceRequest | None, adapter: str | None, ids: bytes | None
    ) -> Lookup:
        """What the endpoints of a ModelServer have of a request's prompt."""

        def roots(request: InferenceRequest) -> tuple[int, int]:
            salt = request.cache_salt
            return (
                prefix_root(server.key, adapter, salt, self._secret()),
                kv_root(adapter, salt, self._secret()),
            )

        return lookup(self._known, asked, ids, self.calibration.bytes_per_token(server.key), roots)

    def pool(
        self, endpoints: Sequence[Endpoint], prompt: Prompt, found: Lookup, notes: tuple[str, ...] = ()
    ) -> Pool:
        """The columns of a decision, as of now."""
        keys = [endpoint.key for endpoint in endpoints]
        seen = self.engines.column(keys, STEERING_AGE_S)
        return Pool(
            prompt,
            endpoints,
            self.reservations.loads(keys),
            seen.engines,
            found,
            seen.observed,
            seen.now,
            notes,
        )

    def reserve(
        self,
        server: str,
        route: str,
        request_id: str,
        asked: InferenceRequest | None,
        found: Lookup,
        placement: Placement,
    ) -> Reservation:
        """Count a request on the endpoint that was chosen, which will have cached its prompt."""
        chosen = placement.chosen
        endpoint, key = chosen.endpoint, chosen.endpoint.key
        ahead = self.reservations.load(key).tokens
        claim = None if asked is None else self._claim(endpoint, asked, found, placement, ahead)
        cached = found.approximate([endpoint])[0] if chosen.cached is None else chosen.cached
        to_compute = max(0, found.tokens - cached)
        reservation = self.reservations.reserve(
            endpoint=key,
            address=endpoint.address,
            server=server,
            route=route,
            request_id=request_id,
            tokens=to_compute,
            prefill_s=self.calibration.prefill_s(key, ahead + to_compute),
            claim=claim,
        )
        if claim is not None:
            self.holdings.learn(claim.life, claim.chain)
        return reservation

    def ended(self, outcome: Outcome) -> None:
        """Take the lesson of an answer."""
        claim = outcome.reservation.claim
        if not isinstance(claim, Claim):
            return
        if outcome.moved:
            self._learn_moved(outcome, claim)
        for correction in self.calibration.learn(claim, outcome):
            match correction:
                case Forget(life):
                    self.holdings.clear(life, Namespace.PREFIX)
                case Resize(life, share):
                    self.holdings.resize(life, int(self._capacity_bytes(claim.endpoint) * share))
                case Unlearn(life, depth):
                    self.holdings.correct(life, claim.chain, depth)

    def _claim(
        self,
        endpoint: Endpoint,
        asked: InferenceRequest,
        found: Lookup,
        placement: Placement,
        ahead: int,
    ) -> Claim:
        life = self._lives[endpoint.key]
        depth = found.depth(life)
        exact = placement.exact and found.is_exact([endpoint])
        return Claim(
            endpoint=endpoint.key,
            life=life,
            source="exact" if exact else "approximate",
            predicted=found.held(endpoint) if exact else found.promised(depth),
            prompt_bytes=found.prompt_bytes,
            ahead=ahead,
            stream=asked.stream,
            epoch=self.calibration.epoch(life),
            chain=found.chain,
            depth=depth,
        )

    def _learn_moved(self, outcome: Outcome, claim: Claim) -> None:
        """Another endpoint has computed the prompt than the one that was chosen."""
        rank = self._rank(claim.endpoint)
        served = self._at.get((outcome.entry.served, rank))
        if served is not None:
            self.holdings.learn(self._lives[served.key], claim.chain)

    @staticmethod
    def _rank(endpoint: str) -> int | None:
        _, _, rank = endpoint.partition("#")
        return int(rank) if rank else None

    def _life(self, endpoint: Endpoint) -> int:
        engine = self.engines.get(endpoint.key)
        if engine is not None and engine.address == endpoint.address:
            return engine.life
        return life_of(endpoint.key, endpoint.address)

    def _restarted(self, key: str, _former: int | None, life: int) -> None:
        if key in self._lives:
            self._enter(key, life)

    def _enter(self, key: str, life: int) -> None:
        before = self._lives.get(key)
        if before == life:
            return
        if before is not None:
            self._retire(before)
        self._lives[key] = life
        self.holdings.enroll(life, self._capacity_bytes(key))

    def _retire(self, life: int) -> None:
        self.holdings.retire(life)
        self.calibration.retire(life)

    def _capacity_bytes(self, key: str) -> int:
        engine = self.engines.get(key)
        return capacity_bytes(None if engine is None else engine.capacity_tokens)
