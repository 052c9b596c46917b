"""A chat request's fields -> what a chat template is given, as vLLM prepares it. Pure.

Texts of a message's parts are joined by a newline, unless the template walks through the parts itself; the
arguments of tool calls become objects; tools carry their optional fields; a template without the role
``developer`` gets one system message, the first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from extproc.tokens.question import NotHere, Parts, Untellable

Message: TypeAlias = dict[str, Any]

TEXT_OF = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""Type of a part that is text, and the field that holds it."""

_BEYOND = {
    "chat_template": "the request brings its own chat template",
    "continue_final_message": "the request continues its last message",
}
"""Fields that only the engine is to interpret."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template is given."""

    messages: list[Message]
    tools: list[Message] | None
    variables: dict[str, Any]
    """Further variables, ``add_generation_prompt`` among them."""


def conversation(parts: Parts, *, lists: bool, developers: bool) -> Conversation:
    """Prepare the fields of a chat request.

    `lists`: the template walks through the parts of a content. `developers`: it knows the role ``developer``.
    Raises `Untellable` for images and malformed fields, `NotHere` for what only the engine can interpret.
    """
    given = parts.given()
    for name, why in _BEYOND.items():
        if given.get(name, _FALSE) != _FALSE:
            raise NotHere(why)
    messages = [_message(message, lists) for message in _decoded(given, "messages", _OBJECTS) or []]
    if not developers and any(message["role"] == "developer" for message in messages):
        messages = _with_one_system([_as_system(message) for message in messages])
    tools = _decoded(given, "tools", _OBJECTS)
    return Conversation(
        messages, None if tools is None else [_tool(tool) for tool in tools], _variables(given)
    )


_FALSE = msgspec.Raw(b"false")
_OBJECTS: Callable[[msgspec.Raw], list[Message]] = msgspec.json.Decoder(list[dict[str, Any]]).decode
_OBJECT: Callable[[msgspec.Raw], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode
_BOOL: Callable[[msgspec.Raw], bool] = msgspec.json.Decoder(bool).decode
_TEXT: Callable[[msgspec.Raw], str] = msgspec.json.Decoder(str).decode


def _decoded(given: dict[str, msgspec.Raw], name: str, decode: Callable[[msgspec.Raw], Any]) -> Any:
    """The value of a field; None where it is absent."""
    try:
        return decode(given[name]) if name in given else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Untellable(f"`{name}` is malformed") from None


def _variables(given: dict[str, msgspec.Raw]) -> dict[str, Any]:
    variables = _decoded(given, "chat_template_kwargs", _OBJECT) or {}
    effort = _decoded(given, "reasoning_effort", _TEXT)
    if effort is not None:
        variables.setdefault("enable_thinking", effort != "none")
        variables["reasoning_effort"] = effort
    answer_follows = _decoded(given, "add_generation_prompt", _BOOL)
    variables["add_generation_prompt"] = True if answer_follows is None else answer_follows
    variables["documents"] = _decoded(given, "documents", _OBJECTS)
    return variables


def _message(message: Message, lists: bool) -> Message:
    role = message.get("role")
    if not isinstance(role, str):
        raise Untellable("a message has no role")
    said: Message = {"role": role, "content": _content(message.get("content"), lists and role != "tool")}
    if role == "assistant":
        _add_calls(said, message)
        reasoning = message.get("reasoning")
        reasoning = message.get("reasoning_content") if reasoning is None else reasoning
        if reasoning is not None:
            said["reasoning"] = said["reasoning_content"] = reasoning
    elif role == "tool" and "tool_call_id" in message:
        said["tool_call_id"] = message["tool_call_id"]
    if isinstance(message.get("name"), str):
        said["name"] = message["name"]
    if role == "developer":
        said["tools"] = message.get("tools")
    return said


def _content(content: object, lists: bool) -> str | list[Message]:
    if isinstance(content, str):
        texts = [content]
    elif isinstance(content, list):
        texts = [text for part in content if (text := _text(part)) is not None]
    elif content is None:
        texts = []
    else:
        raise Untellable("the content of a message is neither text nor a list")
    return [{"type": "text", "text": text} for text in texts] if lists else "\n".join(texts)


def _text(part: object) -> str | None:
    """The text of a part; None where the engine skips it."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise Untellable("a part of a message has no type")
    if kind not in TEXT_OF:
        raise Untellable("the prompt has images or other media")
    text = part.get(TEXT_OF[kind])
    if text is not None and not isinstance(text, str):
        raise Untellable("the text of a message's part is no text")
    return text


def _add_calls(said: Message, message: Message) -> None:
    calls = message.get("tool_calls")
    if calls is None or calls == []:
        return
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Untellable("`tool_calls` is malformed")
    said["tool_calls"] = [_call(call) for call in calls]


def _call(call: Message) -> Message:
    function = call.get("function")
    if not isinstance(function, dict):
        raise Untellable("a tool call has no function")
    return {**call, "function": {**function, "arguments": _arguments(function.get("arguments"))}}


def _arguments(arguments: object) -> dict[str, Any]:
    """An object, even where the client sent none: the engine goes on with an empty one."""
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            return {}
    return arguments if isinstance(arguments, dict) else {}


def _tool(tool: Message) -> Message:
    function = tool.get("function")
    if not isinstance(function, dict):
        raise Untellable("a tool has no function")
    optional = {
        name: function[name] for name in ("strict", "defer_loading") if function.get(name) is not None
    }
    told = {name: function.get(name) for name in ("name", "description", "parameters")}
    return {"type": tool.get("type", "function"), "function": told | optional}


def _as_system(message: Message) -> Message:
    if message["role"] != "developer":
        return message
    return {name: value for name, value in message.items() if name != "tools"} | {"role": "system"}


def _with_one_system(messages: list[Message]) -> list[Message]:
    """All system messages as one, at the front; untouched where that is so already."""
    systems = [message for message in messages if message["role"] == "system"]
    if systems == messages[:1]:
        return messages
    texts = [text for message in systems if (text := _flat(message["content"]))]
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(texts)}, *others]


def _flat(content: str | list[Message]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
