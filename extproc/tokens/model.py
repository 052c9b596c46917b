"""One model's tokeniser, as its engines use it."""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import tokenizers

from extproc.tokens.conversation import conversation
from extproc.tokens.question import NotHere, Question, Untellable
from extproc.tokens.seams import Seams
from extproc.tokens.template import Template

_BATCH = 16_384
"""Characters that are encoded at once: some 5 ms."""


Turn: TypeAlias = AbstractContextManager[object]
"""Entered by a thread while it is its turn to work."""


@dataclass(frozen=True, slots=True)
class Model:
    """Makes the pieces of a prompt, and encodes them. Safe between threads."""

    identity: bytes
    """Equal for equal files."""
    tokenizer: tokenizers.Tokenizer
    seams: Seams
    opening: bytes
    """Ids that come before every text for which special tokens are asked; often ``bos``."""
    closing: bytes
    template: Template | None
    tools_template: Template | None
    """For requests with tools."""

    def pieces(self, question: Question) -> list[str | bytes]:
        """The prompt as texts still to be encoded, and ids. Raises `Untellable` and `NotHere`."""
        chat = question.kind == "chat"
        text = self._rendered(question) if chat else _prompt(question)
        pieces = list(self.seams.split(text))
        if _flag(question.parts.add_special_tokens, default=not chat):
            pieces = [self.opening, *pieces, self.closing]
        return pieces

    def encode(self, texts: Sequence[str], turn: Turn) -> Iterator[bytes]:
        """The ids of each text; each batch of them in a turn of its own.

        The library lets other threads run only while it encodes a batch, and short batches leave little to be
        done between them: so the event loop of this process waits for a millisecond, not for a prompt.
        """
        for batch in _batches(texts):
            with turn:
                encoded = self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            for encoding in encoded:
                yield array("I", encoding.ids).tobytes()

    def _rendered(self, question: Question) -> str:
        template = self.tools_template if "tools" in question.parts.given() else self.template
        if template is None:
            raise NotHere(f"the tokenizer {question.tokenizer} has no chat template")
        told = conversation(question.parts, lists=template.lists, developers=template.developers)
        return template.render(told)


def _prompt(question: Question) -> str:
    """The one text of a completion."""
    try:
        prompt = msgspec.json.decode(question.parts.prompt, type=str | list[str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Untellable("`prompt` is malformed") from None
    return prompt if isinstance(prompt, str) else "".join(prompt)


def _flag(raw: msgspec.Raw, default: bool) -> bool:
    return {b"true": True, b"false": False}.get(bytes(raw), default)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """In order, each just long enough."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
