from collections import Counter
from random import Random

import pytest

from extproc.rejection import Rejection
from extproc.request import Head
from extproc.route import RouteMatch, draw, find
from extproc.state.records import ModelRoute, StringMatch
from extproc.state.snapshot import Snapshot
from extproc.testing import a_head, a_route, a_rule, a_server, a_snapshot

SERVERS = [a_server(name) for name in ("a", "b", "c")]


def world(*routes: ModelRoute) -> Snapshot:
    return a_snapshot(*routes, *SERVERS)


def led(snapshot: Snapshot, head: Head, model: str | None = "m") -> str:
    """Where a request leads: ``route/rule -> server``, or the reason of its rejection."""
    found = find(snapshot, head, model)
    if isinstance(found, Rejection):
        return found.reason
    return f"{found.route.name}/{found.rule.name} -> {found.rule.targets[0][0].name}"


@pytest.mark.parametrize(
    ("match", "value", "holds"),
    [
        (StringMatch(exact="premium"), "premium", True),
        (StringMatch(exact="premium"), "premium2", False),
        (StringMatch(prefix="pre"), "premium", True),
        (StringMatch(prefix="pre"), "apremium", False),
        (StringMatch(regex="^(gold|premium)$"), "gold", True),
        (StringMatch(regex="rem"), "premium", True),
        (StringMatch(regex="^rem"), "premium", False),
        (StringMatch(), "anything", True),
        (StringMatch(exact="x", prefix="pre"), "premium", False),
    ],
)
def test_header_conditions(match: StringMatch, value: str, holds: bool) -> None:
    snapshot = world(a_route("r", a_rule("a", headers={"user-type": match}), a_rule("b"), model="m"))

    assert led(snapshot, a_head(user_type=value)) == ("r/#0 -> a" if holds else "r/#1 -> b")


def test_an_absent_header_reads_as_empty() -> None:
    snapshot = world(
        a_route("r", a_rule("a", headers={"user-type": StringMatch(regex="^$")}), a_rule("b"), model="m")
    )

    assert led(snapshot, a_head()) == "r/#0 -> a"


def test_all_conditions_of_a_rule_must_hold() -> None:
    rule = a_rule(
        "a",
        headers={"x": StringMatch(exact="1"), "y": StringMatch(exact="2")},
        uri=StringMatch(prefix="/v1/chat"),
        model="m",
    )
    snapshot = world(a_route("r", rule, a_rule("b"), model="m"))

    assert led(snapshot, a_head(x="1", y="2")) == "r/#0 -> a"
    assert led(snapshot, a_head(x="1")) == "r/#1 -> b"
    assert led(snapshot, a_head("/v1/completions", x="1", y="2")) == "r/#1 -> b"


def test_the_body_model_tells_adapters_of_one_route_apart() -> None:
    route = a_route("r", a_rule("a", model="lora-1"), a_rule("b"), adapters=["lora-1", "lora-2"])

    assert led(world(route), a_head(), "lora-1") == "r/#0 -> a"
    assert led(world(route), a_head(), "lora-2") == "r/#1 -> b"


def test_the_first_rule_wins() -> None:
    assert led(world(a_route("r", a_rule("a"), a_rule("b"), model="m")), a_head()) == "r/#0 -> a"


def test_the_oldest_route_wins() -> None:
    young = a_route("a-young", a_rule("a"), model="m", created=200.0)
    old = a_route("z-old", a_rule("b"), model="m", created=100.0)

    assert led(world(young, old), a_head()) == "z-old/#0 -> b"


def test_of_equally_old_routes_the_first_name_wins() -> None:
    assert led(
        world(a_route("y", a_rule("a"), model="m"), a_route("x", a_rule("b"), model="m")), a_head()
    ) == ("x/#0 -> b")


def test_a_route_without_a_matching_rule_passes_to_the_next() -> None:
    strict = a_route("1", a_rule("a", headers={"x": StringMatch(exact="1")}), model="m", created=1.0)
    lenient = a_route("2", a_rule("b"), model="m", created=2.0)

    assert led(world(strict, lenient), a_head()) == "2/#0 -> b"


def test_a_route_that_leads_nowhere_passes_to_the_next() -> None:
    missing = a_route("1", a_rule("gone"), model="m", created=1.0)
    weightless = a_route("2", a_rule(("a", 0)), model="m", created=2.0)
    working = a_route("3", a_rule("b"), model="m", created=3.0)

    assert led(world(missing, weightless, working), a_head()) == "3/#0 -> b"


def test_a_model_name_comes_before_an_equal_adapter_name() -> None:
    adapter = a_route("1", a_rule("a"), adapters=["m"], created=1.0)
    model = a_route("2", a_rule("b"), model="m", created=2.0)

    found = find(world(adapter, model), a_head(), "m")

    assert isinstance(found, RouteMatch)
    assert (found.route.name, found.adapter) == ("2", False)


def test_an_adapter_is_recognised() -> None:
    found = find(world(a_route("r", a_rule("a"), model="m", adapters=["lora"])), a_head(), "lora")

    assert isinstance(found, RouteMatch)
    assert found.adapter


def test_unknown_models_and_unmatched_rules_are_told_apart() -> None:
    snapshot = world(a_route("r", a_rule("a", headers={"x": StringMatch(exact="1")}), model="m"))

    assert led(snapshot, a_head(), "other") == "unknown-model"
    assert led(snapshot, a_head()) == "no-matching-rule"


def test_an_unparsed_path_is_routed_by_headers_and_uri_alone() -> None:
    by_model = a_route("1", a_rule("a", model="m"), model="m", created=1.0)
    by_uri = a_route("2", a_rule("b", uri=StringMatch(prefix="/v1/audio")), model="n", created=2.0)
    snapshot = world(by_model, by_uri)

    assert led(snapshot, a_head("/v1/audio/speech"), None) == "2/#0 -> b"
    assert led(snapshot, a_head("/tokenize"), None) == "no-matching-rule"


def test_a_hostile_regex_is_linear() -> None:
    snapshot = world(a_route("r", a_rule("a", headers={"x": StringMatch(regex="^(a+)+$")}), model="m"))

    assert led(snapshot, a_head(x="a" * 50_000 + "!")) == "no-matching-rule"


def test_weights_are_kept_within_two_percent() -> None:
    snapshot = world(a_route("r", a_rule(("a", 70), ("b", 25), ("c", 5)), model="m"))
    rule, rng = snapshot.routes[0].rules[0], Random(7)

    drawn = Counter(draw(rule, rng).name for _ in range(10_000))

    for name, share in (("a", 0.70), ("b", 0.25), ("c", 0.05)):
        assert abs(drawn[name] / 10_000 - share) <= 0.02


def test_a_weight_of_zero_is_never_drawn() -> None:
    rule = world(a_route("r", a_rule(("a", 0), ("b", 1)), model="m")).routes[0].rules[0]

    assert {draw(rule, Random(seed)).name for seed in range(200)} == {"b"}
