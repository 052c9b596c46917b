"""The bodies of both legs, edited by bytes.

Engines take the last of several members of one name, so changing the last one is enough. A member that must
not count is set to what its absence means: taking it out would uncover an earlier one of its name.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from extproc import splice
from extproc.request import Api, InferenceRequest

_ALWAYS: Mapping[str, Mapping[str, bytes]] = MappingProxyType(
    {
        "chat": {"max_tokens": b"1", "max_completion_tokens": b"1", "ignore_eos": b"true"},
        "completions": {"max_tokens": b"1", "ignore_eos": b"true"},
        "messages": {"max_tokens": b"1"},
        "responses": {"max_output_tokens": b"1", "ignore_eos": b"true", "store": b"false"},
    }
)
"""API to what its prompt's leg always says: one token, and nothing is kept for later.

`ignore_eos`: some connectors drop the KV cache of a prompt whose first token ends the answer (vLLM's Mooncake
connector keeps it only for requests that ended by their length)."""

_SAMPLED: Mapping[str, bytes] = MappingProxyType(
    {
        "min_tokens": b"0",
        "stop_token_ids": b"[]",
        "n": b"1",
        "best_of": b"null",
        "use_beam_search": b"false",
        "top_logprobs": b"0",
        "prompt_logprobs": b"null",
        "logprob_token_ids": b"null",
        "structured_outputs": b"null",
    }
)
"""What makes one token fail or cost more, and shapes no prompt."""

_WHERE_SET: Mapping[str, Mapping[str, bytes]] = MappingProxyType(
    {
        "chat": {**_SAMPLED, "logprobs": b"false"},
        "completions": {**_SAMPLED, "logprobs": b"null", "echo": b"false", "response_format": b"null"},
        "messages": {},
        "responses": {
            **_SAMPLED,
            "background": b"false",
            "include": b"null",
            "enable_response_messages": b"false",
        },
    }
)
"""API to what its prompt's leg says in place of what the client said. All that shapes the prompt stays."""

_STREAMED: Mapping[str, bytes] = MappingProxyType({"stream": b"false", "stream_options": b"null"})

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def prefill_body(api: Api, body: bytes, fields: Mapping[str, bytes], *, as_asked: bool = False) -> bytes:
    """The prompt's leg: `body` for exactly one token in one piece, with `fields` (name to JSON).

    `as_asked`: the engine makes one token by itself, and samples it as the client asked. `body` is a request
    that `several` has nothing against.
    """
    there = _decode_members(body)
    always = {**fields} if as_asked else {**_ALWAYS[api.name], **fields}
    where_set = {**_STREAMED} if as_asked else {**_STREAMED, **_WHERE_SET[api.name]}
    if api.name == "messages" and not fields:
        # vLLM refuses a budget for thinking above the one token, unless the request names a transfer.
        where_set["thinking"] = b"null"
    edits = [
        splice.replacement(body, there[name], json)
        for name, json in {**where_set, **always}.items()
        if name in there
    ]
    absent = {name: json for name, json in always.items() if name not in there}
    return splice.apply(body, [*edits, splice.insertion(body, absent)])


def decode_body(body: bytes, fields: Mapping[str, bytes]) -> tuple[bytes, int, int]:
    """The answer's leg: `body` with `fields` (name to JSON), and start and length of what was put in.

    Without those bytes it is `body` again. `body` must not have members of these names: they would count.
    """
    edit = splice.insertion(body, fields)
    return splice.apply(body, [edit]), edit.start, len(edit.text)


class _Asked(msgspec.Struct):
    n: msgspec.Raw = msgspec.Raw()
    best_of: msgspec.Raw = msgspec.Raw()
    use_beam_search: msgspec.Raw = msgspec.Raw()
    echo: msgspec.Raw = msgspec.Raw()
    prompt_logprobs: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()


class _Tool(msgspec.Struct):
    type: str = ""


_HARMLESS: Mapping[str, bytes] = MappingProxyType(
    {
        "n": b"1",
        "best_of": b"1",
        "use_beam_search": b"false",
        "echo": b"false",
        "prompt_logprobs": b"null",
        "previous_response_id": b"null",
    }
)
"""What of the members that speak against a hand-off asks for nothing, beside null."""
_LIST_OF_PROMPTS = re.compile(rb'\[[ \t\n\r]*["\[]')

_decode_asked = msgspec.json.Decoder(_Asked).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_tools = msgspec.json.Decoder(list[_Tool]).decode


def several(asked: InferenceRequest) -> str | None:
    """Why a request is more than one prompt with one answer, in words; None if it can be handed off."""
    if asked.api.name not in _ALWAYS:
        return f"{asked.api.name} requests have no answer that is computed token by token"
    said = _decode_asked(asked.body)
    for name, harmless in _HARMLESS.items():
        if bytes(getattr(said, name)) not in (b"", b"null", harmless):
            return f"it sets `{name}`"
    if "prompt_embeds" in asked.prompt:
        return "it sets `prompt_embeds`"
    if _prompts(asked) > 1:
        return "it has several prompts"
    if asked.api.name == "responses" and _engine_calls_tools(asked):
        return "the engine may call tools, and so compute several prompts"
    return None


def _prompts(asked: InferenceRequest) -> int:
    raw = asked.prompt.get("prompt")
    if raw is None or not _LIST_OF_PROMPTS.match(memoryview(raw)):
        return 1
    return len(_decode_list(raw))


def _engine_calls_tools(asked: InferenceRequest) -> bool:
    """Whether a tool is not the client's to call; what is no list of tools is the engine's to refuse."""
    raw = asked.prompt.get("tools")
    if raw is None:
        return False
    try:
        return any(tool.type not in ("function", "custom") for tool in _decode_tools(raw))
    except msgspec.ValidationError:
        return False
