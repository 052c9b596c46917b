import pytest

from controller.manifests.reader import read_file
from extproc.state.records import ModelRoute, Rule, StringMatch, Target

HEADER = """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: chat, namespace: team, creationTimestamp: "1970-01-01T00:01:00Z"}
spec:
"""


def record_of(spec):
    (found,) = read_file("m.yaml", (HEADER + spec).encode()).objects
    return found.view.record()


def problems_of(spec):
    problems = read_file("m.yaml", (HEADER + spec).encode()).problems
    assert {problem.object for problem in problems} <= {"ModelRoute team/chat"}
    return [f"{problem.field}: {problem.message}" for problem in problems]


def test_everything_a_route_can_say():
    record = record_of(
        """
  modelName: llama
  loraAdapters: [fr, de, fr]
  rules:
  - name: premium
    modelMatch:
      headers:
        User-Type: {exact: premium, prefix: p}
        x-region: {regex: "^eu-"}
      uri: {prefix: /v1/chat}
      body: {model: fr}
    targetModels:
    - {modelServerName: big, weight: 30}
    - {modelServerName: small, weight: 0}
  - targetModels: [{modelServerName: small}]
"""
    )

    assert record == ModelRoute(
        namespace="team",
        name="chat",
        model="llama",
        adapters=("fr", "de"),
        created=60.0,
        rules=(
            Rule(
                name="premium",
                headers={
                    "user-type": StringMatch(exact="premium", prefix="p"),
                    "x-region": StringMatch(regex="^eu-"),
                },
                uri=StringMatch(prefix="/v1/chat"),
                model="fr",
                targets=(Target("big", 30), Target("small", 0)),
            ),
            Rule(targets=(Target("small", 100),)),
        ),
    )


def test_a_route_may_serve_adapters_only():
    assert record_of("  loraAdapters: [fr]\n  rules: []\n").adapters == ("fr",)


def test_a_route_for_nothing_is_refused():
    assert problems_of("  rules: []\n") == [
        "spec.modelName: is empty, and so is spec.loraAdapters; give at least one of them"
    ]


TARGET = "{modelServerName: s}"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("  modelName: m\n", "spec.rules: this required field is missing"),
        (
            f"  modelName: m\n  rules: [{', '.join(['{targetModels: [' + TARGET + ']}'] * 17)}]\n",
            "spec.rules: has 17 entries; at most 16 are allowed",
        ),
        (
            f"  modelName: m\n  rules: [{{targetModels: [{', '.join([TARGET] * 17)}]}}]\n",
            "spec.rules[0].targetModels: has 17 entries; 1 to 16 are allowed",
        ),
        (
            "  modelName: m\n  rules: [{targetModels: []}]\n",
            "spec.rules[0].targetModels: has 0 entries; 1 to 16 are allowed",
        ),
        (
            "  modelName: m\n  rules: [{targetModels: [{}]}]\n",
            "spec.rules[0].targetModels[0].modelServerName: this required field is missing",
        ),
        (
            "  modelName: m\n  rules: [{targetModels: [{modelServerName: s, weight: 101}]}]\n",
            "spec.rules[0].targetModels[0].weight: expected an integer from 0 to 100, got 101",
        ),
        (
            f"  modelName: m\n  rules: []\n  loraAdapters: [{', '.join('abcdefghijk')}]\n",
            "spec.loraAdapters: has 11 entries; at most 10 are allowed",
        ),
        ("  modelName: m\n  rules: []\n  loraAdapters: ['']\n", "spec.loraAdapters[0]: is empty; remove it"),
        ("  modelName: 5\n  rules: []\n", "spec.modelName: expected a string, got 5"),
        ("  modelname: m\n  rules: []\n", 'spec.modelname: unknown field; did you mean "modelName"?'),
    ],
)
def test_limits_and_types(spec, problem):
    assert problem in problems_of(spec)


def rule_problems(match):
    return problems_of(f"  modelName: m\n  rules: [{{targetModels: [{TARGET}], modelMatch: {match}}}]\n")


@pytest.mark.parametrize(
    ("match", "problem"),
    [
        (
            '{headers: {user-type: {regex: "(a"}}}',
            'headers["user-type"].regex: "(a" is not an RE2 expression: missing ): (a',
        ),
        (
            '{uri: {regex: "(?=a)"}}',
            'uri.regex: "(?=a)" is not an RE2 expression: invalid perl operator: (?=',
        ),
        ('{uri: {regex: "(a{999}){999}"}}', "uri.regex: "),
        ("{headers: {'user type': {exact: a}}}", 'headers["user type"]: is not a header name'),
        ("{headers: {':path': {exact: a}}}", 'headers[":path"]: is not a header name'),
        ("{headers: {'': {exact: a}}}", 'headers[""]: is not a header name'),
        (
            "{headers: {X-Tier: {exact: a}, x-tier: {exact: b}}}",
            'headers["x-tier"]: is the same header as "X-Tier"; keep one of them',
        ),
        (
            "{headers: {X-Kvoy-Cluster: {exact: a}}}",
            'headers["X-Kvoy-Cluster"]: this header is removed from every request before routing',
        ),
        (
            "{headers: {x-gateway-destination-endpoint: {}}}",
            'headers["x-gateway-destination-endpoint"]: this header is removed',
        ),
        ("{headers: {a: {suffix: b}}}", 'headers["a"].suffix: unknown field; remove it'),
        ("{headers: {a: b}}", 'headers["a"]: expected an object, got "b"'),
        ("{headers: {a: null}}", 'headers["a"]: expected an object, got null'),
        ("{body: {model: [m]}}", "body.model: expected a string, got a list"),
    ],
)
def test_what_a_match_can_not_be(match, problem):
    (found,) = rule_problems(match)

    assert found.startswith(f"spec.rules[0].modelMatch.{problem}")


def test_an_empty_condition_holds_always_and_is_accepted():
    assert rule_problems("{headers: {a: {}}, uri: {}, body: {}}") == []


def test_unknown_fields_do_not_hide_other_faults():
    assert len(rule_problems('{uri: {regex: "("}, haeders: {}}')) == 2


def test_status_and_what_kubernetes_adds_are_accepted():
    assert record_of("  modelName: m\n  rules: []\nstatus: {ready: true}\n").model == "m"


def test_our_annotations_have_no_meaning_on_a_route():
    text = HEADER.replace("namespace: team", "namespace: team, annotations: {kvoy.io/port: '1'}")

    (problem,) = read_file("m.yaml", f"{text}  modelName: m\n  rules: []\n".encode()).problems

    assert problem.field == 'metadata.annotations["kvoy.io/port"]'
