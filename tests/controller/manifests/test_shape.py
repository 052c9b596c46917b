from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests.modelroute import ModelRoute
from controller.manifests.problem import Fault
from controller.manifests.shape import convert, quoted


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    inch_size: Annotated[int, msgspec.Meta(ge=10, le=29)] = 28


class Bike(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    owner: Annotated[str, msgspec.Meta(max_length=5, examples=["ann"])]
    wheels: Annotated[list[Wheel], msgspec.Meta(min_length=1, max_length=2)] = []
    colour: Literal["red", "blue"] = "red"
    bags: dict[str, Wheel] = {}
    front: Wheel | None = None
    grams: Annotated[float, msgspec.Meta(ge=0)] = 9000.0
    lit: bool = False


class Anything(msgspec.Struct, frozen=True):
    name: str = ""


def shape(value, view=Bike, refused=None):
    built, faults = convert(value, view, refused or {})
    return built, [(fault.field, fault.message) for fault in faults]


def test_a_good_value_becomes_the_view():
    built, faults = shape(
        {"owner": "ann", "wheels": [{"inchSize": 20}], "bags": {"left": {}}, "colour": "blue"}
    )

    assert faults == []
    assert built == Bike("ann", [Wheel(20)], "blue", {"left": Wheel()})


def test_null_counts_as_absent():
    built, faults = shape({"owner": "ann", "wheels": None, "front": None, "colour": None})

    assert (built, faults) == (Bike("ann"), [])


def test_null_for_a_required_field_is_a_missing_field():
    assert shape({"owner": None}) == (None, [("owner", "this required field is missing")])


def test_every_fault_is_found_each_with_its_path():
    built, faults = shape(
        {
            "wheels": [{"inchSize": 9}, {"inchsize": 20}, 5],
            "colour": "green",
            "bags": {"left bag": [], "right": {"inchSize": "20"}},
            "front": {"inchSize": True},
            "grams": "heavy",
            "lit": 1,
        }
    )

    assert built is None
    assert sorted(faults) == sorted(
        [
            ("owner", "this required field is missing"),
            ("wheels", "has 3 entries; 1 to 2 are allowed"),
            ("wheels[0].inchSize", "expected an integer from 10 to 29, got 9"),
            ("wheels[1].inchsize", 'unknown field; did you mean "inchSize"?'),
            ("wheels[2]", "expected an object, got 5"),
            ("colour", 'expected one of "red", "blue", got "green"'),
            ('bags["left bag"]', "expected an object, got a list"),
            ('bags["right"].inchSize', 'expected an integer from 10 to 29, got "20"'),
            ("front.inchSize", "expected an integer from 10 to 29, got true"),
            ("grams", 'expected a number of at least 0, got "heavy"'),
            ("lit", "expected true or false, got 1"),
        ]
    )


def test_an_unknown_field_without_a_near_name_is_to_be_removed_and_leaves_the_rest_usable():
    assert shape({"owner": "ann", "engine": 1}) == (Bike("ann"), [("engine", "unknown field; remove it")])


def test_a_refused_field_says_what_to_do_wherever_in_a_list_it_stands():
    refused = {"wheels[].spokes": "spokes are not supported yet"}

    _, faults = shape({"owner": "ann", "wheels": [{}, {"spokes": 3}]}, refused=refused)

    assert faults == [("wheels[1].spokes", "spokes are not supported yet")]


def test_a_view_may_leave_fields_to_others():
    assert shape({"name": "x", "more": [1]}, Anything) == (Anything("x"), [])


def test_keys_that_are_no_strings():
    _, faults = shape({"owner": "ann", 1: 2, "bags": {3: {}}})

    assert faults == [
        ("1", "unknown field; remove it"),
        ("bags[3]", "the key is not a string; put it in quotes"),
    ]


def test_a_constraint_on_a_string_is_described_with_an_example():
    message = 'expected a string of at most 5 characters such as "ann", got "annabel"'

    assert shape({"owner": "annabel"}) == (None, [("owner", message)])


def test_half_a_surrogate_pair_is_no_string():
    built, faults = shape({"owner": "\ud800", "bags": {"\udc00": {}}})

    assert built is None
    assert [field for field, _ in faults] == ["owner", 'bags["\\udc00"]']


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", '"plain"'),
        ("two\nlines", '"two\\nlines"'),
        ("\x9b31m", '"\\u009b31m"'),
        (None, "null"),
        ({}, "an object"),
        ([1], "a list"),
        ("x" * 1000, '"' + "x" * 55 + '..."'),
    ],
)
def test_values_are_quoted_short_and_on_one_line(value, expected):
    assert quoted(value) == expected


def test_an_integer_too_long_to_print_is_described():
    assert quoted(1 << 20_000) == "a huge integer"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=20,
)
named = st.sampled_from(
    ["metadata", "spec", "rules", "name", "modelMatch", "headers", "targetModels", "weight"]
)
nearly = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(named, inner, max_size=5),
    max_leaves=30,
)


@given(plain | nearly | st.dictionaries(named, nearly))
def test_any_value_gives_a_view_or_faults_and_nothing_else(value):
    built, faults = convert(value, ModelRoute, {})

    assert built is not None or faults
    assert all(isinstance(fault, Fault) and fault.message.isprintable() for fault in faults)
