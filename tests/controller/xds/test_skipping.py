"""A filter skipped by a header. The effect on real requests is shown in test_deciders."""

from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router

from controller.xds.skipping import skipped_if_request_has, skipped_unless_request_has


def rule_of(filter_):
    (rule,) = filter_.xds_matcher.matcher_list.matchers
    assert rule.on_match.action.typed_config.type_url.endswith("action.v3.SkipFilter")
    return rule.predicate


def test_a_request_header_that_is_there_skips():
    filter_ = skipped_if_request_has(["x-kvoy-cluster"], "envoy.filters.http.router", Router())
    condition = rule_of(filter_).single_predicate
    assert condition.input.typed_config.unpack().header_name == "x-kvoy-cluster"
    assert condition.value_match.safe_regex.regex == ".+"
    assert filter_.extension_config.typed_config.unpack() == Router()


def test_any_of_several_headers_skips():
    filter_ = skipped_if_request_has(["x-a", "x-b"], "envoy.filters.http.router", Router())
    rules = filter_.xds_matcher.matcher_list.matchers
    names = [each.predicate.single_predicate.input.typed_config.unpack().header_name for each in rules]
    assert names == ["x-a", "x-b"]


def test_a_request_header_that_is_missing_skips():
    filter_ = skipped_unless_request_has("x-a", "envoy.filters.http.router", Router())
    condition = rule_of(filter_).not_matcher.single_predicate
    assert condition.input.typed_config.unpack().header_name == "x-a"
