"""Client copies of the headers that steer Envoy or kvoy are removed before anything reads them."""

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from controller.xds.extension import extension
from extproc.state import envoy

PREFIXES = (envoy.OWN_HEADER_PREFIX, envoy.DESTINATION, envoy.RANK_HEADER, "x-envoy-")


def stripping() -> core.TypedExtensionConfig:
    """Remove every request header whose name starts with one of PREFIXES."""
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        early.HeaderMutation(mutations=[_without(prefix) for prefix in PREFIXES]),
    )


def _without(prefix: str) -> mutation_rules.HeaderMutation:
    names = matcher.StringMatcher(prefix=prefix, ignore_case=True)
    return mutation_rules.HeaderMutation(
        remove_on_match=mutation_rules.HeaderMutationRemoveOnMatch(key_matcher=names)
    )
