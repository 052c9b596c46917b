import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests.reader import read_file
from controller.manifests.scheduler import is_scheduler, read, read_text
from extproc.schedule.catalogue import CATALOGUE
from extproc.schedule.scheduler import Scheduler
from extproc.state import records
from extproc.state.records import Plugin, Profile

EXAMPLES = Path(__file__).parents[3] / "examples" / "scheduler"

HELM = Profile(
    (Plugin("least-request", {"maxWaitingRequests": 10}),),
    (
        Plugin("least-request", {"maxWaitingRequests": 10}),
        Plugin("gpu-usage"),
        Plugin("least-latency", {"TTFTTPOTWeightFactor": 0.5}),
        Plugin(
            "prefix-cache",
            {"blockSizeToHash": 64, "maxBlocksToMatch": 128, "maxHashCacheSize": 50000, "topKMatches": 5},
        ),
    ),
)

HELM_CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: kthena-router-config
  namespace: kthena-system
  labels:
    app.kubernetes.io/component: kthena-router
data:
  routerConfiguration: |-
    scheduler:
      pluginConfig:
      - name: least-request
        args:
          maxWaitingRequests: 10
      - name: least-latency
        args:
          TTFTTPOTWeightFactor: 0.5
      - name: prefix-cache
        args:
          blockSizeToHash: 64
          maxBlocksToMatch: 128
          maxHashCacheSize: 50000
          topKMatches: 5
      plugins:
        Filter:
          enabled:
            - least-request
          disabled:
            - lora-affinity
        Score:
          enabled:
            - name: least-request
              weight: 1
            - name: gpu-usage
              weight: 1
            - name: least-latency
              weight: 1
            - name: prefix-cache
              weight: 1
    sessionSticky:
      backend: "memory"
"""


def profile_of(scheduler):
    view, faults = read({"scheduler": scheduler})
    assert faults == ()
    return view.record().profile


def faults_of(document):
    return [f"{fault.field}: {fault.message}" for fault in read(document)[1]]


def scored(*enabled, disabled=(), config=()):
    scores = {"enabled": list(enabled), "disabled": [{"name": name} for name in disabled]}
    return {"pluginConfig": list(config), "plugins": {"Score": scores}}


def test_kthenas_file_is_taken_as_it_is():
    reading = read_file("scheduler.yaml", (EXAMPLES / "scheduler.yaml").read_bytes())

    assert reading.problems == ()
    assert [found.view.record() for found in reading.objects] == [records.Scheduler(HELM)]
    Scheduler.of(HELM)


def test_so_is_the_config_map_of_its_chart():
    reading = read_file("m.yaml", HELM_CONFIG_MAP.encode())

    assert reading.problems == reading.skipped == ()
    assert [found.view.record() for found in reading.objects] == [records.Scheduler(HELM)]


@pytest.mark.parametrize("document", [{"scheduler": {}}, {"scheduler": None}, {"auth": {}}, {"auth": None}])
def test_an_empty_document_is_the_default(document):
    assert is_scheduler(document)
    view, faults = read(document)
    assert faults == ()
    assert view.record() == records.Scheduler(Profile())


@pytest.mark.parametrize(
    ("scheduler", "scorers"),
    [
        (scored({"name": "gpu-usage"}), [("gpu-usage", 1.0)]),
        (scored({"name": "gpu-usage", "weight": 2.5}), [("gpu-usage", 2.5)]),
        (scored({"name": "gpu-usage", "weight": 0}, {"name": "lmetric", "weight": 3}), [("lmetric", 3.0)]),
        (scored({"name": "gpu-usage"}, {"name": "lmetric"}, disabled=["lmetric"]), [("gpu-usage", 1.0)]),
        (scored({"name": "random"}), [("random", 1.0)]),
        (scored({"name": "random"}, {"name": "gpu-usage"}), [("gpu-usage", 1.0)]),
        (scored({"name": "random"}, {"name": "gpu-usage", "weight": 0}), [("random", 1.0)]),
        (scored(), []),
        ({"plugins": {"Score": {"disabled": [{"name": "gpu-usage"}]}}}, [("lmetric", 1.0)]),
        ({"plugins": {"Score": {"disabled": [{"name": "lmetric"}]}}}, []),
    ],
)
def test_what_is_enabled_weighed_and_disabled(scheduler, scorers):
    assert [(plugin.name, plugin.weight) for plugin in profile_of(scheduler).scorers] == scorers


def test_disabled_screens_do_not_apply():
    both = ["least-request", "lora-affinity"]
    filters = {"enabled": both, "disabled": ["least-request"]}

    assert profile_of({"plugins": {"Filter": {"enabled": both}}}).screens == (
        Plugin(both[0]),
        Plugin(both[1]),
    )
    assert profile_of({"plugins": {"Filter": filters}}).screens == (Plugin("lora-affinity"),)


def test_arguments_reach_the_plugin_wherever_it_is_enabled():
    config = [{"name": "lmetric", "args": {"exact": True}}, {"name": "gpu-usage", "args": None}]

    assert profile_of({"pluginConfig": config}).scorers == (Plugin("lmetric", {"exact": True}),)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (
            scored({"name": "gpu-usage"}, {"name": "gpu-usge"}),
            'scheduler.plugins.Score.enabled[1].name: no plugin is called "gpu-usge"; '
            'did you mean "gpu-usage"?',
        ),
        (
            scored({"name": "zzz"}),
            'scheduler.plugins.Score.enabled[0].name: no plugin is called "zzz"; there are gpu-usage, '
            "kvcache-aware, least-latency, least-request, lmetric, prefix-cache, random",
        ),
        (
            scored({"name": "lora-affinity"}),
            'scheduler.plugins.Score.enabled[0].name: "lora-affinity" is not for Score; '
            "list it under plugins.Filter",
        ),
        (
            {"plugins": {"Filter": {"enabled": ["gpu-usage"]}}},
            'scheduler.plugins.Filter.enabled[0]: "gpu-usage" is not for Filter; list it under plugins.Score',
        ),
        (
            scored({"name": "gpu-usage"}, {"name": "gpu-usage"}),
            'scheduler.plugins.Score.enabled[1].name: "gpu-usage" is listed twice; remove one of them',
        ),
        (
            scored({"name": "gpu-usage", "weight": -1}),
            "scheduler.plugins.Score.enabled[0].weight: -1.0 is not a number from 0 to 1000000",
        ),
        (
            scored({"name": "gpu-usage", "weight": float("nan")}),
            "scheduler.plugins.Score.enabled[0].weight: NaN is not a number from 0 to 1000000",
        ),
        (
            scored({"name": "gpu-usage", "weight": float("inf")}),
            "scheduler.plugins.Score.enabled[0].weight: Infinity is not a number from 0 to 1000000",
        ),
        (
            scored({"name": "gpu-usage", "weight": "1"}),
            'scheduler.plugins.Score.enabled[0].weight: expected a number, got "1"',
        ),
        (
            scored(disabled=["lmetrik"]),
            'scheduler.plugins.Score.disabled[0].name: no plugin is called "lmetrik"; '
            'did you mean "lmetric"?',
        ),
        (
            {"plugins": {"Filter": {"disabled": ["x"]}}},
            'scheduler.plugins.Filter.disabled[0]: no plugin is called "x"; there are least-request, '
            "lora-affinity",
        ),
        (
            scored(config=[{"name": "prefix"}]),
            'scheduler.pluginConfig[0].name: no plugin is called "prefix"; did you mean "prefix-cache"?',
        ),
        (
            scored(config=[{"name": "lmetric"}, {"name": "lmetric"}]),
            'scheduler.pluginConfig[1].name: "lmetric" is configured twice; join its arguments',
        ),
        (
            scored(config=[{"name": "least-request", "args": {"maxWaitingRequest": 3}}]),
            "scheduler.pluginConfig[0].args.maxWaitingRequest: unknown field; "
            'did you mean "maxWaitingRequests"?',
        ),
        (
            scored(config=[{"name": "least-request", "args": {"maxWaitingRequests": 0}}]),
            "scheduler.pluginConfig[0].args.maxWaitingRequests: expected an integer from 1 to 2147483647, "
            "got 0",
        ),
        (
            scored(config=[{"name": "least-latency", "args": {"TTFTTPOTWeightFactor": 2}}]),
            "scheduler.pluginConfig[0].args.TTFTTPOTWeightFactor: expected a number from 0 to 1, got 2",
        ),
        (
            scored(config=[{"name": "lmetric", "args": {"exact": "yes"}}]),
            'scheduler.pluginConfig[0].args.exact: expected true or false, got "yes"',
        ),
        (
            scored(config=[{"name": "prefix-cache", "args": {"maxHashCacheSize": 1}}]),
            "scheduler.pluginConfig[0].args.maxHashCacheSize: has no effect, as the index remembers of each "
            "engine what its own cache can hold; remove it (only Kthena's default, 50000, is taken)",
        ),
        (
            {"plugins": {"Filters": {}}},
            'scheduler.plugins.Filters: unknown field; did you mean "Filter"?',
        ),
    ],
)
def test_what_a_scheduler_can_not_be(document, fault):
    assert faults_of({"scheduler": document}) == [fault]


def test_all_faults_are_told_at_once():
    document = {
        "scheduler": {
            "pluginConfig": [{"name": "least-latency", "args": {"TTFTTPOTWeightFactor": -1, "x": 1}}],
            "plugins": {
                "Filter": {"enabled": ["random"]},
                "Score": {"enabled": [{"name": "y", "weight": -1}]},
            },
        },
        "auth": {"issuer": "https://issuer", "audiences": ["a"], "jwksUri": "https://keys"},
    }

    assert [fault.partition(":")[0] for fault in faults_of(document)] == [
        "auth.issuer",
        "auth.audiences",
        "auth.jwksUri",
        "scheduler.pluginConfig[0].args.x",
        "scheduler.pluginConfig[0].args.TTFTTPOTWeightFactor",
        "scheduler.plugins.Filter.enabled[0]",
        "scheduler.plugins.Score.enabled[0].name",
        "scheduler.plugins.Score.enabled[0].weight",
    ]


def test_authentication_is_not_ignored():
    assert faults_of({"auth": {"issuer": "", "audiences": [], "jwksUri": ""}}) == []
    assert faults_of({"auth": {"issuer": "https://issuer"}}) == [
        "auth.issuer: kvoy does not check tokens yet; remove it"
    ]
    assert faults_of({"auth": {"realm": "x"}}) == ["auth.realm: unknown field; remove it"]


def test_sessions_are_kept_nowhere():
    assert faults_of({"scheduler": {}, "sessionSticky": {"backend": "redis"}}) == [
        'sessionSticky.backend: expected one of "memory", got "redis"'
    ]


def test_what_is_no_scheduler_configuration():
    assert not is_scheduler({"apiVersion": "v1", "kind": "Pod", "scheduler": {}})
    assert not is_scheduler({"kind": "Pod", "auth": {}})
    assert not is_scheduler({"plugins": {}})


def test_text_holds_the_file_or_its_section():
    section = "plugins: {Score: {enabled: [{name: gpu-usage}]}}"
    expected = Profile((), (Plugin("gpu-usage"),))

    for text in (section, f"scheduler: {{{section}}}"):
        view, faults = read_text(text)
        assert (faults, view.scheduler.profile()) == ((), expected)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("plugins: {Score: {enabled: [{name: gpu}]}}", "plugins.Score.enabled[0].name: no plugin is called"),
        ("auth: {issuer: x}", "auth.issuer: kvoy does not check tokens yet"),
        ("scheduler: {plugin: 1}", "scheduler.plugin: unknown field"),
        ("[", ": is not valid YAML"),
        ("", ": is empty"),
        ("# nothing", ": holds 0 documents; one is expected"),
        ("a: 1\n---\nb: 2", ": holds 2 documents; one is expected"),
        ("text", ': expected an object, got "text"'),
        ("plugins: \ud800", ": is not UTF-8"),
    ],
)
def test_what_text_can_not_be(text, fault):
    _, (found,) = read_text(text)

    assert f"{found.field}: {found.message}".startswith(fault)


words = st.sampled_from(
    ["scheduler", "auth", "pluginConfig", "plugins", "Filter", "Score", "enabled", "disabled", "name", "args"]
) | st.sampled_from(["weight", "issuer", "maxWaitingRequests", "exact", *CATALOGUE])
values = st.recursive(
    words | st.none() | st.integers() | st.floats() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=40,
)


@given(st.dictionaries(words, values, max_size=4) | values)
def test_any_document_is_a_profile_that_works_or_a_list_of_faults(document):
    view, faults = read(document)

    assert all(fault.message for fault in faults)
    if not faults:
        profile = view.record().profile
        assert records.decode_record(records.encode(view.record())) == view.record()
        Scheduler.of(profile)


arguments = st.dictionaries(st.sampled_from(["maxWaitingRequests", "exact"]), values, max_size=2)
configs = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(sorted(CATALOGUE))},
        optional={
            "args": st.dictionaries(st.sampled_from(["maxWaitingRequests", "exact"]), values, max_size=2)
        },
    ),
    max_size=3,
)


@given(configs, st.lists(st.sampled_from(sorted(CATALOGUE)), max_size=4))
def test_what_is_taken_can_be_stored_and_run(config, names):
    document = scored(*[{"name": name} for name in names], config=config)

    view, faults = read({"scheduler": document})

    if not faults:
        record = records.decode_record(records.encode(view.record()))
        Scheduler.of(record.profile)


def test_any_text_is_read():
    for text in ("&a [*a]", "!!python/object x", "\x00", "{" * 200, json.dumps({"scheduler": []})):
        assert read_text(text)[1], text


def test_the_example_of_a_server_of_its_own():
    reading = read_file("m.yaml", (EXAMPLES / "modelserver.yaml").read_bytes())

    (found,) = reading.objects
    assert reading.problems == ()
    profile = found.view.record().profile
    assert [plugin.name for plugin in profile.screens] == ["least-request", "lora-affinity"]
    assert Scheduler.of(profile).wants_exact
