"""What is asked and what is answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import msgspec
import xxhash


class Parts(msgspec.Struct, frozen=True):
    """The fields of a request's body that make its prompt, as JSON; empty where absent or null."""

    messages: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    documents: msgspec.Raw = msgspec.Raw()
    chat_template: msgspec.Raw = msgspec.Raw()
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()
    reasoning_effort: msgspec.Raw = msgspec.Raw()
    add_generation_prompt: msgspec.Raw = msgspec.Raw()
    continue_final_message: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()
    add_special_tokens: msgspec.Raw = msgspec.Raw()
    truncate_prompt_tokens: msgspec.Raw = msgspec.Raw()

    @classmethod
    def of(cls, body: bytes) -> Self:
        """Cut them out of a body without copying; raises msgspec.DecodeError if it is no JSON object."""
        return msgspec.json.Decoder(cls).decode(body)

    def given(self) -> dict[str, msgspec.Raw]:
        """Those that say something, by name."""
        return {name: raw for name in _NAMES if len(raw := getattr(self, name)) and raw != _NULL}


_NAMES = Parts.__struct_fields__
_NULL = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class Question:
    """Which prompt, and who can say its token ids."""

    kind: Literal["chat", "completion"]
    parts: Parts
    model: str
    """The model as its engines call it."""
    tokenizer: str
    """Directory of the model's tokeniser: ``ModelServer.tokenizer``, or else the model's name."""
    engines: Sequence[str] = ()
    """Base URLs (``http://10.0.0.7:8000``) of engines that serve the model, in the order to ask them."""

    def size(self) -> int:
        """Bytes of the prompt's fields."""
        return sum(map(len, self.parts.given().values()))

    def digest(self) -> bytes:
        """Names the answer: equal for questions that have the same one, whichever engine is asked."""
        digest = xxhash.xxh3_128()
        for part in (self.kind.encode(), self.tokenizer.encode(), self.model.encode()):
            _add(digest, part)
        for name, raw in self.parts.given().items():
            _add(digest, name.encode())
            _add(digest, raw)
        return digest.digest()


def _add(digest: xxhash.xxh3_128, part: bytes | msgspec.Raw) -> None:
    """Length first, so that no two lists of parts read the same."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(memoryview(part))


@dataclass(frozen=True, slots=True)
class Found:
    """The token ids of a prompt."""

    ids: bytes
    """Unsigned 32-bit integers, little endian."""
    source: Literal["prompt", "local", "engine"]
    """The client sent ids, the tokeniser here made them, or an engine did."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True, slots=True)
class Miss:
    """Why there are no token ids, in words that fit behind "because"."""

    reason: str


class Untellable(Exception):
    """No one shall tell the ids of this prompt, since they would not say what an engine has cached.

    The text is the reason of a `Miss`.
    """


class NotHere(Exception):
    """The tokeniser here cannot tell, an engine might. The text is part of the reason of a `Miss`."""
