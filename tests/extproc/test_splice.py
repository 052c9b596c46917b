import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request import APIS, InferenceRequest, parse
from extproc.splice import (
    Edit,
    Intricate,
    Member,
    apply,
    insertion,
    members,
    removals,
    replacement,
    rewrite,
)

CHAT = APIS["/v1/chat/completions"]
MESSAGES = [{"role": "user", "content": 'he said "model":"old" and {"stream_options":1}'}]


def understood(body: bytes, path: str = "/v1/chat/completions") -> InferenceRequest:
    request = parse(APIS[path], body)
    assert isinstance(request, InferenceRequest)
    return request


def rewritten(body: bytes, model: str | None = "new", *, report_usage: bool = True) -> Any:
    result = rewrite(understood(body), model, report_usage)
    return json.loads(body if result is None else result)


def test_only_the_bytes_of_the_model_change() -> None:
    body = b'{ "temperature":0.10, "model" : "old" ,"messages":[{"content":"\\"model\\":\\"old\\""}] }'

    assert rewrite(understood(body), "new", True) == body.replace(b': "old"', b': "new"', 1)


def test_an_equal_text_in_the_prompt_is_left_alone() -> None:
    body = json.dumps({"messages": MESSAGES, "metadata": {"model": "old"}, "model": "old"}).encode()

    assert rewritten(body) == {"messages": MESSAGES, "metadata": {"model": "old"}, "model": "new"}


def test_of_duplicate_models_the_one_that_counts_is_replaced() -> None:
    body = b'{"model":"first","messages":[],"model":"second"}'

    assert rewrite(understood(body), "new", False) == b'{"model":"first","messages":[],"model":"new"}'


def test_an_escaped_key_is_found() -> None:
    assert rewritten(b'{"mod\\u0065l":"old","messages":[]}') == {"model": "new", "messages": []}


@pytest.mark.parametrize("model", [None, "old"])
def test_nothing_to_change_gives_no_body(model: str | None) -> None:
    assert rewrite(understood(b'{"model":"old","messages":[]}'), model, True) is None


def test_a_new_name_is_escaped() -> None:
    assert rewritten(b'{"model":"old","messages":[]}', 'a"b\\é')["model"] == 'a"b\\é'


def test_streams_are_asked_for_usage() -> None:
    assert rewritten(b'{"model":"m","stream":true,"messages":[]}', None)["stream_options"] == {
        "include_usage": True
    }
    assert "stream_options" not in rewritten(b'{"model":"m","messages":[]}', None)
    assert "stream_options" not in rewritten(
        b'{"model":"m","stream":true,"messages":[]}', None, report_usage=False
    )


@pytest.mark.parametrize(
    ("given_options", "sent"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": None}, {"include_usage": True}),
        ({"continuous_usage_stats": True}, {"continuous_usage_stats": True, "include_usage": True}),
        ({"include_usage": {"nested": [1]}, "x": 1}, {"include_usage": True, "x": 1}),
        ("nonsense", "nonsense"),
        ([1], [1]),
    ],
)
def test_the_clients_stream_options_are_kept(given_options: object, sent: object) -> None:
    body = json.dumps(
        {"model": "m", "stream": True, "stream_options": given_options, "messages": []}
    ).encode()

    assert rewritten(body, None)["stream_options"] == sent


@pytest.mark.parametrize("value", ["1e999", "-1e999", "9" * 5000, "0.1000000000000000055511151231257827"])
def test_numbers_that_no_float_holds_are_not_read(value: str) -> None:
    body = f'{{"model":"m","stream":true,"stream_options":{{"x":{value}}},"messages":[]}}'.encode()

    sent = rewrite(understood(body), None, True)

    assert sent == body.replace(b'{"x"', b'{"include_usage":true,"x"')


@pytest.mark.parametrize("options", ["{}", "{ }", "{\n}"])
def test_empty_options_get_no_comma(options: str) -> None:
    body = f'{{"model":"m","stream":true,"stream_options":{options},"messages":[]}}'.encode()

    assert rewritten(body, None)["stream_options"] == {"include_usage": True}


def test_a_client_that_asks_for_usage_itself_has_its_bytes_unchanged() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'

    assert rewrite(understood(body), None, True) is None


def test_apis_without_the_option_are_not_asked() -> None:
    request = understood(b'{"model":"m","stream":true,"input":"x"}', "/v1/responses")

    assert rewrite(request, None, True) is None


def test_edits_apply_in_order_of_place() -> None:
    assert apply(b"0123456789", [Edit(5, 7, b"X"), Edit(0, 0, b"<"), Edit(9, 10, b">")]) == b"<01234X78>"


def test_new_members_come_first() -> None:
    new = {"a": b"1", 'q"': b"{}"}

    assert inserted(b' {"b":2}', new) == b' {"a":1,"q\\"":{},"b":2}'
    assert inserted(b"{ }", new) == b'{"a":1,"q\\"":{} }'
    assert inserted(b'{"b":2}', {}) == b'{"b":2}'


def test_new_members_of_an_inner_object_come_first_in_it() -> None:
    body = b'{"b":{"c":{}}}'

    assert apply(body, [insertion(body, {"a": b"1"}, body.index(b"{}"))]) == b'{"b":{"c":{"a":1}}}'


def inserted(body: bytes, fields: dict[str, bytes]) -> bytes:
    return apply(body, [insertion(body, fields)])


def test_a_decoded_slice_is_replaced_where_it_lies() -> None:
    body = b'{"a":"b","c":"b"}'
    part = msgspec.json.decode(body, type=dict[str, msgspec.Raw])["c"]

    assert apply(body, [replacement(body, part, b"1")]) == b'{"a":"b","c":1}'


def test_members_are_told_with_their_places() -> None:
    body = b' { "a" : {"x":[1,"]}"]} ,"a":-1.5e3, "\\u0062\\"" :"\\\\"\n}'

    found = list(members(body, 0, len(body)))

    assert [(member.name, body[member.value : member.end]) for member in found] == [
        ("a", b'{"x":[1,"]}"]}'),
        ("a", b"-1.5e3"),
        ('b"', b'"\\\\"'),
    ]
    assert [body[member.start : member.start + 2] for member in found] == [b'"a', b'"a', b'"\\']


def test_members_of_an_inner_object_have_their_places_in_the_body() -> None:
    long = b'"' + b"x" * 1000 + b'"'
    body = b'{"a":1,"b": {"c":' + long + b',"c":2} }'

    assert list(members(body, 12, len(body) - 2)) == [
        Member("c", 13, 17, 1019),
        Member("c", 1020, 1024, 1025),
    ]


@pytest.mark.parametrize("value", [b"1", b"[%s]" % b",".join([b"{}"] * 50), b'"%s"' % (b"x" * 500)])
def test_objects_that_take_long_to_read_are_refused(value: bytes) -> None:
    same = b"{%s}" % b",".join([b'"a":%s' % value] * 20_000)
    once = b'{"a":[%s]}' % b",".join([value] * 20_000)

    with pytest.raises(Intricate):
        list(members(same, 0, len(same)))
    assert list(members(once, 0, len(once))) == [Member("a", 1, 5, len(once) - 1)]


def without(body: bytes, *gone: int) -> bytes:
    return apply(body, removals(list(members(body, 0, len(body))), gone))


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ((), b'{ "a":1 , "b":2 , "c":3 }'),
        ((0,), b'{ "b":2 , "c":3 }'),
        ((1,), b'{ "a":1 , "c":3 }'),
        ((2,), b'{ "a":1 , "b":2 }'),
        ((0, 1), b'{ "c":3 }'),
        ((0, 2), b'{ "b":2 }'),
        ((1, 2), b'{ "a":1 }'),
        ((0, 1, 2), b"{  }"),
    ],
)
def test_each_removed_member_takes_one_comma_with_it(gone: tuple[int, ...], left: bytes) -> None:
    assert without(b'{ "a":1 , "b":2 , "c":3 }', *gone) == left


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.none() | st.dictionaries(st.sampled_from(["include_usage", "x", "y"]), JSON, max_size=3)


@given(
    st.dictionaries(st.text(max_size=6), JSON, max_size=5),
    OPTIONS,
    st.text(min_size=1),
    st.text(min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_everything_else_keeps_its_value(
    extra: dict[str, Any], options: dict[str, Any] | None, old: str, new: str, stream: bool, ascii_only: bool
) -> None:
    fields = {**extra, "model": old, "messages": MESSAGES, "stream": stream, "stream_options": options}
    body = json.dumps(fields, ensure_ascii=ascii_only, indent=1 if ascii_only else None).encode()

    sent = rewritten(body, new)

    usage = {"stream_options": {**(options or {}), "include_usage": True}} if stream else {}
    assert sent == {**fields, **usage, "model": new}


@given(
    st.lists(st.tuples(st.text(max_size=3), JSON), max_size=6),
    st.sets(st.integers(0, 5)),
    st.booleans(),
    st.dictionaries(st.text(max_size=3), JSON, max_size=2),
)
def test_members_come_and_go_by_their_places(
    pairs: list[tuple[str, Any]], gone: set[int], ascii_only: bool, new: dict[str, Any]
) -> None:
    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, indent=1 if ascii_only else None)

    body = f"{{{', '.join(f'{text(name)}: {text(value)}' for name, value in pairs)}}}".encode()
    found = list(members(body, 0, len(body)))

    assert [(each.name, json.loads(body[each.value : each.end])) for each in found] == pairs
    kept = [pair for at, pair in enumerate(pairs) if at not in gone]
    assert json.loads(without(body, *gone), object_pairs_hook=list) == [
        (name, json.loads(text(value), object_pairs_hook=list)) for name, value in kept
    ]
    added = inserted(body, {name: text(value).encode() for name, value in new.items()})
    assert json.loads(added, object_pairs_hook=lambda each: each) == [
        (name, json.loads(text(value), object_pairs_hook=lambda each: each))
        for name, value in [*new.items(), *pairs]
    ]
