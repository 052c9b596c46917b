"""What the engine is: its models, adapters, tokenizer and version."""

import msgspec

from benchmarks.engine.api.ask import resolve
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.prompts import Message, chat
from benchmarks.engine.models import Models
from benchmarks.engine.tokens import Tokens, decode, encode, of_ids, piece

VERSION = "0.32.0"
"""The vLLM release whose API is simulated."""


class LoadRequest(msgspec.Struct):
    """``/v1/load_lora_adapter``; any path loads."""

    lora_name: str
    lora_path: str
    load_inplace: bool = False


class UnloadRequest(msgspec.Struct):
    """``/v1/unload_lora_adapter``."""

    lora_name: str


class TokenizeRequest(msgspec.Struct):
    """``/tokenize``, of a prompt or of messages."""

    prompt: str | None = None
    messages: list[Message] | None = None
    model: str | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct):
    """``/detokenize``."""

    tokens: list[int]
    model: str | None = None


def listing(models: Models, created: int, longest: int) -> dict[str, object]:
    """The body of ``/v1/models``: the base first, then its adapters with their parent."""
    base = _card(models.base, models.base, None, created, longest)
    adapters = (_card(name, path, models.base, created, None) for name, path in models.adapters.items())
    return {"object": "list", "data": [base, *adapters]}


def load(models: Models, request: LoadRequest) -> str:
    """Load an adapter; returns the answer's text."""
    if not request.lora_name or not request.lora_path:
        raise ApiError(400, "Both 'lora_name' and 'lora_path' must be provided.", kind="InvalidUserInput")
    if not models.load(request.lora_name, request.lora_path, request.load_inplace):
        raise ApiError(
            400,
            f"The lora adapter '{request.lora_name}' has already been loaded. If you want to load the "
            "adapter in place, set 'load_inplace' to True.",
            kind="InvalidUserInput",
        )
    return f"Success: LoRA adapter '{request.lora_name}' added successfully."


def unload(models: Models, request: UnloadRequest) -> str:
    """Unload an adapter; returns the answer's text."""
    if not models.unload(request.lora_name):
        raise ApiError(404, f"The lora adapter '{request.lora_name}' cannot be found.")
    return f"Success: LoRA adapter '{request.lora_name}' removed successfully."


def tokenize(request: TokenizeRequest, models: Models, longest: int) -> dict[str, object]:
    """The body of ``/tokenize``."""
    resolve(request.model, models)
    tokens = _tokens(request)
    return {
        "count": len(tokens),
        "max_model_len": longest,
        "tokens": tokens.tolist(),
        "token_strs": [piece(token) for token in tokens] if request.return_token_strs else None,
    }


def detokenize(request: DetokenizeRequest, models: Models) -> dict[str, object]:
    """The body of ``/detokenize``."""
    resolve(request.model, models)
    try:
        return {"prompt": decode(of_ids(request.tokens))}
    except ValueError as error:
        raise ApiError(400, str(error), "tokens") from None


def _tokens(request: TokenizeRequest) -> Tokens:
    if request.messages is not None:
        return chat(request.messages, request.tools, request.add_generation_prompt)
    if request.prompt is None:
        raise ApiError(400, "Either prompt or messages must be given.", "body.prompt", "Bad Request")
    return encode(request.prompt)


def _card(name: str, root: str, parent: str | None, created: int, longest: int | None) -> dict[str, object]:
    permission = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": longest,
        "permission": [permission],
    }
