import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests import disaggregation
from controller.manifests.disaggregation import (
    LONGEST_TIMEOUT,
    KvConnector,
    PdGroup,
    connector,
    kv_port,
    record,
)
from controller.manifests.duration import seconds
from extproc.handoff.handoff import TRIES
from extproc.state.envoy import LONGEST_DECISION_S
from extproc.state.records import Disaggregation

GROUP = PdGroup("group", {"role": "prefill"}, {"role": "decode"})
APP = {"app": "pool"}

TYPES = ["http", "lmcache", "nixl", "mooncake", "nixl-push", "sidecar"]


def faults(annotations=None, group=GROUP, engine="vLLM", labels=APP, kind="nixl-push"):
    """What is wrong, each as one line; annotations without their prefix."""
    given = {f"kvoy.io/{name}": value for name, value in (annotations or {}).items()}
    found = disaggregation.faults(engine, labels, group, KvConnector(kind), given)
    return [f"{fault.field}: {fault.message}" for fault in found]


def at(name):
    return f'metadata.annotations["kvoy.io/{name}"]'


class TestConnector:
    @pytest.mark.parametrize("kind", TYPES)
    def test_vllm_has_what_is_named(self, kind):
        assert connector("vLLM", KvConnector(kind)) == kind

    @pytest.mark.parametrize("kind", ["http", "lmcache", "nixl", "mooncake"])
    def test_sglang_has_its_own_whatever_kthena_calls_it(self, kind):
        assert connector("SGLang", KvConnector(kind)) == "sglang"

    def test_a_sidecar_hides_the_engine(self):
        assert connector("SGLang", KvConnector("sidecar")) == "sidecar"

    def test_unless_something_is_named_it_is_http(self):
        assert connector("vLLM", None) == connector("vLLM", KvConnector()) == "http"
        assert connector("SGLang", None) == "sglang"

    def test_sglang_has_no_nixl_push(self):
        assert faults(engine="SGLang") == [
            'spec.kvConnector.type: "nixl-push" is a connector of vLLM; remove it: '
            "SGLang's engines have their own protocol"
        ]

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("engine", ["vLLM", "SGLang"])
    def test_every_other_pair_is_valid(self, engine, kind):
        assert bool(faults(engine=engine, kind=kind)) is ((engine, kind) == ("SGLang", "nixl-push"))


class TestRoles:
    @pytest.mark.parametrize(
        ("labels", "roles"),
        [
            ({"role": "prefill"}, ("prefill",)),
            ({"role": "decode", "zone": "a"}, ("decode",)),
            ({"role": "both"}, ()),
            ({}, ()),
        ],
    )
    def test_a_role_is_known_by_its_labels(self, labels, roles):
        assert GROUP.roles(labels) == roles

    def test_all_labels_of_a_role_are_needed(self):
        group = PdGroup("group", {"role": "prefill", "gpu": "h100"}, {"role": "decode"})

        assert group.roles({"role": "prefill"}) == ()
        assert group.roles({"role": "prefill", "gpu": "h100"}) == ("prefill",)

    def test_labels_of_two_keys_can_name_both(self):
        group = PdGroup("group", {"prefills": "yes"}, {"decodes": "yes"})

        assert group.roles({"prefills": "yes", "decodes": "yes"}) == ("prefill", "decode")


class TestGroup:
    def test_a_role_without_labels_would_have_every_pod(self):
        for role in ("prefill", "decode"):
            labels = {"prefill_labels": GROUP.prefill_labels, "decode_labels": GROUP.decode_labels}
            group = PdGroup("group", **(labels | {f"{role}_labels": {}}))

            assert faults(group=group) == [
                f"spec.workloadSelector.pdGroup.{role}Labels: is empty and would select every pod; "
                f"name the labels of the {role} pods"
            ]

    @pytest.mark.parametrize(
        ("prefill", "decode", "role", "other"),
        [
            ({"role": "x"}, {"role": "x"}, "decode", "prefill"),
            ({"role": "x"}, {"role": "x", "gpu": "h20"}, "decode", "prefill"),
            ({"role": "x", "gpu": "h20"}, {"role": "x"}, "prefill", "decode"),
            ({"app": "pool"}, {"role": "x"}, "decode", "prefill"),
        ],
    )
    def test_a_role_whose_every_pod_has_the_other_too(self, prefill, decode, role, other):
        assert faults(group=PdGroup("group", prefill, decode)) == [
            f"spec.workloadSelector.pdGroup.{role}Labels: every pod that they select matches {other}Labels "
            "too; let the two differ in a label's value"
        ]

    def test_a_role_that_no_pod_of_the_server_can_have(self):
        assert faults(labels={"role": "decode"}) == [
            'spec.workloadSelector.pdGroup.prefillLabels["role"]: matchLabels wants "decode", so no pod has '
            "both; make them agree"
        ]

    @given(*[st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)] * 4)
    def test_a_group_without_faults_leaves_each_role_pods_of_its_own(self, common, prefill, decode, pod):
        group = PdGroup("group", prefill, decode)
        if faults(group=group, labels=common):
            return
        assert group.roles({**common, **prefill}) == ("prefill",)
        assert group.roles({**common, **decode}) == ("decode",)
        assert set(group.roles(pod)) <= {"prefill", "decode"}


class TestAnnotations:
    @pytest.mark.parametrize(
        "name",
        [
            "prefill-threshold",
            "prefill-timeout",
            "prefill-fallback",
            "prefill-tensor-parallel-size",
            "kv-port",
        ],
    )
    def test_they_need_a_group(self, name):
        assert faults({name: "anything"}, group=None) == [
            f"{at(name)}: needs spec.workloadSelector.pdGroup, which says which pods compute prompts"
        ]

    def test_without_a_group_nothing_else_is_wrong(self):
        assert faults(group=None) == faults(group=None, engine="SGLang") == []

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("prefill-threshold", "0"),
            ("prefill-threshold", "2147483647"),
            ("prefill-timeout", "10ms"),
            ("prefill-timeout", "140s"),
            ("prefill-timeout", "2m20s"),
            ("prefill-fallback", "decode"),
            ("prefill-fallback", "error"),
            ("prefill-tensor-parallel-size", "1"),
            ("prefill-tensor-parallel-size", "64"),
            ("kv-port", "1"),
            ("kv-port", "65535"),
        ],
    )
    def test_what_they_may_be(self, name, value):
        assert faults({name: value}) == []

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("prefill-threshold", "-1", '"-1" is not a number from 0 to 2147483647'),
            ("prefill-threshold", "2147483648", '"2147483648" is not a number from 0 to 2147483647'),
            ("prefill-threshold", "many", '"many" is not a number from 0 to 2147483647'),
            ("prefill-timeout", "9ms", '"9ms" is shorter than 10ms'),
            ("prefill-timeout", "0", '"0" is shorter than 10ms'),
            ("prefill-timeout", "141s", '"141s" is longer than 140s'),
            ("prefill-fallback", "none", '"none" must be one of "decode", "error"'),
            ("prefill-tensor-parallel-size", "0", '"0" is not a number from 1 to 64'),
            ("prefill-tensor-parallel-size", "65", '"65" is not a number from 1 to 64'),
            ("kv-port", "0", '"0" is not a port from 1 to 65535'),
            ("kv-port", "65536", '"65536" is not a port from 1 to 65535'),
        ],
    )
    def test_what_they_can_not_be(self, name, value, message):
        assert faults({name: value}) == [f"{at(name)}: {message}"]

    def test_a_timeout_without_unit(self):
        (line,) = faults({"prefill-timeout": "30"})

        assert line.startswith(f"{at('prefill-timeout')}: '30' is not a duration; write it with units")

    @pytest.mark.parametrize(
        ("kind", "engine", "name", "value"),
        [
            *((kind, "vLLM", "kv-port", "1") for kind in ("http", "lmcache", "nixl", "sidecar")),
            *((kind, "vLLM", "prefill-tensor-parallel-size", "2") for kind in TYPES if kind != "nixl-push"),
            ("http", "SGLang", "prefill-tensor-parallel-size", "2"),
            ("sidecar", "vLLM", "prefill-timeout", "1s"),
            ("sidecar", "vLLM", "prefill-fallback", "error"),
            ("sidecar", "SGLang", "prefill-timeout", "1s"),
            ("http", "SGLang", "prefill-threshold", "1"),
            ("http", "SGLang", "prefill-fallback", "error"),
        ],
    )
    def test_one_that_means_nothing_to_the_connector_is_refused(self, kind, engine, name, value):
        named = connector(engine, KvConnector(kind))

        assert faults({name: value}, engine=engine, kind=kind) == [
            f"{at(name)}: has no effect with the connector {named}; remove it"
        ]

    def test_ranks_cannot_push(self):
        assert faults({"data-parallel-size": "2"}) == [
            f"{at('data-parallel-size')}: the connector nixl-push cannot tell the ranks of a pod apart; "
            "use nixl, or one rank per pod"
        ]
        assert faults({"data-parallel-size": "1"}) == []

    def test_a_sidecar_knows_no_ranks(self):
        (fault,) = faults({"data-parallel-size": "2"}, kind="sidecar")
        assert "a sidecar is not told the rank" in fault

    @pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("nixl-push", "sidecar")])
    def test_ranks_may_do_anything_else(self, kind):
        assert faults({"data-parallel-size": "2"}, kind=kind) == []

    def test_two_waits_fit_the_longest_decision(self):
        assert TRIES * seconds(LONGEST_TIMEOUT) < LONGEST_DECISION_S


class TestRecord:
    @pytest.mark.parametrize("name", ["http", "sglang", "nixl-push"])
    def test_without_annotations_all_is_default(self, name):
        assert record(name, {}) == Disaggregation(name)

    def test_what_annotations_say(self):
        given = {
            "kvoy.io/prefill-threshold": "2147483647",
            "kvoy.io/prefill-timeout": "1m",
            "kvoy.io/prefill-fallback": "error",
            "kvoy.io/prefill-tensor-parallel-size": "8",
        }

        assert record("nixl-push", given) == Disaggregation("nixl-push", 2147483647, 60.0, False, 8)


class TestKvPort:
    @pytest.mark.parametrize(("name", "port"), [("nixl-push", 5600), ("mooncake", 8998), ("sglang", 8998)])
    def test_the_default_is_the_connectors(self, name, port):
        assert kv_port(name) == kv_port(name, {}, {"kvoy.io/port": "1"}) == port

    def test_the_first_object_that_says_it_decides(self):
        pod, server = {"kvoy.io/kv-port": "1"}, {"kvoy.io/kv-port": "2"}

        assert kv_port("mooncake", pod, server) == 1
        assert kv_port("mooncake", {}, server) == 2

    @pytest.mark.parametrize("name", ["http", "lmcache", "nixl", "sidecar"])
    def test_a_connector_that_needs_none_has_none(self, name):
        assert kv_port(name, {"kvoy.io/kv-port": "1"}) == 0
