"""One ADS stream: against a model of Envoy that answers, refuses and lags as it likes."""

from collections import deque
from itertools import count, pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.xds.resources import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, Resources
from controller.xds.session import Refusal, Request, Response, Session


def resources(servers: str, revision: int = 0, pods: int = 0) -> Resources:
    """Clusters named by the letters of `servers`; `revision` changes them, `pods` the endpoints alone."""
    return Resources.versioned(
        clusters=dict.fromkeys(servers, b"c%d" % revision),
        endpoints=dict.fromkeys(servers, b"e%d" % pods),
        listeners={"kvoy": b"l%d" % (revision // 2)},
        routes={"kvoy": servers.encode()},
    )


def session(offered: Resources) -> Session:
    numbers = count(1)
    return Session(offered, lambda: str(next(numbers)))


def first(found: Session, type_url: str, *names: str) -> list[Response | Refusal]:
    return found.on_request(Request(type_url, frozenset(names)))


def ack(
    found: Session, response: Response, *names: str, error: str | None = None
) -> list[Response | Refusal]:
    return found.on_request(Request(response.type_url, frozenset(names), response.nonce, error))


def test_clusters_are_sent_whole_when_none_is_named():
    (response,) = first(session(resources("ab")), CLUSTERS)
    assert set(response.resources) == {"a", "b"}
    assert response.version == resources("ab").versions[CLUSTERS]


def test_an_acknowledged_response_is_not_sent_again():
    found = session(resources("a"))
    (response,) = first(found, CLUSTERS)
    assert ack(found, response) == []
    assert found.on_offer(resources("a")) == []


def test_endpoints_follow_at_once_but_the_listener_waits_until_clusters_are_taken():
    found = session(resources("a"))
    (clusters,) = first(found, CLUSTERS)
    assert first(found, LISTENERS) == []
    (endpoints,) = first(found, ENDPOINTS, "a")
    assert ack(found, endpoints, "a") == []
    (listener,) = ack(found, clusters)
    assert listener.type_url == LISTENERS


def test_only_the_named_endpoints_are_sent_and_more_when_more_are_named():
    found = session(resources("ab"))
    (one,) = first(found, ENDPOINTS, "a")
    assert set(one.resources) == {"a"}
    (both,) = ack(found, one, "a", "b")
    assert set(both.resources) == {"a", "b"}
    assert ack(found, both, "b") == []


def test_naming_no_endpoints_asks_for_none():
    assert first(session(resources("a")), ENDPOINTS) == []


def test_a_refusal_is_told_with_envoys_words_and_not_sent_again_until_something_changes():
    found = session(resources("a"))
    (response,) = first(found, CLUSTERS)
    assert ack(found, response, error="no such file") == [Refusal(CLUSTERS, response.version, "no such file")]
    assert found.verdict == "refused"
    assert found.on_offer(resources("a")) == []
    (better,) = found.on_offer(resources("a", revision=1))
    assert better.version != response.version


def test_a_request_that_answers_an_older_response_changes_nothing():
    found = session(resources("a"))
    (old,) = first(found, CLUSTERS)
    (new,) = found.on_offer(resources("ab"))
    assert ack(found, old, error="too late") == []
    assert ack(found, new) == []


def test_a_type_that_is_not_served_is_ignored():
    assert first(session(resources("a")), "type.googleapis.com/envoy.service.runtime.v3.Runtime") == []


def test_a_changed_endpoint_sends_nothing_else():
    found = session(resources("a"))
    envoy = Envoy(found)
    envoy.settle()
    sent = found.on_offer(resources("a", pods=1))
    assert [response.type_url for response in sent] == [ENDPOINTS]


def test_the_verdict_waits_for_every_type_that_is_offered():
    found = session(resources("a"))
    envoy = Envoy(found)
    assert found.verdict == "pending"
    envoy.settle()
    assert found.verdict == "accepted"
    envoy.take(found.on_offer(resources("a", pods=1)))
    assert found.verdict == "pending"
    envoy.settle()
    assert found.verdict == "accepted"


def test_without_servers_no_endpoints_need_to_be_asked_for():
    found = session(resources(""))
    Envoy(found).settle()
    assert found.verdict == "accepted"


class Envoy:
    """Envoy as far as the protocol goes: it warms clusters, and acknowledges them only when they are warm."""

    def __init__(self, found: Session) -> None:
        self.session = found
        self.state: dict[str, dict[str, bytes]] = {CLUSTERS: {}, ENDPOINTS: {}, LISTENERS: {}, ROUTES: {}}
        self.nonces: dict[str, str] = {}
        self.warming: set[str] = set()
        self.held: str | None = None
        self.inbox: deque[Response] = deque()
        self.sent: list[Response] = []
        self.unanswered: dict[str, str] = {}
        self.say(Request(CLUSTERS))
        self.say(Request(LISTENERS))

    def say(self, request: Request) -> None:
        if self.unanswered.get(request.type_url) == request.nonce:
            self.unanswered.pop(request.type_url)
        self.take(self.session.on_request(request))

    def take(self, outputs: list[Response | Refusal]) -> None:
        for output in outputs:
            if isinstance(output, Response):
                if output.type_url in (LISTENERS, ROUTES):
                    assert not {CLUSTERS, ENDPOINTS} & set(self.unanswered), "the listener did not wait"
                self.unanswered[output.type_url] = output.nonce
                self.inbox.append(output)
                self.sent.append(output)

    def settle(self) -> None:
        for _ in range(1000):
            if not self.inbox:
                return
            self.step(accept=True)
        raise AssertionError("the stream does not come to rest")

    def step(self, *, accept: bool) -> None:
        if not self.inbox:
            return
        response = self.inbox.popleft()
        self.nonces[response.type_url] = response.nonce
        if not accept:
            if response.type_url == CLUSTERS:
                self.held = None
            self.say(Request(response.type_url, self.names(response.type_url), response.nonce, "refused"))
            return
        match response.type_url:
            case "type.googleapis.com/envoy.config.cluster.v3.Cluster":
                self.on_clusters(response)
            case "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment":
                self.on_endpoints(response)
            case _:
                self.state[response.type_url] = dict(response.resources)
                self.say(Request(response.type_url, self.names(response.type_url), response.nonce))
                if response.type_url == LISTENERS and ROUTES not in self.nonces:
                    self.say(Request(ROUTES, frozenset(["kvoy"])))

    def on_clusters(self, response: Response) -> None:
        before, after = self.state[CLUSTERS], dict(response.resources)
        self.warming = {n for n in after if after[n] != before.get(n)} | (self.warming & set(after))
        self.state[CLUSTERS] = after
        self.state[ENDPOINTS] = {n: e for n, e in self.state[ENDPOINTS].items() if n in after}
        self.held = response.nonce
        if set(before) != set(after):
            self.say(Request(ENDPOINTS, self.names(ENDPOINTS), self.nonces.get(ENDPOINTS, "")))
        self.acknowledge_if_warm()

    def on_endpoints(self, response: Response) -> None:
        known = {name: raw for name, raw in response.resources.items() if name in self.state[CLUSTERS]}
        self.state[ENDPOINTS] |= known
        self.warming -= set(known)
        self.say(Request(ENDPOINTS, self.names(ENDPOINTS), response.nonce))
        self.acknowledge_if_warm()

    def acknowledge_if_warm(self) -> None:
        if self.held is not None and not self.warming:
            nonce, self.held = self.held, None
            self.say(Request(CLUSTERS, nonce=nonce))

    def names(self, type_url: str) -> frozenset[str]:
        by_type = {ENDPOINTS: frozenset(self.state[CLUSTERS]), ROUTES: frozenset(["kvoy"])}
        return by_type.get(type_url, frozenset())


servers = st.sets(st.sampled_from("abc")).map(lambda names: "".join(sorted(names)))
offers = st.builds(resources, servers, st.integers(0, 3), st.integers(0, 2))
steps = st.lists(offers | st.booleans(), max_size=30)


@given(offers, steps, servers.filter(bool), st.integers(0, 2))
def test_whatever_envoy_answers_it_ends_with_what_is_offered_last(start, script, names, pods):
    found = session(start)
    envoy = Envoy(found)
    for step in script:
        if isinstance(step, bool):
            envoy.step(accept=step)
        else:
            envoy.take(found.on_offer(step))
    envoy.settle()
    for revision in (8, 9):
        last = resources(names, revision, pods)
        envoy.take(found.on_offer(last))
        envoy.settle()
        assert found.verdict == "accepted"
        assert not envoy.warming
        for type_url in (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES):
            assert envoy.state[type_url] == last.by_type[type_url]


@given(offers, steps)
def test_nothing_is_sent_twice_without_a_change(start, script):
    found = session(start)
    envoy = Envoy(found)
    for step in script:
        if isinstance(step, bool):
            envoy.step(accept=step)
        else:
            envoy.take(found.on_offer(step))
    for type_url in (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES):
        sent = [response for response in envoy.sent if response.type_url == type_url]
        for one, next_ in pairwise(sent):
            grown = not set(next_.resources) <= set(one.resources)
            assert one.version != next_.version or grown
    assert len({response.nonce for response in envoy.sent}) == len(envoy.sent)
