import msgspec
import pytest

from extproc.state.records import (
    ModelRoute,
    ModelServer,
    Plugin,
    Pod,
    Profile,
    Rule,
    Scheduler,
    StringMatch,
    Target,
)
from extproc.state.snapshot import (
    EMPTY,
    Condition,
    Endpoint,
    Snapshot,
    compile_snapshot,
)
from extproc.testing import a_pod, a_route, a_rule, a_server, a_snapshot


def holds(value: str, **match: str) -> bool:
    return Condition.of(StringMatch(**match)).holds(value)


def route_names(snapshot: Snapshot, model: str) -> list[str]:
    return [route.name for route in snapshot.by_model[model]]


def targets(snapshot: Snapshot) -> list[tuple[str, int]]:
    return [(server.key, weight) for server, weight in snapshot.routes[0].rules[0].targets]


def test_exact_goes_before_prefix_and_prefix_before_regex() -> None:
    assert holds("abc", exact="abc", prefix="x", regex="x")
    assert not holds("abcd", exact="abc", prefix="abc", regex="abc")
    assert holds("abcd", prefix="abc", regex="x")
    assert not holds("xabc", prefix="abc", regex="abc")


def test_a_condition_without_any_match_holds_always() -> None:
    assert holds("")
    assert holds("anything")


def test_an_empty_exact_value_is_a_condition() -> None:
    # An absent header reads as "": this asks for its absence.
    assert holds("", exact="")
    assert not holds("x", exact="")


def test_regex_is_unanchored() -> None:
    assert holds("my-premium-user", regex="prem")
    assert not holds("my-premium-user", regex="^prem")
    assert holds("ab", regex="^ab$")


@pytest.mark.parametrize("regex", [r"(?i)PREMIUM", r"\pL+", r"pr[é|e]mium", r"\x70remium"])
def test_regex_has_re2_syntax(regex: str) -> None:
    assert holds("premium", regex=regex)


def test_a_regex_sees_text_beyond_ascii() -> None:
    assert holds("zürich", regex="^z.rich$")


@pytest.mark.parametrize("regex", ["(", r"(a)\1", "(?=a)", "a{2,1}", "a**", "[z-a]"])
def test_what_is_not_re2_is_refused_and_named(regex: str, capfd: pytest.CaptureFixture[str]) -> None:
    route = a_route("r", a_rule("s", headers={"h": StringMatch(regex=regex)}))

    with pytest.raises(ValueError, match="is not RE2 syntax") as error:
        a_snapshot(route)

    assert repr(regex) in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_hostile_regex_takes_linear_time() -> None:
    # A backtracking engine needs 2**100000 steps for this: the test would never end.
    assert not holds("a" * 100_000 + "!", regex="(a+)+$")
    assert not holds("a" * 100_000, regex="(a|aa)+b")


def test_routes_of_a_model_are_oldest_first_then_by_namespace_and_name() -> None:
    young = a_route("a", model="m", created=2.0)
    old = a_route("z", model="m", created=1.0)
    twin = a_route("b", model="m", created=2.0)
    elsewhere = ModelRoute("another", "z", (), model="m", created=2.0)

    snapshot = a_snapshot(young, old, twin, elsewhere)

    assert [(r.namespace, r.name) for r in snapshot.by_model["m"]] == [
        ("default", "z"),
        ("another", "z"),
        ("default", "a"),
        ("default", "b"),
    ]
    assert snapshot.routes == snapshot.by_model["m"]


def test_the_order_of_records_changes_nothing() -> None:
    records = [a_route("r", a_rule("s"), model="m"), a_server("s"), a_pod("b", "s"), a_pod("a", "s")]

    assert a_snapshot(*records) == a_snapshot(*reversed(records))


def test_models_and_adapters_lead_to_their_routes() -> None:
    snapshot = a_snapshot(
        a_route("both", model="m", adapters=["x", "y"]),
        a_route("adapters", adapters=["y"], created=1.0),
    )

    assert route_names(snapshot, "m") == ["both"]
    assert {name: [r.name for r in routes] for name, routes in snapshot.by_adapter.items()} == {
        "x": ["both"],
        "y": ["both", "adapters"],
    }
    assert "" not in snapshot.by_model


def test_models_are_listed_by_name_adapters_last_and_each_once() -> None:
    snapshot = a_snapshot(
        a_route("1", model="zeta", adapters=["lora", "alpha"], created=5.0),
        a_route("2", model="alpha", created=3.0),
        a_route("3", model="zeta", created=4.0),
    )

    assert snapshot.models == (("alpha", 3.0), ("zeta", 4.0), ("lora", 5.0))


def test_targets_without_weight_or_server_are_left_out() -> None:
    snapshot = a_snapshot(
        a_route("r", a_rule(("a", 70), ("b", 0), ("missing", 30))), a_server("a"), a_server("b")
    )

    assert targets(snapshot) == [("server/default/a", 70)]


def test_targets_are_looked_up_in_the_namespace_of_the_route() -> None:
    route = ModelRoute("mine", "r", (Rule((Target("a"),)),))

    snapshot = a_snapshot(route, a_server("a"), ModelServer("mine", "a", "SGLang", 1))

    assert targets(snapshot) == [("server/mine/a", 100)]


def test_a_rule_without_a_name_is_called_by_its_position() -> None:
    snapshot = a_snapshot(a_route("r", a_rule("s"), a_rule("s", name="second"), a_rule("s")))

    assert [rule.name for rule in snapshot.routes[0].rules] == ["#0", "second", "#2"]


def test_header_names_are_those_that_some_rule_looks_at() -> None:
    one = a_rule("s", headers={"user-type": StringMatch(exact="premium")})
    two = a_rule("s", headers={"x-team": StringMatch(prefix="a"), "user-type": StringMatch()})

    assert a_snapshot(a_route("r", one), a_route("q", two)).header_names == {"user-type", "x-team"}


def test_endpoints_are_listed_per_server_in_order_of_pod_name() -> None:
    snapshot = a_snapshot(
        a_server("s"),
        a_server("t", port=9),
        a_server("idle"),
        a_pod("b", "s", ip="10.0.0.2"),
        a_pod("a", "s", "t", "gone", ip="10.0.0.1"),
    )

    assert snapshot.endpoints == {
        "server/default/s": (
            Endpoint.of("pod/default/a", "10.0.0.1:8000"),
            Endpoint.of("pod/default/b", "10.0.0.2:8000"),
        ),
        "server/default/t": (Endpoint.of("pod/default/a", "10.0.0.1:9"),),
        "server/default/idle": (),
    }


def test_a_pod_serves_only_servers_of_its_namespace() -> None:
    assert a_snapshot(a_server("s"), Pod("other", "p", "10.0.0.1", ("s",))).endpoints == {
        "server/default/s": ()
    }


def test_before_the_first_publication_nothing_can_be_served() -> None:
    assert (EMPTY.generation, EMPTY.models, EMPTY.routes, dict(EMPTY.endpoints)) == (0, (), (), {})


def test_a_snapshot_knows_its_generation() -> None:
    snapshot = compile_snapshot("e", 7, [])

    assert (snapshot.epoch, snapshot.generation) == ("e", 7)


def test_each_data_parallel_rank_is_an_endpoint_of_its_own():
    snapshot = a_snapshot(
        msgspec.structs.replace(a_server("s"), ranks=2), a_server("t"), a_pod("a", "s", "t", ip="10.0.0.1")
    )

    assert [(e.key, e.address, e.rank) for e in snapshot.endpoints["server/default/s"]] == [
        ("pod/default/a#0", "10.0.0.1:8000", 0),
        ("pod/default/a#1", "10.0.0.1:8000", 1),
    ]
    assert [(e.key, e.rank) for e in snapshot.endpoints["server/default/t"]] == [("pod/default/a", None)]


def test_the_common_profile_is_the_schedulers():
    profile = Profile(scorers=(Plugin("random"),))

    assert a_snapshot(a_server("s")).profile == Profile()
    assert a_snapshot(a_server("s"), Scheduler(profile)).profile == profile
    assert a_snapshot(a_server("s")).servers == {"server/default/s": a_server("s")}
