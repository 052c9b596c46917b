"""What a prefill engine answered: the transfer's parameters, and how much of the prompt it had cached."""

from typing import Annotated

import msgspec

from extproc.handoff.connector import Reply

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    """Of chat and completions, of responses, and of messages, whose `input_tokens` are those not cached."""

    prompt_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: _Count | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None

    def prompt(self) -> int:
        """Tokens of the prompt; 0 where the engine does not say."""
        counts = (self.input_tokens, self.cache_read_input_tokens, self.cache_creation_input_tokens)
        return self.prompt_tokens or sum(count or 0 for count in counts)

    def cached(self) -> int | None:
        """Tokens of it that were cached; None where the engine does not say."""
        details = self.prompt_tokens_details or self.input_tokens_details
        return self.cache_read_input_tokens if details is None else details.cached_tokens


class _Answer(msgspec.Struct):
    kv_transfer_params: msgspec.Raw = msgspec.Raw()
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read(body: bytes) -> Reply:
    """Understand the answer of any API; raises ValueError where it is none."""
    try:
        body.decode()
        answer = _decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the prefill engine's answer can not be read: {_told(error)}") from error
    usage = answer.usage or _Usage()
    return Reply(_params(answer.kv_transfer_params), usage.prompt(), usage.cached())


def _params(raw: msgspec.Raw) -> msgspec.Raw | None:
    text = bytes(raw)
    if text in (b"", b"null"):
        return None
    if not text.startswith(b"{"):
        raise ValueError("the prefill engine's `kv_transfer_params` is no object")
    return raw


def _told(error: Exception) -> str:
    """Nothing of the answer itself: it may hold what the model said."""
    return str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
