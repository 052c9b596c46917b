import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert (
        fault.message
        == "unknown annotation; a Pod may carry one of kvoy.io/port, kvoy.io/kv-port, kvoy.io/kv-engine-id"
    )


def test_a_kind_without_annotations_says_so():
    (fault,) = annotations.unknown("ModelRoute", {"kvoy.io/port": "1"})

    assert fault.message == "unknown annotation; a ModelRoute may carry none"


@pytest.mark.parametrize(("carried", "faults"), [({}, 0), ({"a": "x"}, 0), ({"a": "X"}, 1), ({"a": ""}, 1)])
def test_one_of_a_few_values(carried, faults):
    assert len(list(annotations.one_of(carried, "a", ("x", "y")))) == faults


@pytest.mark.parametrize("text", ["0", "1", "9", "10", "2147483647"])
def test_a_whole_number_within_bounds(text):
    assert annotations.is_number(text, 0, 2**31 - 1)
    assert list(annotations.number({"a": text}, "a", 0, 2**31 - 1)) == []


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "01", "1.0", "1 ", "1\n", "٣", "1e3", "2147483648", "9" * 5000]
)
def test_anything_else_is_no_number(text):
    (fault,) = annotations.number({"a": text}, "a", 0, 2**31 - 1)

    assert fault.field == 'metadata.annotations["a"]'
    assert fault.message.endswith("is not a number from 0 to 2147483647")


@given(st.text() | st.integers().map(str), st.integers(0, 99), st.integers(0, 10**10))
def test_what_is_a_number_reads_as_one_within_the_bounds(text, least, most):
    if annotations.is_number(text, least, most):
        assert least <= int(text) <= most
        assert str(int(text)) == text


@pytest.mark.parametrize(("text", "faults"), [("1", 0), ("65535", 0), ("0", 1), ("65536", 1), ("http", 1)])
def test_ports(text, faults):
    found = [fault.message for fault in annotations.port({"a": text}, "a")]

    assert found == [f'"{text}" is not a port from 1 to 65535'] * faults
    assert list(annotations.port({}, "a")) == []
