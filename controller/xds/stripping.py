"""Client copies of the headers that steer Envoy or kvoy are removed before anything reads them.

Then Envoy gives the request an id of its own; the client's is kept under another name.
"""

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from controller.xds.extension import extension
from extproc.state import envoy

PREFIXES = (envoy.OWN_HEADER_PREFIX, envoy.DESTINATION, envoy.PREFILLER_HEADER, "x-envoy-")


def stripping() -> core.TypedExtensionConfig:
    """Remove every request header that starts with one of PREFIXES; then keep the client's request id."""
    mutations = [*(_without(prefix) for prefix in PREFIXES), _client_request_id()]
    return extension(
        "envoy.http.early_header_mutation.header_mutation", early.HeaderMutation(mutations=mutations)
    )


def _client_request_id() -> mutation_rules.HeaderMutation:
    """Adds nothing where the client named none."""
    kept = core.HeaderValue(key=envoy.CLIENT_REQUEST_ID_HEADER, value="%REQ(X-REQUEST-ID)%")
    return mutation_rules.HeaderMutation(append=core.HeaderValueOption(header=kept))


def _without(prefix: str) -> mutation_rules.HeaderMutation:
    names = matcher.StringMatcher(prefix=prefix, ignore_case=True)
    return mutation_rules.HeaderMutation(
        remove_on_match=mutation_rules.HeaderMutationRemoveOnMatch(key_matcher=names)
    )
