from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.compile import compile_records
from controller.manifests.reader import Reader
from extproc.state.records import (
    Disaggregation,
    Member,
    ModelRoute,
    ModelServer,
    Plugin,
    Pod,
    Profile,
    Rule,
    Scheduler,
    StringMatch,
    Target,
)

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"

ROUTE = """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec: {modelName: chat, rules: [{targetModels: [{modelServerName: pool}]}]}
"""
SERVER = """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: pool}
spec: {inferenceEngine: vLLM, workloadPort: {port: 8000}, workloadSelector: {matchLabels: {app: pool}}}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: pool}}
status: {podIP: 10.0.0.1}
"""


def compiled(*texts, **files):
    named = {f"{at}.yaml": text for at, text in enumerate(texts)}
    named |= {f"{name}.yaml": text for name, text in files.items()}
    return compile_records(Reader().read({name: text.encode() for name, text in named.items()}))


def problems(*texts, **files):
    found = compiled(*texts, **files)
    assert found.records == {}
    return [str(problem) for problem in found.problems]


def test_the_quickstart():
    files = {file.name: file.read_bytes() for file in QUICKSTART.glob("*.yaml")}

    compilation = compile_records(Reader().read(files))

    assert (compilation.problems, compilation.skipped) == ((), ())
    big, small = "deepseek-r1-7b", "deepseek-r1-1-5b"
    expected = [
        Pod("default", f"{small}-0", "127.0.0.12", (small,)),
        Pod("default", f"{small}-1", "127.0.0.13", (small,)),
        Pod("default", f"{big}-0", "127.0.0.11", (big,)),
        ModelRoute(
            "default",
            "deepseek-multi-models",
            model="deepseek-multi-models",
            rules=(
                Rule((Target(big),), "premium", {"user-type": StringMatch(exact="premium")}),
                Rule((Target(small),), "default"),
            ),
        ),
        ModelServer(
            "default", small, "vLLM", 8000, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", timeout_s=10.0
        ),
        ModelServer("default", big, "vLLM", 8000, "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", timeout_s=10.0),
    ]
    assert list(compilation.records.values()) == expected
    assert list(compilation.records) == [record.key for record in expected]


def test_a_pod_belongs_to_every_server_of_its_namespace_that_selects_it():
    second = SERVER.replace("name: pool", "name: also")
    elsewhere = SERVER.replace("{name: pool}", "{name: pool, namespace: team}")

    records = compiled(SERVER, second, elsewhere, POD).records

    assert records["pod/default/a"].servers == ("also", "pool")


def test_a_pod_that_no_server_selects_is_left_out():
    assert list(compiled(SERVER, POD.replace("app: pool", "app: other")).records) == ["server/default/pool"]


def test_a_pod_that_is_not_routable_is_left_out():
    assert list(compiled(SERVER, POD.replace("podIP", "phase: Pending, podIP")).records) == [
        "server/default/pool"
    ]


def test_a_target_that_does_not_exist():
    assert problems(routes=ROUTE) == [
        "routes.yaml: ModelRoute default/chat: spec.rules[0].targetModels[0].modelServerName: "
        'no ModelServer "pool" in namespace "default"; create it or fix the name'
    ]


def test_a_target_is_looked_for_in_the_namespace_of_its_route():
    assert len(problems(ROUTE.replace("{name: chat}", "{name: chat, namespace: team}"), SERVER)) == 1


def test_a_target_with_problems_of_its_own_is_not_missing():
    broken = SERVER.replace("port: 8000", "port: 0")

    (problem,) = problems(ROUTE, broken)

    assert "spec.workloadPort.port" in problem


def test_a_target_that_may_be_in_an_unreadable_file_is_not_missing():
    (problem,) = problems(ROUTE, "a: [")

    assert problem.startswith("1.yaml: is not valid YAML")


def test_the_same_object_in_two_files():
    assert problems(b=SERVER, a=SERVER) == [
        "b.yaml: ModelServer default/pool: is also in a.yaml; remove one of them"
    ]


def test_the_same_object_twice_in_one_file():
    assert problems(a=f"{POD}---{POD}") == [
        "a.yaml: Pod default/a: is in this file twice; remove one of them"
    ]


def test_one_name_in_two_namespaces_is_two_objects():
    team = SERVER.replace("{name: pool}", "{name: pool, namespace: team}")

    assert list(compiled(SERVER, team).records) == ["server/default/pool", "server/team/pool"]


def test_two_pods_of_a_server_behind_one_address():
    assert problems(SERVER, POD, POD.replace("name: a", "name: b")) == [
        "2.yaml: Pod default/b: status.podIP: 10.0.0.1:8000 is also the address of Pod default/a; "
        "give one of them another IP or port"
    ]


def test_two_pods_behind_one_ip_but_two_ports():
    second = POD.replace("{name: a,", "{name: b, annotations: {kvoy.io/port: '9000'},")

    assert len(compiled(SERVER, POD, second).records) == 3


def test_every_problem_of_every_file_is_reported_in_order_of_files():
    found = problems(
        a=ROUTE.replace("targetModels", "targets"),
        b=SERVER.replace("vLLM", "TGI") + "---" + POD.replace("10.0.0.1", "here"),
        c="x: 1",
        d=POD,
    )

    assert [line.partition(":")[0] for line in found] == [
        "a.yaml",
        "a.yaml",
        "b.yaml",
        "b.yaml",
        "c.yaml",
        "d.yaml",
    ]


def test_skipped_kinds_are_passed_on_with_and_without_problems():
    service = "apiVersion: v1\nkind: Service\n"

    assert compiled(service).skipped == ("Service (v1)",)
    assert compiled(service, "x: 1").skipped == ("Service (v1)",)


def test_nothing_compiles_to_nothing():
    assert compiled().records == {}


@given(st.permutations(["a", "b", "c"]))
def test_the_result_does_not_depend_on_which_file_holds_what(names):
    one, two, three = names

    assert compiled(**{one: ROUTE, two: SERVER, three: POD}) == compiled(ROUTE, SERVER, POD)


@pytest.mark.parametrize("name", ["chat", "pool", "a"])
def test_keys_are_those_of_the_records(name):
    for key, record in compiled(ROUTE, SERVER, POD).records.items():
        assert key == record.key


SCHEDULER = "scheduler: {plugins: {Score: {enabled: [{name: gpu-usage}]}}}"
CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: router}
data:
  routerConfiguration: |
    scheduler: {plugins: {Score: {enabled: [{name: random}]}}}
"""


def test_a_scheduler_configuration_holds_for_all_servers():
    found = compiled(ROUTE, SERVER, POD, SCHEDULER)

    assert found.problems == ()
    assert found.records["scheduler/default"] == Scheduler(Profile((), (Plugin("gpu-usage"),)))
    assert "scheduler/default" not in compiled(ROUTE, SERVER, POD).records


def test_the_config_map_of_kthenas_chart_is_one_and_others_are_skipped():
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {a: b}\n"

    found = compiled(CONFIG_MAP, other)

    assert found.records == {"scheduler/default": Scheduler(Profile((), (Plugin("random"),)))}
    assert found.skipped == ("ConfigMap (v1)",)


def test_two_scheduler_configurations_are_a_problem_that_names_both():
    assert problems(first=SCHEDULER, second=CONFIG_MAP) == [
        "second.yaml: Scheduler: is also in first.yaml; remove one of them"
    ]
    assert problems(only=f"{SCHEDULER}\n---\n{SCHEDULER}") == [
        "only.yaml: Scheduler: is in this file twice; remove one of them"
    ]


def test_a_fault_in_a_scheduler_configuration_stops_all_and_says_where():
    (line,) = problems(ROUTE, SERVER, POD, schedule=SCHEDULER.replace("gpu-usage", "gpu"))
    assert line.startswith("schedule.yaml: Scheduler: scheduler.plugins.Score.enabled[0].name: no plugin is")

    (line,) = problems(map=CONFIG_MAP.replace("random", "rnd"))
    assert line.startswith(
        "map.yaml: Scheduler: data.routerConfiguration: scheduler.plugins.Score.enabled[0]"
    )

    (line,) = problems(map=CONFIG_MAP.replace("scheduler:", "["))
    assert line.startswith("map.yaml: Scheduler: data.routerConfiguration: is not valid YAML")


def test_a_server_may_have_a_profile_of_its_own():
    annotated = SERVER.replace(
        "{name: pool}", "{name: pool, annotations: {kvoy.io/scheduler: 'plugins: {Score: {enabled: []}}'}}"
    )

    found = compiled(ROUTE, annotated, POD, SCHEDULER)

    assert found.records["server/default/pool"].profile == Profile((), ())


APART = """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata:
  name: apart
  ownerReferences: [{kind: ModelBooster, name: qwen, uid: 6b0f}]
spec:
  inferenceEngine: vLLM
  model: Qwen/Qwen3-8B
  workloadPort: {port: 8000}
  workloadSelector:
    matchLabels: {modelserving.volcano.sh/name: qwen}
    pdGroup:
      groupKey: modelserving.volcano.sh/group-name
      prefillLabels: {modelserving.volcano.sh/role: prefill}
      decodeLabels: {modelserving.volcano.sh/role: decode}
  kvConnector: {type: mooncake}
  trafficPolicy: {timeout: 10s}
"""


def of_group(name, role, ip, group="qwen-0", annotations=""):
    return f"""
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations: {{{annotations}}}
  labels:
    modelserving.volcano.sh/name: qwen
    modelserving.volcano.sh/group-name: {group}
    modelserving.volcano.sh/role: {role}
status: {{podIP: {ip}, conditions: [{{type: Ready, status: "True"}}]}}
"""


def test_prefill_and_decode_apart_as_kthena_writes_it():
    own = "kvoy.io/kv-port: '8999', kvoy.io/kv-engine-id: e-1"

    found = compiled(
        APART,
        of_group("p", "prefill", "10.0.0.1"),
        of_group("q", "prefill", "10.0.0.2", annotations=own),
        of_group("d", "decode", "10.0.0.3"),
    )

    assert (found.problems, found.notes) == ((), ())
    assert found.records["server/default/apart"].disaggregation == Disaggregation("mooncake")
    assert [found.records[f"pod/default/{name}"] for name in "pqd"] == [
        Pod("default", "p", "10.0.0.1", ("apart",), members={"apart": Member("prefill", "qwen-0", 8998)}),
        Pod(
            "default",
            "q",
            "10.0.0.2",
            ("apart",),
            members={"apart": Member("prefill", "qwen-0", 8999)},
            kv_engine="e-1",
        ),
        Pod("default", "d", "10.0.0.3", ("apart",), members={"apart": Member("decode", "qwen-0")}),
    ]


def test_a_pod_without_a_part_is_left_out_and_noted():
    found = compiled(APART, of_group("p", "router", "10.0.0.1"))

    assert list(found.records) == ["server/default/apart"]
    assert found.notes == (
        "Pod default/p does nothing for ModelServer default/apart: "
        "it matches neither prefillLabels nor decodeLabels",
    )


def test_a_pod_that_is_not_ready_leaves_its_group_incomplete_and_is_not_noted_itself():
    away = of_group("d", "decode", "10.0.0.2").replace('"True"', '"False"')
    lost = of_group("x", "router", "10.0.0.3").replace('"True"', '"False"')

    found = compiled(APART, of_group("p", "prefill", "10.0.0.1"), away, lost)

    assert found.notes == ('group "qwen-0" of ModelServer default/apart has no ready decode pod',)


@pytest.mark.parametrize("ready", ['"True"', '"False"'])
def test_a_pod_of_both_roles_is_a_problem_even_before_it_is_ready(ready):
    both = APART.replace("{modelserving.volcano.sh/role: decode}", "{decodes: 'yes'}")
    pod = of_group("p", "prefill\n    decodes: 'yes'", "10.0.0.1").replace('"True"', ready)

    assert problems(both, pod) == [
        "1.yaml: Pod default/p: metadata.labels: match prefillLabels and decodeLabels of ModelServer "
        "default/apart; change one of them"
    ]


def test_a_connector_without_groups_is_noted():
    found = compiled(SERVER.replace("vLLM,", "vLLM, kvConnector: {},"))

    assert found.problems == ()
    assert found.notes == (
        "spec.kvConnector of ModelServer default/pool has no effect without spec.workloadSelector.pdGroup",
    )


def test_there_are_no_notes_beside_problems():
    assert compiled(APART, of_group("p", "prefill", "10.0.0.1"), "x: 1").notes == ()


def test_a_prefill_and_a_decode_pod_of_one_server_need_different_addresses():
    pods = (of_group("p", "prefill", "10.0.0.1"), of_group("d", "decode", "10.0.0.1"))

    (line,) = problems(APART, *pods)

    assert "10.0.0.1:8000 is also the address of Pod default/p" in line


@given(st.permutations(["a", "b", "c", "d"]))
def test_notes_do_not_depend_on_which_file_holds_what(names):
    idle = [of_group(name, "router", f"10.0.0.{at}") for at, name in enumerate("xyz", 1)]
    texts = [APART, *idle]

    found = compiled(**dict(zip(names, texts, strict=True)))

    assert len(found.notes) == 3
    assert found == compiled(*texts)
