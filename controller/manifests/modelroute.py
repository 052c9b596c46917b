"""ModelRoute: which requests go to which ModelServers."""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
import re2

from controller.manifests import annotations, metadata
from controller.manifests.metadata import Metadata
from controller.manifests.problem import Fault
from controller.manifests.shape import quoted
from extproc.state import envoy, records

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
"""A header name (RFC 9110)."""

_QUIET = re2.Options()
_QUIET.log_errors = False


class StringMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition on a string: exact, else prefix, else regex (RE2, unanchored); with none it holds."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class BodyMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition on the request body."""

    model: str | None = None


class ModelMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions of a rule; all must hold."""

    headers: dict[str, StringMatch] = {}
    uri: StringMatch | None = None
    body: BodyMatch = BodyMatch()


class TargetModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A ModelServer of the route's namespace and its relative weight."""

    model_server_name: str
    weight: Annotated[int, msgspec.Meta(ge=0, le=100)] = 100


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Conditions, and where a request that meets them goes; the first rule that holds decides."""

    target_models: Annotated[list[TargetModel], msgspec.Meta(min_length=1, max_length=16)]
    name: str = ""
    model_match: ModelMatch = ModelMatch()


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The models a route answers for, and its rules."""

    rules: Annotated[list[Rule], msgspec.Meta(max_length=16)]
    model_name: str = ""
    lora_adapters: Annotated[list[str], msgspec.Meta(max_length=10)] = []


class ModelRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``networking.serving.volcano.sh/v1alpha1``, kind ModelRoute."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: Spec
    status: object = None

    def faults(self) -> Iterator[Fault]:
        """What the types alone cannot say."""
        yield from metadata.faults(self.metadata)
        yield from annotations.unknown(self.kind, self.metadata.annotations)
        if not self.spec.model_name and not self.spec.lora_adapters:
            yield Fault("spec.modelName", "is empty, and so is spec.loraAdapters; give at least one of them")
        for at, adapter in enumerate(self.spec.lora_adapters):
            if not adapter:
                yield Fault(f"spec.loraAdapters[{at}]", "is empty; remove it")
        for at, rule in enumerate(self.spec.rules):
            yield from _match_faults(rule.model_match, f"spec.rules[{at}].modelMatch")

    def record(self) -> records.ModelRoute:
        """The route as it is published; call it on a view without faults."""
        return records.ModelRoute(
            namespace=self.metadata.namespace,
            name=self.metadata.name,
            rules=tuple(_rule(rule) for rule in self.spec.rules),
            model=self.spec.model_name,
            adapters=tuple(dict.fromkeys(self.spec.lora_adapters)),
            created=self.metadata.created,
        )


def _match_faults(match: ModelMatch, path: str) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for name, condition in match.headers.items():
        at = f"{path}.headers[{quoted(name)}]"
        yield from _header_faults(name, at)
        if name.lower() in seen:
            yield Fault(at, f"is the same header as {quoted(seen[name.lower()])}; keep one of them")
        seen[name.lower()] = name
        yield from _regex_faults(condition, at)
    if match.uri is not None:
        yield from _regex_faults(match.uri, f"{path}.uri")


def _header_faults(name: str, at: str) -> Iterator[Fault]:
    if not _TOKEN.fullmatch(name):
        yield Fault(at, "is not a header name")
    elif name.lower().startswith(envoy.OWN_HEADER_PREFIX) or name.lower() == envoy.DESTINATION:
        yield Fault(at, "this header is removed from every request before routing; match another one")


def _regex_faults(match: StringMatch, path: str) -> Iterator[Fault]:
    if match.regex is None:
        return
    try:
        re2.compile(match.regex, _QUIET)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        yield Fault(f"{path}.regex", f"{quoted(match.regex)} is not an RE2 expression: {reason:.200}")


def _rule(rule: Rule) -> records.Rule:
    return records.Rule(
        targets=tuple(records.Target(each.model_server_name, each.weight) for each in rule.target_models),
        name=rule.name,
        headers={name.lower(): _string(match) for name, match in rule.model_match.headers.items()},
        uri=None if rule.model_match.uri is None else _string(rule.model_match.uri),
        model=rule.model_match.body.model,
    )


def _string(match: StringMatch) -> records.StringMatch:
    return records.StringMatch(exact=match.exact, prefix=match.prefix, regex=match.regex)
