import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc import request
from extproc.control import FIELDS, HEADER_NAMES, HEADER_PREFIX, HEADERS, strip
from extproc.rejection import Rejection

OUTER = sorted({name.partition(".")[0] for name in FIELDS})
INNER = {
    "vllm_xargs": {"kv_transfer_params": None, "ec_transfer_params": None},
    "sampling_params": {"extra_args": {"kv_transfer_params": None, "ec_transfer_params": None}},
    "parameters": {
        name.removeprefix("parameters."): None for name in FIELDS if name.startswith("parameters.")
    },
}


class Pairs(list[tuple[str, Any]]):
    """The members of an object in order, those of equal names too."""


def read(body: bytes) -> Any:
    return json.loads(body, object_pairs_hook=Pairs)


def expected(value: Any, inner: dict[str, Any]) -> Any:
    """What `strip` should leave of an object, by the table: the value None means that the member goes."""
    if not isinstance(value, Pairs):
        return value
    kept = (pair for pair in value if inner.get(pair[0], 0) is not None)
    return Pairs((name, expected(each, inner[name]) if inner.get(name) else each) for name, each in kept)


TABLE: dict[str, Any] = {name: INNER.get(name) for name in OUTER}


def stripped(body: bytes) -> bytes:
    result = strip(body)
    assert isinstance(result, bytes), result
    return result


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"kv_transfer_params":{"a":1}}', b"{}"),
        (b'{ "kv_transfer_params" : {"a":1} }', b"{  }"),
        (b'{"kv_transfer_params":1,"a":2}', b'{"a":2}'),
        (b'{"a":2,"kv_transfer_params":1}', b'{"a":2}'),
        (b'{"a": 2, "bootstrap_room": 1, "b": 3}', b'{"a": 2, "b": 3}'),
        (b'{"bootstrap_host":1,"bootstrap_port":2,"a":2}', b'{"a":2}'),
        (b'{"a":2 ,\n "bootstrap_host":1 , "bootstrap_port":2\n}', b'{"a":2\n}'),
        (b'{"kv_transfer_params":1,"a":2,"kv_transfer_params":3}', b'{"a":2}'),
        (b'{"kv_transfer_params":1,"kv_transfer_params":2}', b"{}"),
        (b'{"kv_transfer\\u005fparams":1,"a":2}', b'{"a":2}'),
        (b'{"\\u006bv_transfer_params":"}{][\\"","a":"kv_\\\\"}', b'{"a":"kv_\\\\"}'),
        (b'{"vllm_xargs":{"a":1,"kv_transfer_params":1}}', b'{"vllm_xargs":{"a":1}}'),
        (
            b'{"vllm_xargs":{"kv_transfer_params":1},"vllm_xargs":{"ec_transfer_params":[{}]}}',
            b'{"vllm_xargs":{},"vllm_xargs":{}}',
        ),
        (
            b'{"sampling_params":{"extra_args":{"kv_transfer_params":1},"extra_args":{"kv_transfer_params":2,"a":3}}}',
            b'{"sampling_params":{"extra_args":{},"extra_args":{"a":3}}}',
        ),
    ],
)  # fmt: skip
def test_members_that_steer_go_with_one_comma_each(body: bytes, left: bytes) -> None:
    assert stripped(body) == left


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" {} ",
        b'[{"kv_transfer_params":1}]',
        b'"kv_transfer_params"',
        b"1",
        b'{"messages":[{"kv_transfer_params":1}],"text":"\\"kv_transfer_params\\":1"}',
        b'{"vllm_xargs":{"a":{"kv_transfer_params":1}}}',
        b'{"vllm_xargs":[],"sampling_params":null}',
        b'{"sampling_params":{"kv_transfer_params":1}}',
        b'{"vllm_xargs.kv_transfer_params":1}',
        b'{"KV_TRANSFER_PARAMS":1,"kv_transfer_params ":2}',
        '{"é":1,"\u2028":"kv_transfer_params"}'.encode(),
    ],
)
def test_what_steers_nothing_stays(body: bytes) -> None:
    assert stripped(body) == body


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_table_goes(name: str) -> None:
    inner = b"1"
    for part in reversed(name.split(".")):
        inner = b'{"%s":%s,"kept":0}' % (part.encode(), inner)

    assert name.rpartition(".")[2].encode() not in stripped(inner)
    assert stripped(inner).count(b"kept") == 1 + name.count(".")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":NaN,"kv_transfer_params":1}',
        b"[Infinity]",
        b'\xef\xbb\xbf{"kv_transfer_params":1}',
        '{"kv_transfer_params":1}'.encode("utf-16"),
        '{"kv_transfer_params":1}'.encode("utf-16-le"),
        '{"kv_transfer_params":1}'.encode("utf-32-be"),
        b'{"kv_transfer_params":1',
        b'{"kv_transfer_params":1}{"a":1}',
        b'{"kv_transfer_params":"\xed\xa0\x80"}',
        b"{'kv_transfer_params':1}",
        b'{"a":1,/**/"kv_transfer_params":1}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 1_000_000,
        b" ",
        b"prompt=secret",
    ],
)
def test_bodies_that_only_an_engine_may_understand_are_refused(body: bytes) -> None:
    result = strip(body)

    assert isinstance(result, Rejection)
    assert (result.reason, result.status) == ("invalid-json", 400)
    assert "secret" not in result.message


def test_a_request_with_such_a_field_is_known_by_parsing_it() -> None:
    api = request.APIS["/v1/chat/completions"]
    for name in OUTER:
        parsed = request.parse(api, b'{"model":"m","messages":[],"%s":null}' % name.encode())
        assert isinstance(parsed, request.InferenceRequest)
        assert parsed.control, name

    parsed = request.parse(api, b'{"model":"m","messages":[{"kv_transfer_params":1}],"n":1}')
    assert isinstance(parsed, request.InferenceRequest)
    assert not parsed.control


def test_headers_are_told_by_name_or_by_how_they_begin() -> None:
    assert {f"{HEADER_PREFIX}*", *HEADER_NAMES} == set(HEADERS)
    assert not any("*" in name for name in HEADER_NAMES)
    assert all(name == name.lower() for name in HEADERS)


SPACE = st.sampled_from(["", " ", "\n", "\t \r\n"])
LONG = ['"' + '}{\\"' * 100 + '"', "[" + ", ".join(["[]", '"]"'] * 100) + "]"]
LEAVES = st.sampled_from(
    [*LONG, "null", "true", "-0.0", "1e5", '""', '"}"', '"\\""', '"\\\\"', '"é,"', "[]", "{}"]
)


@st.composite
def escaped(draw: st.DrawFn, name: str) -> str:
    """A name as JSON, some of its characters as escapes."""
    written = (f"\\u{ord(c):04x}" if draw(st.integers(0, 9)) == 0 else json.dumps(c)[1:-1] for c in name)
    return f'"{"".join(written)}"'


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """An object's text; its names often steer, and often come again."""
    names = st.sampled_from([*OUTER, "extra_args", "a", 'q"', "\\", "é", ""])
    members = []
    for name in draw(st.lists(names, max_size=5)):
        space = [draw(SPACE) for _ in range(4)]
        members.append(f"{space[0]}{draw(escaped(name))}{space[1]}:{space[2]}{draw(values)}{space[3]}")
    return "{" + (",".join(members) if members else draw(SPACE)) + "}"


BODIES = st.recursive(
    LEAVES, lambda inner: objects(inner) | st.lists(inner, max_size=3).map(lambda each: f"[{','.join(each)}]")
)


@given(SPACE, objects(BODIES) | BODIES, SPACE)
def test_what_is_left_is_what_python_would_leave(before: str, text: str, after: str) -> None:
    body = (before + text + after).encode()

    left = stripped(body)

    assert read(left) == expected(read(body), TABLE)
    assert strip(left) == left
    assert left == body or read(body) != read(left)


@given(SPACE, objects(BODIES), SPACE)
def test_what_is_left_are_bytes_of_the_body_in_their_order(before: str, text: str, after: str) -> None:
    body = (before + text + after).encode()
    at = iter(body)

    assert all(byte in at for byte in stripped(body))


@given(st.binary(max_size=60) | st.text(alphabet='{}[],:"\\ kn1', max_size=30).map(str.encode))
def test_arbitrary_bytes_are_refused_or_as_python_reads_them(body: bytes) -> None:
    left = strip(body)
    if isinstance(left, bytes) and left:
        assert read(left) == expected(read(body), TABLE)


@pytest.mark.parametrize(
    "body",
    [
        b"{%s}" % b",".join([b'"kv_transfer_params":1'] * 20_000),
        b'{"vllm_xargs":{%s}}' % b",".join([b'"a":[{},{},{}]'] * 20_000),
    ],
)
def test_bodies_that_are_made_to_take_long_are_refused(body: bytes) -> None:
    result = strip(body)

    assert isinstance(result, Rejection)
    assert result.reason == "invalid-json"


def test_long_prompts_are_not_mistaken_for_them() -> None:
    prompt = json.dumps({"prompt": [[at, {"a": "}"}] for at in range(20_000)]}).encode()
    body = prompt[:-1] + b', "kv_transfer_params": 1}'

    assert stripped(body) == prompt
