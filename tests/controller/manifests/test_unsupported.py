import pytest

from controller.manifests.reader import read_file
from controller.manifests.unsupported import REFUSED

ROUTE = """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec:
  modelName: chat
  rules: [{targetModels: [{modelServerName: pool}]}]
"""

REFUSALS = {
    ("ModelRoute", "spec.rateLimit"): (
        ROUTE + "  rateLimit: {inputTokensPerUnit: 10, unit: minute}\n",
        "spec.rateLimit: token limits are not supported yet; remove this field",
    ),
    ("ModelRoute", "spec.parentRefs"): (
        ROUTE + "  parentRefs: [{name: gateway}]\n",
        "spec.parentRefs: attaching to a Gateway is not supported yet; remove this field: "
        "the route then applies to every request",
    ),
    ("ModelRoute", "spec.rules[].targetModels[].externalModelProviderName"): (
        ROUTE.replace(
            "{modelServerName: pool}", "{modelServerName: pool, externalModelProviderName: openai}"
        ),
        "spec.rules[0].targetModels[0].externalModelProviderName: external model providers are not "
        "supported yet; name a ModelServer in modelServerName",
    ),
}


def test_every_refused_field_is_tested_here():
    assert set(REFUSALS) == {(kind, path) for kind, paths in REFUSED.items() for path in paths}


@pytest.mark.parametrize(("text", "expected"), REFUSALS.values(), ids=[path for _, path in REFUSALS])
def test_a_field_without_effect_is_refused_with_what_to_do(text, expected):
    (problem,) = read_file("m.yaml", text.encode()).problems

    assert f"{problem.field}: {problem.message}" == expected
