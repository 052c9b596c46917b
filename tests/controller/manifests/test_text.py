import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests import text
from controller.manifests.text import documents


def test_yaml_documents_are_split_and_empty_ones_left_out():
    assert documents("m.yaml", b"---\na: 1\n---\n# nothing\n---\n- 2\n") == [{"a": 1}, [2]]


def test_a_file_of_comments_holds_no_document():
    assert documents("m.yaml", b"# switched off\n") == []


def test_json_is_one_document():
    assert documents("m.json", b'{"a": [1, "\\ud83d\\ude00"]}') == [{"a": [1, "😀"]}]


def test_a_byte_order_mark_is_no_content():
    assert documents("m.yaml", b"\xef\xbb\xbfa: 1") == [{"a": 1}]


def test_times_stay_text_as_in_kubernetes():
    assert documents("m.yaml", b"at: 2026-01-02T03:04:05Z\non: 2026-01-02\n") == [
        {"at": "2026-01-02T03:04:05Z", True: "2026-01-02"}
    ]


def test_aliases_and_merge_keys_work():
    content = b"base: &b {app: x}\nuse: *b\nmore: {<<: *b, tier: 1}\n"

    assert documents("m.yaml", content) == [
        {"base": {"app": "x"}, "use": {"app": "x"}, "more": {"app": "x", "tier": 1}}
    ]


def bomb(levels=30):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def merge_bomb(levels=30):
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.yaml", b"", "is empty, as if half written"),
        ("m.json", b" \n", "is empty, as if half written"),
        ("m.yaml", b"#" * (text.MAX_BYTES + 1), "is larger than 4 MiB"),
        ("m.yaml", b"a: \xff", "is not UTF-8: byte 3 is 0xff"),
        ("m.yaml", b"a: [1", "is not valid YAML: .*line 1"),
        ("m.yaml", b"a: 1\n  b: 2\n", "is not valid YAML: .*line 2"),
        ("m.yaml", b"a: \x00", "is not valid YAML"),
        ("m.yaml", b"a: 1\nb: 2\na: 3\n", "line 3: key 'a' is given twice in one mapping"),
        ("m.yaml", b"a: !!python/object/apply:os.system [ls]", "tag .* has no meaning in a manifest"),
        ("m.yaml", b"a: !thing 1", "tag '!thing' has no meaning"),
        ("m.yaml", b"a: *b", "alias \\*b has no anchor before it"),
        ("m.yaml", b"a: &a [*a]", "alias \\*a has no anchor before it"),
        ("m.yaml", b"--- &a {x: 1}\n--- {y: *a}", "alias \\*a has no anchor before it"),
        ("m.yaml", b"[" * 200 + b"]" * 200, "nested deeper than 100 levels"),
        ("m.yaml", b"[" * 200_000, "nested deeper than 100 levels"),
        ("m.yaml", bomb(), "more than 500000 values, aliases counted in full"),
        ("m.yaml", merge_bomb(), "more than 500000 values, aliases counted in full"),
        ("m.yaml", b"a: 0b_", "is not valid YAML"),
        ("m.yaml", b"a: " + b"9" * 10_000, "is not valid YAML"),
        ("m.yaml", b"? [1]\n: 2\n", "is not valid YAML"),
        ("m.json", b'{"a": 1', "is not valid JSON: .*line 1"),
        ("m.json", b'{"a": 1} {"a": 2}', "is not valid JSON"),
        ("m.json", b'{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' is given twice in one object"),
        ("m.json", b'{"a": NaN}', "NaN is not JSON"),
        ("m.json", b"9" * 10_000, "is not valid JSON"),
        ("m.json", b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_not_well_formed_and_bounded_is_refused(name, content, reason):
    with pytest.raises(ValueError, match=reason):
        documents(name, content)


def test_the_reason_is_one_line():
    with pytest.raises(ValueError, match="is not valid YAML") as error:
        documents("m.yaml", b"a: [1\nb: 2\n")

    assert "\n" not in str(error.value)


def test_a_chain_of_merge_keys_of_any_length_ends():
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 700)]

    (document,) = documents("m.yaml", "\n".join(lines).encode())

    assert document["a699"] == {"x": 1}


@given(st.binary(max_size=300), st.sampled_from(["m.yaml", "m.json"]))
def test_any_bytes_give_documents_or_a_reason(content, name):
    with suppress(ValueError):
        documents(name, content)


@given(st.text(alphabet="ab:-[]{}&*!<>|#?%@`'\" \n\t0.~", max_size=80))
def test_any_yaml_gives_documents_or_a_reason(content):
    with suppress(ValueError):
        documents("m.yaml", content.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values.filter(lambda value: value is not None))
def test_json_is_read_as_it_was_written(value):
    assert documents("m.json", json.dumps(value).encode()) == [value]
