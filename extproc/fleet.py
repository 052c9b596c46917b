"""What this worker knows of every engine: for a decision a pool of columns, from every answer a lesson.

Brings together the parts that each know one thing: requests in flight (`reservations`), the collectors'
observations (`engines`), cached blocks (`holdings`), and what answers have taught (`calibration`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

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
from extproc.state.records import ModelServer, Role
from extproc.state.snapshot import Endpoint, Snapshot

STEERING_AGE_S = 5.0
"""An observation older than this says nothing any more: the endpoint counts as average."""
_SMALLEST_SHARE = 1 / 64
"""Of the capacity that an engine tells, below which nothing smaller is assumed."""
_LONGEST_PREFILL = 131_072
"""Tokens that one prompt is counted with at most while it waits: the size of an image says nothing."""


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
        self._endpoints: dict[str, Endpoint] = {}
        """By endpoint key; of a pod that ModelServers reach at several ports, the first."""
        self._known = Knowledge(self._lives, engines, holdings, calibration)
        self._snapshot: Snapshot | None = None
        self._at: Mapping[tuple[str, int | None], Endpoint] = {}
        engines.watch(self._restarted)

    def adopt(self, snapshot: Snapshot) -> None:
        """Know the endpoints of a snapshot, and no others; cheap where it is the same as before."""
        if snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        pools = (*snapshot.endpoints.values(), *snapshot.prefill.values())
        every = [endpoint for endpoints in pools for endpoint in endpoints]
        self._at = {(endpoint.address, endpoint.rank): endpoint for endpoint in every}
        before, self._endpoints = self._endpoints, {}
        for endpoint in every:
            self._endpoints.setdefault(endpoint.key, endpoint)
        for key in self._lives.keys() - self._endpoints.keys():
            self._retire(key, self._lives.pop(key))
        for key, endpoint in self._endpoints.items():
            self._enter(key, self._life(endpoint, before.get(key)))

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
        self,
        endpoints: Sequence[Endpoint],
        prompt: Prompt,
        found: Lookup,
        notes: tuple[str, ...] = (),
        role: Role | None = None,
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
            role,
        )

    def reserve(
        self,
        server: str,
        route: str,
        request_id: str,
        asked: InferenceRequest | None,
        found: Lookup,
        placement: Placement,
        *,
        receives: bool = False,
    ) -> Reservation:
        """Count a request on the endpoint that was chosen, which will have cached its prompt.

        It has to compute what it has not cached, unless it `receives` that from another engine.
        """
        chosen = placement.chosen
        endpoint = chosen.endpoint
        ahead = self.reservations.load(endpoint.key).tokens
        claim = None
        if asked is not None:
            exact = placement.exact and found.is_exact([endpoint])
            claim = self._claim(endpoint, found, ahead, exact=exact, receives=receives)
        tokens = 0 if receives else _to_compute(endpoint, found, chosen.cached)
        return self._count(endpoint, server, route, request_id, tokens, ahead, claim)

    def reserve_leg(self, server: str, route: str, found: Lookup, endpoint: Endpoint) -> Reservation:
        """Count a prompt alone on a prefill endpoint; its request is counted where it is answered."""
        ahead = self.reservations.load(endpoint.key).tokens
        if endpoint.key not in self._lives:
            # It has left the configuration since the choice, and is asked all the same.
            return self._count(endpoint, server, route, "", _lacking(found, 0), ahead, None)
        claim = self._claim(endpoint, found, ahead, exact=found.is_exact([endpoint]))
        return self._count(endpoint, server, route, "", _to_compute(endpoint, found, None), ahead, claim)

    def owe(self, reservation_id: int, found: Lookup) -> None:
        """A request that should have received its prompt's cache does not: its endpoint computes it."""
        reservation = self.reservations.get(reservation_id)
        if reservation is None or not isinstance(reservation.claim, Claim):
            return
        claim = replace(reservation.claim, received=False)
        tokens = _lacking(found, found.promised(claim.depth))
        prefill_s = self.calibration.prefill_s(claim.endpoint, claim.ahead + tokens)
        self.reservations.owe(reservation_id, tokens, prefill_s, claim)

    def take_back(self, reservation_id: int) -> None:
        """Undo a reservation: the request never reaches the endpoint."""
        reservation = self.reservations.release(reservation_id)
        if reservation is not None and isinstance(reservation.claim, Claim):
            claim = reservation.claim
            self.holdings.correct(claim.life, claim.chain, claim.depth)

    def ended(self, outcome: Outcome) -> None:
        """Take the lesson of an answer."""
        claim = outcome.reservation.claim
        if not isinstance(claim, Claim):
            return
        if outcome.moved:
            self._learn_moved(outcome, claim)
        if self._lives.get(claim.endpoint) != claim.life:
            return
        engine = self.engines.get(claim.endpoint)
        for correction in self.calibration.learn(claim, outcome, None if engine is None else engine.tpot_s):
            match correction:
                case Forget(life):
                    self.holdings.clear(life, Namespace.PREFIX)
                case Resize(life, factor):
                    self._resize(claim.endpoint, life, factor)
                case Unlearn(life, depth):
                    self.holdings.correct(life, claim.chain, depth)

    def _count(
        self,
        endpoint: Endpoint,
        server: str,
        route: str,
        request_id: str,
        tokens: int,
        ahead: int,
        claim: Claim | None,
    ) -> Reservation:
        reservation = self.reservations.reserve(
            endpoint=endpoint.key,
            address=endpoint.address,
            server=server,
            route=route,
            request_id=request_id,
            tokens=tokens,
            prefill_s=self.calibration.prefill_s(endpoint.key, ahead + tokens),
            claim=claim,
        )
        if claim is not None:
            self.holdings.learn(claim.life, claim.chain)
        return reservation

    def _claim(
        self, endpoint: Endpoint, found: Lookup, ahead: int, *, exact: bool, receives: bool = False
    ) -> Claim:
        life = self._lives[endpoint.key]
        depth = found.depth(life)
        return Claim(
            endpoint=endpoint.key,
            life=life,
            source="exact" if exact else "approximate",
            predicted=found.held(endpoint) if exact else found.promised(depth),
            prompt_bytes=found.prompt_bytes,
            ahead=ahead,
            epoch=self.calibration.epoch(life),
            chain=found.chain,
            depth=depth,
            received=receives,
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

    def _life(self, endpoint: Endpoint, before: Endpoint | None) -> int:
        engine = self.engines.get(endpoint.key)
        if engine is not None and engine.address == endpoint.address:
            return engine.life
        if before is not None and before.address == endpoint.address:
            # Nobody speaks of it any more, which is no news of the engine.
            return self._lives[endpoint.key]
        return life_of(endpoint.key, endpoint.address)

    def _restarted(self, key: str, former: int | None, life: int) -> None:
        """A collector states a life that it did not state before."""
        endpoint, engine = self._endpoints.get(key), self.engines.get(key)
        if endpoint is None or engine is None or engine.address != endpoint.address:
            return
        if self._lives[key] == life and former is None:
            # What was assumed of the capacity is known now.
            self.holdings.resize(life, self._capacity_bytes(key))
        self._enter(key, life)

    def _enter(self, key: str, life: int) -> None:
        before = self._lives.get(key)
        if before == life:
            return
        if before is not None:
            self._retire(key, before)
        self._lives[key] = life
        self.holdings.enroll(life, self._capacity_bytes(key))

    def _retire(self, key: str, life: int) -> None:
        self.holdings.retire(life)
        self.calibration.retire(key, life)

    def _resize(self, key: str, life: int, factor: float) -> None:
        most = self._capacity_bytes(key)
        assumed = self.holdings.capacity(life)
        resized = int(min(most, max(most * _SMALLEST_SHARE, assumed * factor)))
        if resized != assumed:
            self.holdings.resize(life, resized)

    def _capacity_bytes(self, key: str) -> int:
        engine = self.engines.get(key)
        return capacity_bytes(None if engine is None else engine.capacity_tokens)


def _to_compute(endpoint: Endpoint, found: Lookup, cached: int | None) -> int:
    """Prompt tokens that an endpoint has not cached; `cached` where that is known already."""
    return _lacking(found, found.approximate([endpoint])[0] if cached is None else cached)


def _lacking(found: Lookup, cached: int) -> int:
    return min(max(0, found.tokens - cached), _LONGEST_PREFILL)
