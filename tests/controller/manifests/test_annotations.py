import pytest

from controller.manifests import annotations
from controller.manifests.kinds import KINDS


def test_every_kind_has_its_table_and_every_annotation_a_meaning():
    assert set(annotations.ANNOTATIONS) == {kind for _, kind in KINDS}
    for table in annotations.ANNOTATIONS.values():
        assert all(
            name.startswith(annotations.PREFIX) and meaning.endswith(".") for name, meaning in table.items()
        )


def test_an_unknown_annotation_under_our_prefix_names_the_known_ones():
    (fault,) = annotations.unknown("Pod", {"kvoy.io/prot": "1", "example.com/team": "x"})

    assert fault.field == 'metadata.annotations["kvoy.io/prot"]'
    assert fault.message == "unknown annotation; a Pod may carry one of kvoy.io/port"


def test_a_kind_without_annotations_says_so():
    (fault,) = annotations.unknown("ModelRoute", {"kvoy.io/port": "1"})

    assert fault.message == "unknown annotation; a ModelRoute may carry none"


@pytest.mark.parametrize(("given", "faults"), [({}, 0), ({"a": "x"}, 0), ({"a": "X"}, 1), ({"a": ""}, 1)])
def test_one_of_a_few_values(given, faults):
    assert len(list(annotations.one_of(given, "a", ("x", "y")))) == faults
