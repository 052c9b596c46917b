"""ModelRoute rules: which one matches a request, and which ModelServer it draws.

Order of precedence: routes that serve the name as a model come before routes that serve it as a LoRA adapter;
then the oldest route; within a route the first rule whose conditions all hold. A route whose matching rule
leads nowhere (no target with weight, or none that exists) is passed over.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from extproc.rejection import Rejection
from extproc.request import Head
from extproc.state.records import ModelServer
from extproc.state.snapshot import CompiledRoute, CompiledRule, Snapshot


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The rule that decides, and whether the request asks for a LoRA adapter."""

    route: CompiledRoute
    rule: CompiledRule
    adapter: bool = False


def find(snapshot: Snapshot, head: Head, model: str | None) -> RouteMatch | Rejection:
    """The rule for a request; `model` is None where the path's body is not parsed."""
    if model is None:
        return _first(snapshot.routes, head, None) or Rejection(
            "no-matching-rule",
            f"No ModelRoute has a rule that matches {head.path[:256]}; add one for this path.",
        )
    by_model = snapshot.by_model.get(model)
    routes = by_model if by_model is not None else snapshot.by_adapter.get(model)
    if routes is None:
        return Rejection(
            "unknown-model", f"The model `{model[:256]}` does not exist.", "model", "model_not_found"
        )
    return _first(routes, head, model, adapter=by_model is None) or Rejection(
        "no-matching-rule",
        f"No rule for the model `{model}` matches this request's headers and path.",
        "model",
    )


def draw(rule: CompiledRule, rng: Random) -> ModelServer:
    """A target of the rule, each with the probability of its share of the weights."""
    if len(rule.targets) == 1:
        return rule.targets[0][0]
    left = rng.random() * sum(weight for _, weight in rule.targets)
    for server, weight in rule.targets:
        left -= weight
        if left < 0:
            return server
    return rule.targets[-1][0]


def _first(
    routes: Iterable[CompiledRoute], head: Head, model: str | None, *, adapter: bool = False
) -> RouteMatch | None:
    for route in routes:
        rule = next((rule for rule in route.rules if _matches(rule, head, model)), None)
        if rule is not None and rule.targets:
            return RouteMatch(route, rule, adapter)
    return None


def _matches(rule: CompiledRule, head: Head, model: str | None) -> bool:
    if rule.model is not None and rule.model != model:
        return False
    if rule.uri is not None and not rule.uri.holds(head.path):
        return False
    return all(condition.holds(head.headers.get(name, "")) for name, condition in rule.headers)
