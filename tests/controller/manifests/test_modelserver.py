import json

import pytest

from controller.manifests.modelserver import ModelServer
from controller.manifests.reader import read_file
from extproc.state import records

SPEC = {
    "inferenceEngine": "vLLM",
    "workloadSelector": {"matchLabels": {"app": "pool"}},
    "workloadPort": {"port": 8000},
}
HTTPS = {"workloadPort": {"port": 8443, "protocol": "https"}}


def read(spec=None, annotations=None):
    manifest = {
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": "pool", "namespace": "team", "annotations": annotations or {}},
        "spec": {**SPEC, **(spec or {})},
    }
    return read_file("m.json", json.dumps(manifest).encode())


def view_of(spec=None, annotations=None) -> ModelServer:
    reading = read(spec, annotations)
    assert reading.problems == ()
    return reading.objects[0].view


def problems_of(spec=None, annotations=None):
    return [f"{problem.field}: {problem.message}" for problem in read(spec, annotations).problems]


def test_defaults():
    assert view_of().record() == records.ModelServer("team", "pool", "vLLM", 8000)


def test_everything_a_server_can_say():
    spec = {
        "inferenceEngine": "SGLang",
        "model": "org/llama",
        "workloadPort": {"port": 1, "protocol": "http"},
        "trafficPolicy": {"timeout": "1m30s", "retry": {"attempts": 5, "retryInterval": "250ms"}},
    }

    assert view_of(spec).record() == records.ModelServer(
        "team",
        "pool",
        "SGLang",
        1,
        model="org/llama",
        timeout_s=90.0,
        retry=records.Retry(5, 0.25),
    )


def test_a_retry_without_interval_waits_100_ms():
    server = view_of({"trafficPolicy": {"retry": {"attempts": 0}}})

    assert server.record().retry == records.Retry(0, 0.1)


def test_a_timeout_of_zero_is_no_limit():
    assert view_of({"trafficPolicy": {"timeout": "0s"}}).record().timeout_s is None


def test_https_expects_the_name_of_the_service():
    assert view_of(HTTPS).record().tls == records.Tls("pool.team.svc")


def test_https_as_the_annotations_say():
    annotations = {"kvoy.io/tls-server-name": "engine.local", "kvoy.io/tls-ca-file": "/etc/ca.pem"}

    assert view_of(HTTPS, annotations).record().tls == records.Tls("engine.local", "/etc/ca.pem")


@pytest.mark.parametrize(("skip", "verify"), [("true", False), ("false", True)])
def test_https_without_verification(skip, verify):
    assert view_of(HTTPS, {"kvoy.io/tls-insecure-skip-verify": skip}).record().tls.verify is verify


@pytest.mark.parametrize(("usage", "reported"), [("always", True), ("client", False)])
def test_stream_usage(usage, reported):
    assert view_of(annotations={"kvoy.io/stream-usage": usage}).record().report_usage is reported


@pytest.mark.parametrize(("control", "kept"), [("strip", False), ("keep", True)])
def test_client_control(control, kept):
    assert view_of(annotations={"kvoy.io/client-control": control}).record().client_control is kept


@pytest.mark.parametrize(
    ("labels", "selected"),
    [
        ({"app": "pool"}, True),
        ({"app": "pool", "tier": "1"}, True),
        ({"app": "other"}, False),
        ({"tier": "1"}, False),
        ({}, False),
    ],
)
def test_a_pod_is_selected_by_all_labels(labels, selected):
    assert view_of().selects(labels) is selected


def test_all_of_several_labels_must_match():
    server = view_of({"workloadSelector": {"matchLabels": {"app": "pool", "tier": "1"}}})

    assert not server.selects({"app": "pool"})


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"inferenceEngine": "vllm"}, 'spec.inferenceEngine: expected one of "vLLM", "SGLang", got "vllm"'),
        ({"inferenceEngine": None}, "spec.inferenceEngine: this required field is missing"),
        ({"model": ""}, 'spec.model: expected a string of 1 to 256 characters, got ""'),
        ({"workloadPort": {}}, "spec.workloadPort.port: this required field is missing"),
        (
            {"workloadPort": {"port": 0}},
            "spec.workloadPort.port: expected an integer from 1 to 65535, got 0",
        ),
        (
            {"workloadPort": {"port": 65536}},
            "spec.workloadPort.port: expected an integer from 1 to 65535, got 65536",
        ),
        (
            {"workloadPort": {"port": 1, "protocol": "grpc"}},
            'spec.workloadPort.protocol: expected one of "http", "https", got "grpc"',
        ),
        (
            {"workloadSelector": {}},
            "spec.workloadSelector.matchLabels: this required field is missing",
        ),
        (
            {"workloadSelector": {"matchLabels": {}}},
            "spec.workloadSelector.matchLabels: is empty and would select every pod of the namespace; "
            "name the labels of this model's pods",
        ),
        (
            {"workloadSelector": {"matchLabels": {"app": 1}}},
            'spec.workloadSelector.matchLabels["app"]: expected a string, got 1',
        ),
        (
            {"workloadSelector": {"matchExpressions": []}},
            "spec.workloadSelector.matchExpressions: unknown field; remove it",
        ),
        (
            {"trafficPolicy": {"timeout": 10}},
            'spec.trafficPolicy.timeout: expected a string such as "10s", got 10',
        ),
        (
            {"trafficPolicy": {"timeout": "10"}},
            "spec.trafficPolicy.timeout: '10' is not a duration; "
            'write it with units, as in "10s" or "1m30s"',
        ),
        (
            {"trafficPolicy": {"retry": {}}},
            "spec.trafficPolicy.retry.attempts: this required field is missing",
        ),
        (
            {"trafficPolicy": {"retry": {"attempts": -1}}},
            "spec.trafficPolicy.retry.attempts: expected an integer from 0 to 2147483647, got -1",
        ),
        (
            {"trafficPolicy": {"retry": {"attempts": 1, "retryInterval": "0s"}}},
            'spec.trafficPolicy.retry.retryInterval: "0s" is shorter than 1ms',
        ),
    ],
)
def test_what_a_server_can_not_be(spec, problem):
    assert problem in problems_of(spec)


def test_the_longest_model_name():
    assert view_of({"model": "m" * 256}).record().model == "m" * 256
    (problem,) = problems_of({"model": "m" * 257})
    assert problem.startswith("spec.model: expected a string of 1 to 256 characters, got ")


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ({"kvoy.io/tls-server-name": "Engine"}, '"Engine" is not a lower-case DNS name'),
        ({"kvoy.io/tls-ca-file": "ca.pem"}, '"ca.pem" is not an absolute path'),
        ({"kvoy.io/tls-insecure-skip-verify": "yes"}, '"yes" must be one of "false", "true"'),
        ({"kvoy.io/stream-usage": "never"}, '"never" must be one of "always", "client"'),
        ({"kvoy.io/client-control": "yes"}, '"yes" must be one of "strip", "keep"'),
        (
            {"kvoy.io/tls-sni": "x"},
            "unknown annotation; a ModelServer may carry one of kvoy.io/tls-server-name, "
            "kvoy.io/tls-ca-file, kvoy.io/tls-insecure-skip-verify, kvoy.io/stream-usage, kvoy.io/scheduler, "
            "kvoy.io/data-parallel-size, kvoy.io/tokenizer, kvoy.io/kv-events, kvoy.io/kv-events-replay, "
            "kvoy.io/client-control, kvoy.io/prefill-threshold, kvoy.io/prefill-timeout, "
            "kvoy.io/prefill-fallback, kvoy.io/prefill-tensor-parallel-size, kvoy.io/kv-port",
        ),
        ({"kvoy.io/data-parallel-size": "0"}, '"0" is not a number from 1 to 64'),
        ({"kvoy.io/data-parallel-size": "65"}, '"65" is not a number from 1 to 64'),
        ({"kvoy.io/data-parallel-size": "2\n"}, '"2\\n" is not a number from 1 to 64'),
        (
            {"kvoy.io/tokenizer": "../secret"},
            '"../secret" is not a path below a directory, such as org/model',
        ),
        ({"kvoy.io/tokenizer": "/etc"}, '"/etc" is not a path below a directory, such as org/model'),
        ({"kvoy.io/tokenizer": ""}, '"" is not a path below a directory, such as org/model'),
        ({"kvoy.io/kv-events": "on"}, '"on" is not "tcp://*:PORT" or "off"'),
        (
            {"kvoy.io/scheduler": "plugins: {Filter: {enabled: [gpu-usage]}}"},
            'plugins.Filter.enabled[0]: "gpu-usage" is not for Filter; list it under plugins.Score',
        ),
        ({"kvoy.io/scheduler": "- 1"}, "expected an object, got a list"),
    ],
)
def test_what_an_annotation_can_not_be(annotations, problem):
    (name,) = annotations

    assert problems_of(HTTPS, annotations) == [f'metadata.annotations["{name}"]: {problem}']


def test_a_bundle_that_nothing_is_checked_against_is_refused():
    annotations = {"kvoy.io/tls-insecure-skip-verify": "true", "kvoy.io/tls-ca-file": "/ca.pem"}

    assert problems_of(HTTPS, annotations) == [
        'metadata.annotations["kvoy.io/tls-ca-file"]: has no effect while '
        "kvoy.io/tls-insecure-skip-verify is true; remove one of them"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kvoy.io/tls-server-name", "engine.local"),
        ("kvoy.io/tls-ca-file", "/ca.pem"),
        ("kvoy.io/tls-insecure-skip-verify", "true"),
    ],
)
def test_tls_annotations_need_https(name, value):
    assert problems_of(annotations={name: value}) == [
        f'metadata.annotations["{name}"]: needs spec.workloadPort.protocol to be https'
    ]


def test_what_annotations_say_of_the_engines():
    annotations = {
        "kvoy.io/data-parallel-size": "64",
        "kvoy.io/tokenizer": "org/model-7b",
        "kvoy.io/kv-events": "tcp://*:5557",
        "kvoy.io/kv-events-replay": "tcp://*:6557",
        "kvoy.io/scheduler": "plugins: {Score: {enabled: [{name: random}, {name: lmetric, weight: 2}]}}",
    }

    assert view_of(annotations=annotations).record() == records.ModelServer(
        "team",
        "pool",
        "vLLM",
        8000,
        ranks=64,
        profile=records.Profile((), (records.Plugin("lmetric", weight=2.0),)),
        tokenizer="org/model-7b",
        kv_events=records.KvEvents("tcp://*:5557", "tcp://*:6557"),
    )


def test_all_ranks_need_a_port_for_their_events():
    annotations = {"kvoy.io/data-parallel-size": "8", "kvoy.io/kv-events": "tcp://*:65530"}

    assert problems_of(annotations=annotations) == [
        'metadata.annotations["kvoy.io/kv-events"]: "tcp://*:65530" leaves no port for each of 8 ranks'
    ]


APART = {
    "workloadSelector": {
        "matchLabels": {"modelserving.volcano.sh/name": "pool"},
        "pdGroup": {
            "groupKey": "modelserving.volcano.sh/group-name",
            "prefillLabels": {"modelserving.volcano.sh/role": "prefill"},
            "decodeLabels": {"modelserving.volcano.sh/role": "decode"},
        },
    },
}


@pytest.mark.parametrize(
    ("engine", "connector", "name"),
    [
        ("vLLM", None, "http"),
        ("vLLM", {}, "http"),
        ("vLLM", {"type": None}, "http"),
        ("vLLM", {"type": "nixl"}, "nixl"),
        ("vLLM", {"type": "sidecar"}, "sidecar"),
        ("SGLang", None, "sglang"),
        ("SGLang", {"type": "mooncake"}, "sglang"),
        ("SGLang", {"type": "sidecar"}, "sidecar"),
    ],
)
def test_prefill_and_decode_apart(engine, connector, name):
    server = view_of({**APART, "inferenceEngine": engine, "kvConnector": connector})

    assert server.connector == name
    assert server.record().disaggregation == records.Disaggregation(name)


def test_what_annotations_say_of_prefill():
    annotations = {
        "kvoy.io/prefill-threshold": "0",
        "kvoy.io/prefill-timeout": "1.5s",
        "kvoy.io/prefill-fallback": "error",
        "kvoy.io/prefill-tensor-parallel-size": "4",
        "kvoy.io/kv-port": "5700",
    }

    server = view_of({**APART, "kvConnector": {"type": "nixl-push"}}, annotations)

    assert server.record().disaggregation == records.Disaggregation("nixl-push", 0, 1.5, False, 4)


def test_a_connector_without_groups_is_valid_and_changes_nothing():
    assert view_of({"kvConnector": {"type": "nixl"}}).record() == view_of().record()


def test_prefill_annotations_need_groups():
    assert problems_of(annotations={"kvoy.io/prefill-timeout": "1s"}) == [
        'metadata.annotations["kvoy.io/prefill-timeout"]: needs spec.workloadSelector.pdGroup, '
        "which says which pods compute prompts"
    ]


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        ({}, "spec.workloadSelector.pdGroup.groupKey: this required field is missing"),
        ({}, "spec.workloadSelector.pdGroup.prefillLabels: this required field is missing"),
        ({}, "spec.workloadSelector.pdGroup.decodeLabels: this required field is missing"),
        (
            {"groupKey": "", "prefillLabels": {"r": "p"}, "decodeLabels": {"r": "d"}},
            'spec.workloadSelector.pdGroup.groupKey: expected a string of 1 to 317 characters, got ""',
        ),
        (
            {"groupKey": "g", "prefillLabels": {"r": 1}, "decodeLabels": {"r": "d"}},
            'spec.workloadSelector.pdGroup.prefillLabels["r"]: expected a string, got 1',
        ),
        (
            {"groupKey": "g", "prefillLabels": {"r": "p"}, "decodeLabels": {"r": "d"}, "encodeLabels": {}},
            'spec.workloadSelector.pdGroup.encodeLabels: unknown field; did you mean "decodeLabels"?',
        ),
    ],
)
def test_what_a_group_can_not_be(group, problem):
    spec = {"workloadSelector": {"matchLabels": {"app": "pool"}, "pdGroup": group}}

    assert problem in problems_of(spec)


def test_what_a_connector_can_not_be():
    assert problems_of({**APART, "kvConnector": {"type": "p2p"}}) == [
        'spec.kvConnector.type: expected one of "http", "lmcache", "nixl", "mooncake", "nixl-push", '
        '"sidecar", got "p2p"'
    ]
