"""Messages and prompts to tokens.

Each piece of the chat template is tokenised on its own, so a conversation's next turn starts with exactly the
tokens of the turn before and its answer.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias, cast

import msgspec

from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.tokens import Tokens, encode, of_ids

Prompt: TypeAlias = str | list[str | int | list[int]]
"""Lists hold one kind only; `prompts` checks it."""


class Part(msgspec.Struct):
    """One part of a message's content; only text is understood."""

    type: str
    text: str = ""


Content: TypeAlias = str | list[Part] | None


class Message(msgspec.Struct, omit_defaults=True):
    """One message of a conversation, in any of the chat dialects."""

    role: str
    content: Content = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"")
    tool_call_id: str = ""


_TEXT_PARTS = ("text", "input_text", "output_text")


def chat(messages: Iterable[Message], tools: msgspec.Raw, answer_follows: bool = True) -> Tokens:
    """The tokens of a conversation, up to where the assistant speaks if ``answer_follows``."""
    tokens = encode(f"<|tools|>{bytes(tools).decode()}\n") if tools else encode("")
    for message in messages:
        tokens += encode(f"<|im_start|>{message.role}\n")
        tokens += encode(text_of(message.content))
        if message.tool_calls or message.tool_call_id:
            tokens += encode(f"<|tool|>{message.tool_call_id}{bytes(message.tool_calls).decode()}")
        tokens += encode("<|im_end|>\n")
    if answer_follows:
        tokens += encode("<|im_start|>assistant\n")
    return tokens


def text_of(content: Content) -> str:
    """The text of a message; ApiError 400 for anything but text."""
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type not in _TEXT_PARTS:
            raise ApiError(400, f"This model takes text only, not content of type {part.type!r}", "messages")
    return "".join(part.text for part in content)


def prompts(prompt: Prompt, field: str) -> list[Tokens]:
    """A prompt as text or token ids, alone or in a list; ApiError 400 names ``field``."""
    if isinstance(prompt, str):
        found = [encode(prompt)]
    elif len(set(map(type, prompt))) > 1:
        raise ApiError(400, f"{field} must be all texts, all token ids or all lists of token ids", field)
    elif prompt and isinstance(prompt[0], int):
        found = [_ids(cast("list[int]", prompt), field)]
    else:
        items = cast("list[str | list[int]]", prompt)
        found = [encode(item) if isinstance(item, str) else _ids(item, field) for item in items]
    if not found or not all(found):
        raise ApiError(400, f"{field} must not be empty", field)
    return found


def _ids(ids: Sequence[int], field: str) -> Tokens:
    try:
        return of_ids(ids)
    except ValueError as error:
        raise ApiError(400, str(error), field) from None
