import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.state.records import (
    Delete,
    ModelRoute,
    ModelServer,
    Pod,
    Publication,
    Put,
    Record,
    Retry,
    Rule,
    StringMatch,
    Target,
    Tls,
    decode_publication,
    decode_record,
    encode,
    label,
)
from extproc.testing import a_pod, a_server

MATCH = StringMatch(prefix="/v1")
ROUTE = ModelRoute(
    "default",
    "r",
    (Rule((Target("a", 70), Target("b")), "first", {"user-type": StringMatch(exact="premium")}, MATCH, "m"),),
    model="m",
    adapters=("lora",),
    created=1.5,
)
SERVER = ModelServer(
    "default",
    "a",
    "vLLM",
    8000,
    "big",
    10.0,
    Retry(3, 0.1),
    Tls("engine", "/ca.pem", False),
    report_usage=False,
)
POD = Pod("default", "p", "10.0.0.1", ("a", "b"), 9000)

names = st.text(min_size=1, max_size=8)
maybe = st.none() | names
matches = st.builds(StringMatch, maybe, maybe, maybe)
targets = st.lists(st.builds(Target, names, st.integers(0, 100)), max_size=3).map(tuple)
rules = st.builds(
    Rule, targets, names, st.dictionaries(names, matches, max_size=2), st.none() | matches, maybe
)
routes = st.builds(
    ModelRoute,
    names,
    names,
    st.lists(rules, max_size=2).map(tuple),
    names,
    st.tuples(names),
    st.floats(0, 2e9),
)
servers = st.builds(
    ModelServer,
    namespace=names,
    name=names,
    engine=st.sampled_from(["vLLM", "SGLang"]),
    port=st.integers(1, 65535),
    model=maybe,
    timeout_s=st.none() | st.floats(0.001, 1e6),
    tls=st.none() | st.builds(Tls, names, maybe, st.booleans()),
    report_usage=st.booleans(),
)
pods = st.builds(
    Pod, names, names, names, st.lists(names, max_size=3).map(tuple), st.none() | st.integers(1, 65535)
)
records = routes | servers | pods


@pytest.mark.parametrize("record", [ROUTE, SERVER, POD], ids=lambda record: record.key)
def test_a_record_with_every_field_set_survives_storage(record: Record) -> None:
    assert decode_record(encode(record)) == record


@given(records)
def test_any_record_survives_storage(record: Record) -> None:
    assert decode_record(encode(record)) == record


@given(
    st.builds(Publication, names, st.integers(1, 2**53), st.tuples(st.builds(Put, records)), st.booleans())
)
def test_any_publication_survives_storage(publication: Publication) -> None:
    assert decode_publication(encode(publication)) == publication


def test_keys_name_kind_namespace_and_name() -> None:
    assert [record.key for record in (ROUTE, SERVER, POD)] == [
        "route/default/r",
        "server/default/a",
        "pod/default/p",
    ]


def test_a_publication_without_the_mark_is_not_whole() -> None:
    raw = msgspec.msgpack.encode(
        {"epoch": "e", "generation": 2, "changes": [{"type": "delete", "key": "pod/d/p"}]}
    )

    assert decode_publication(raw) == Publication("e", 2, (Delete("pod/d/p"),), whole=False)


@given(st.binary(max_size=64))
def test_foreign_bytes_are_refused_by_a_named_error(raw: bytes) -> None:
    for decode in (decode_record, decode_publication):
        with pytest.raises(msgspec.DecodeError):
            decode(raw)


def test_a_record_is_no_publication() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_publication(encode(POD))


@pytest.mark.parametrize(
    ("pod", "address"),
    [
        (a_pod("p", ip="10.0.0.1"), "10.0.0.1:8000"),
        (a_pod("p", ip="10.0.0.1", port=9001), "10.0.0.1:9001"),
        (a_pod("p", ip="fd00::1"), "[fd00::1]:8000"),
    ],
)
def test_an_address_is_what_envoy_calls_the_pod(pod: Pod, address: str) -> None:
    assert pod.address(a_server("s")) == address


def test_the_cluster_of_a_server_names_namespace_and_name() -> None:
    assert a_server("s").cluster == "model/default/s"


def test_a_pod_has_a_place_in_each_server_that_selects_it() -> None:
    servers = {server.key: server for server in (a_server("s"), a_server("t", port=9000), a_server("other"))}

    places = a_pod("p", "t", "s", "gone").places(servers)

    assert [(server.name, address) for server, address in places] == [
        ("t", "10.0.0.1:9000"),
        ("s", "10.0.0.1:8000"),
    ]


@pytest.mark.parametrize(
    "record", [a_server("s"), a_pod("s"), ROUTE], ids=lambda record: type(record).__name__
)
def test_the_label_of_a_key_is_namespace_and_name(record: Record) -> None:
    assert label(record.key) == f"{record.namespace}/{record.name}"
