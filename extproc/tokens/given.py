"""What the prompt's fields say before any tokeniser is asked. Pure."""

from array import array
from typing import cast

import msgspec

from extproc.tokens.conversation import TEXT_OF
from extproc.tokens.question import Question, Untellable

_NEVER = {
    "truncate_prompt_tokens": "the request truncates its prompt",
    "prompt_embeds": "the prompt holds embeddings",
}
"""Fields that make the engine compute something else than the prompt's tokens."""

_decode = msgspec.json.Decoder(list[int | str | list[int]]).decode


def own_ids(question: Question) -> bytes | None:
    """The token ids that a client sent as its prompt; None if it sent text.

    Raises `Untellable` where there is no prompt whose ids could be told: several of them, none, or one that
    the engine changes.
    """
    given = question.parts.given()
    for name, why in _NEVER.items():
        if name in given:
            raise Untellable(why)
    if question.kind == "chat":
        return None
    prompt = memoryview(given.get("prompt", b""))
    if not prompt:
        raise Untellable("the request has no prompt")
    return None if prompt[0] != ord("[") else _listed(prompt)


def require_text(question: Question) -> None:
    """Raises `Untellable` where the messages of a chat are not text alone.

    An engine would tell token ids for images too, after it has fetched them, but what it caches depends on
    more than those.
    """
    try:
        messages = _decode_messages(question.parts.given().get("messages", b"[]"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Untellable("`messages` is malformed") from None
    for message in messages:
        for part in message.content if isinstance(message.content, list) else ():
            if not isinstance(part, str) and part.type not in TEXT_OF:
                raise Untellable("the prompt has images or other media")


class _Part(msgspec.Struct):
    type: str


class _Message(msgspec.Struct):
    content: str | list[_Part | str] | None = None


_decode_messages = msgspec.json.Decoder(list[_Message]).decode


def _listed(prompt: memoryview) -> bytes | None:
    """Of a list: of ids, or with one prompt in it."""
    try:
        listed = _decode(prompt)
        first = listed[0] if listed else None
        if not isinstance(first, int) and len(listed) != 1:
            raise Untellable("the request has several prompts, or none")
        if isinstance(first, str):
            return None
        return array("I", first if isinstance(first, list) else cast(list[int], listed)).tobytes()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, TypeError):
        raise Untellable("`prompt` is neither text nor token ids") from None
