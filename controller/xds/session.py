"""One ADS stream as a state machine: Envoy's requests and our offers in, responses and refusals out.

State of the world: a response carries all resources of its type that Envoy asked for. A type is sent when
its version (a hash of its content) differs from the one last sent on this stream, or when Envoy asks for
names that the last response did not cover; so a refused version is not sent again until something changes.
Types go out in the order in which Envoy needs them: clusters before their endpoints, both before the listener
and the routes that name them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from controller.xds.resources import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, Resources

ORDER = (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES)
WILDCARD = frozenset((CLUSTERS, LISTENERS))
"""Types of which Envoy takes all resources when it names none; for the others, naming none is asking none."""


@dataclass(frozen=True, slots=True)
class Request:
    """What Envoy says: a subscription, and an answer to the response that `nonce` names.

    `nonce` is empty in the first request of a type. `error` is Envoy's message if it refuses the response.
    """

    type_url: str
    names: frozenset[str] = frozenset()
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """All resources of one type that Envoy asked for, by name."""

    type_url: str
    version: str
    nonce: str
    resources: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Envoy did not take a version of a type; it keeps what it had."""

    type_url: str
    version: str
    message: str


@dataclass(frozen=True, slots=True)
class _Subscription:
    """What Envoy wants of one type, what it last got, and what it said to that."""

    names: frozenset[str]
    sent_version: str = ""
    sent_nonce: str = ""
    covered: frozenset[str] = frozenset()
    answer: Literal["none", "accepted", "refused"] = "none"

    @property
    def waiting(self) -> bool:
        return bool(self.sent_nonce) and self.answer == "none"


@dataclass(slots=True)
class Session:
    """The state of one stream. `nonces` yields a different string each time."""

    resources: Resources
    nonces: Callable[[], str]
    _subscriptions: dict[str, _Subscription] = field(default_factory=dict)

    def on_request(self, request: Request) -> list[Response | Refusal]:
        """Take a request; a stale one, or one of a type that we do not serve, changes nothing."""
        if request.type_url not in ORDER:
            return []
        known = self._subscriptions.get(request.type_url)
        if known is None or not known.sent_nonce:
            self._subscriptions[request.type_url] = _Subscription(request.names)
            return list(self._due())
        if request.nonce != known.sent_nonce:
            return []
        refusals = self._answered(request, known)
        return [*refusals, *self._due()]

    def on_offer(self, resources: Resources) -> list[Response | Refusal]:
        """Serve `resources` from now on."""
        self.resources = resources
        return list(self._due())

    @property
    def verdict(self) -> Literal["pending", "accepted", "refused"]:
        """What Envoy says to the resources on offer: refused as soon as one type is."""
        verdicts = {self._verdict(type_url) for type_url in ORDER}
        if "refused" in verdicts:
            return "refused"
        return "pending" if "pending" in verdicts else "accepted"

    def _answered(self, request: Request, known: _Subscription) -> list[Refusal]:
        if known.answer == "none":
            known = replace(known, answer="accepted" if request.error is None else "refused")
            self._subscriptions[request.type_url] = replace(known, names=request.names)
            if request.error is not None:
                return [Refusal(request.type_url, known.sent_version, request.error)]
            return []
        self._subscriptions[request.type_url] = replace(known, names=request.names)
        return []

    def _due(self) -> Iterator[Response]:
        """Every response that may go out now, in order."""
        for type_url in ORDER:
            subscription = self._subscriptions.get(type_url)
            if subscription is not None and self._is_due(type_url, subscription) and self._may_go(type_url):
                yield self._send(type_url, subscription)

    def _is_due(self, type_url: str, subscription: _Subscription) -> bool:
        wanted = self._wanted(type_url, subscription)
        if not wanted and type_url not in WILDCARD:
            return False
        return (
            subscription.sent_version != self.resources.versions[type_url]
            or not wanted <= subscription.covered
        )

    def _may_go(self, type_url: str) -> bool:
        """Clusters go at any time and endpoints follow them at once: Envoy acknowledges a new cluster only
        when it has its endpoints. The listener and the routes wait until Envoy has taken both.
        """
        if type_url in (CLUSTERS, ENDPOINTS):
            return True
        before = (self._subscriptions.get(CLUSTERS), self._subscriptions.get(ENDPOINTS))
        return not any(subscription is not None and subscription.waiting for subscription in before)

    def _send(self, type_url: str, subscription: _Subscription) -> Response:
        wanted = self._wanted(type_url, subscription)
        response = Response(
            type_url=type_url,
            version=self.resources.versions[type_url],
            nonce=self.nonces(),
            resources={name: raw for name, raw in self.resources.by_type[type_url].items() if name in wanted},
        )
        self._subscriptions[type_url] = replace(
            subscription,
            sent_version=response.version,
            sent_nonce=response.nonce,
            covered=wanted,
            answer="none",
        )
        return response

    def _wanted(self, type_url: str, subscription: _Subscription) -> frozenset[str]:
        """Names to send. Names that we do not have are left out: Envoy keeps waiting for those."""
        offered = frozenset(self.resources.by_type[type_url])
        if type_url in WILDCARD and not subscription.names:
            return offered
        return offered & subscription.names

    def _verdict(self, type_url: str) -> Literal["pending", "accepted", "refused"]:
        offered = frozenset(self.resources.by_type[type_url])
        known = self._subscriptions.get(type_url)
        if known is None:
            return "accepted" if not offered else "pending"
        if known.sent_version != self.resources.versions[type_url]:
            return "accepted" if not offered else "pending"
        if known.answer == "refused":
            return "refused"
        return "accepted" if known.answer == "accepted" and offered <= known.covered else "pending"
