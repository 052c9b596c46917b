"""Filters that Envoy leaves out for some requests."""

from collections.abc import Iterable

import betterproto2
from envoy_data_plane.envoy.extensions.common.matching import v3 as matching
from envoy_data_plane.envoy.extensions.filters.common.matcher.action import v3 as action
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig
from envoy_data_plane.xds.type.matcher import v3 as xds

from controller.xds.extension import extension


def skipped_if_request_has(
    headers: Iterable[str], name: str, config: betterproto2.Message
) -> matching.ExtensionWithMatcher:
    """The filter `name`, skipped for a request that has any of these headers, not empty."""
    return _skipped([_has(header) for header in headers], name, config)


def skipped_unless_request_has(
    header: str, name: str, config: betterproto2.Message
) -> matching.ExtensionWithMatcher:
    """The filter `name`, skipped for a request without this header, or with an empty one."""
    return _skipped([xds.MatcherMatcherListPredicate(not_matcher=_has(header))], name, config)


def _has(header: str) -> xds.MatcherMatcherListPredicate:
    anything = xds.RegexMatcher(google_re2=xds.RegexMatcherGoogleRe2(), regex=".+")
    here = xds.MatcherMatcherListPredicateSinglePredicate(
        input=_typed("header", matcher.HttpRequestHeaderMatchInput(header_name=header)),
        value_match=xds.StringMatcher(safe_regex=anything),
    )
    return xds.MatcherMatcherListPredicate(single_predicate=here)


def _skipped(
    when: Iterable[xds.MatcherMatcherListPredicate], name: str, config: betterproto2.Message
) -> matching.ExtensionWithMatcher:
    skip = xds.MatcherOnMatch(action=_typed("skip", action.SkipFilter()))
    rules = [xds.MatcherMatcherListFieldMatcher(predicate=each, on_match=skip) for each in when]
    return matching.ExtensionWithMatcher(
        xds_matcher=xds.Matcher(matcher_list=xds.MatcherMatcherList(matchers=rules)),
        extension_config=extension(name, config),
    )


def _typed(name: str, config: betterproto2.Message) -> TypedExtensionConfig:
    """As `extension`, in the type that matchers take."""
    return TypedExtensionConfig(name=name, typed_config=Any.pack(config))
