"""The ext_proc filters: they ask a worker where a request goes, and others if that one is lost.

The first filter asks any worker; if it fails, the request goes on undecided. The second and the third run
only for a request that is still undecided, and ask one half of the workers each: so whichever single worker
is dead, hangs or errs, another one decides. The failure of the third is an error to the client. Asking again
takes the whole (buffered) body.

A worker that has to stay with a request, while a decode engine waits for what a prefill engine computes,
leaves it to the fourth. That one ends the request if its worker is lost meanwhile; the others would let it
wait for ever.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.extensions.common.matching import v3 as matching
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type import v3 as status
from envoy_data_plane.google.protobuf import Any

from controller.xds.grpc_service import grpc_service, other_endpoints
from controller.xds.plane import SECOND_CHANCE_CLUSTER, THIRD_CHANCE_CLUSTER, WORKERS_CLUSTER
from controller.xds.skipping import skipped_if_request_has, skipped_unless_request_has
from extproc.state import envoy

MESSAGE_TIMEOUT = timedelta(seconds=2)
"""Longest wait for a worker's answer, unless the worker says that it takes longer."""
LONGEST_TIMEOUT = timedelta(seconds=envoy.LONGEST_DECISION_S)
NAME = "envoy.filters.http.ext_proc"


def deciders() -> list[hcm.HttpFilter]:
    """The filters, in order."""
    first = _decider(WORKERS_CLUSTER, may_fail=True)
    second = _decider(SECOND_CHANCE_CLUSTER, may_fail=True)
    third = _decider(THIRD_CHANCE_CLUSTER, may_fail=False)
    watching = _decider(WORKERS_CLUSTER, may_fail=False, watch=envoy.WATCH_ON)
    return [
        hcm.HttpFilter(name="kvoy.decide", typed_config=Any.pack(first)),
        hcm.HttpFilter(name="kvoy.decide_again", typed_config=Any.pack(_if_undecided(second))),
        hcm.HttpFilter(name="kvoy.decide_at_last", typed_config=Any.pack(_if_undecided(third))),
        hcm.HttpFilter(name="kvoy.decide_and_watch", typed_config=Any.pack(_if_left(watching))),
    ]


def _if_undecided(decider: ext_proc.ExternalProcessor) -> matching.ExtensionWithMatcher:
    return skipped_if_request_has((envoy.CLUSTER_HEADER, envoy.WATCH_HEADER), NAME, decider)


def _if_left(decider: ext_proc.ExternalProcessor) -> matching.ExtensionWithMatcher:
    return skipped_unless_request_has(envoy.WATCH_HEADER, NAME, decider)


def _decider(cluster: str, *, may_fail: bool, watch: str = envoy.WATCH_OFFERED) -> ext_proc.ExternalProcessor:
    skip = ext_proc.ProcessingModeHeaderSendMode.SKIP
    return ext_proc.ExternalProcessor(
        grpc_service=grpc_service(cluster, other_endpoints(retries=3), {envoy.WATCH_KEY: watch}),
        failure_mode_allow=may_fail,
        status_on_error=status.HttpStatus(code=status.StatusCode.ServiceUnavailable),
        processing_mode=ext_proc.ProcessingMode(
            request_header_mode=ext_proc.ProcessingModeHeaderSendMode.SEND,
            request_body_mode=ext_proc.ProcessingModeBodySendMode.BUFFERED,
            request_trailer_mode=skip,
            response_header_mode=skip,
            response_body_mode=ext_proc.ProcessingModeBodySendMode.NONE,
            response_trailer_mode=skip,
        ),
        allow_mode_override=True,
        route_cache_action=ext_proc.ExternalProcessorRouteCacheAction.CLEAR,
        message_timeout=MESSAGE_TIMEOUT,
        max_message_timeout=LONGEST_TIMEOUT,
        mutation_rules=mutation_rules.HeaderMutationRules(),
        metadata_options=ext_proc.MetadataOptions(
            receiving_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(
                untyped=[envoy.LB_NAMESPACE, envoy.KVOY_NAMESPACE]
            ),
        ),
    )
