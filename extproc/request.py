"""Path, headers and body bytes -> InferenceRequest.

Only what a decision needs is decoded: the values stay slices of the body (`msgspec.Raw`), so that a 400 KB
prompt is scanned once and never copied. Nothing here raises on bad input; it answers a `Rejection`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType

import msgspec

from extproc.rejection import Rejection


@dataclass(frozen=True, slots=True)
class Api:
    """One inference API: the body fields that may carry the prompt, and what a prompt may be."""

    name: str
    prompt_fields: tuple[str, ...]
    openings: bytes
    """First bytes a prompt may have: ``"`` a string, ``[`` a list."""
    stream_usage: bool = False
    """Whether `stream_options.include_usage` exists in this API."""
    preface: tuple[str, ...] = ()
    """Further fields that the engine puts before the prompt."""


APIS: Mapping[str, Api] = MappingProxyType(
    {
        "/v1/chat/completions": Api(
            "chat", ("messages",), b"[", stream_usage=True, preface=("chat_template_kwargs", "tools")
        ),
        "/v1/completions": Api("completions", ("prompt", "prompt_embeds"), b'"[', stream_usage=True),
        "/v1/embeddings": Api("embeddings", ("input", "messages"), b'"['),
        "/v1/responses": Api("responses", ("input", "prompt"), b'"[{', preface=("tools", "instructions")),
        "/v1/messages": Api("messages", ("messages",), b"[", preface=("tools", "system")),
        "/v1/rerank": Api("rerank", ("query", "documents"), b'"[{'),
    }
)
"""Path to API; a path outside this table is routed by headers and URI only."""

MODELS_PATHS = frozenset({"/v1/models", "/models"})
"""``GET`` on these is answered from the configuration."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a request's headers say."""

    method: str
    path: str
    """Without the query."""
    headers: Mapping[str, str]
    """Lower-case names; only those that some rule looks at, or a prefill engine needs."""
    request_id: str = ""
    client_request_id: str = ""
    """What the client itself had called it; empty if it did not."""
    control: tuple[str, ...] = ()
    """Names of the headers that steer an engine (`extproc.control`), as the client sent them."""
    json: bool = False
    """The body may be JSON: its type says so, or nothing."""


def bare(path: str) -> str:
    """A path as APIS knows it: without query, and without the slash that must not make it another one."""
    return path.partition("?")[0].rstrip("/") or "/"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request whose body was understood."""

    api: Api
    model: str
    stream: bool
    body: bytes
    model_slice: msgspec.Raw
    """The JSON text of ``model`` inside `body`."""
    stream_options_slice: msgspec.Raw
    """The JSON text of ``stream_options`` inside `body`; empty when absent."""
    prompt: Mapping[str, msgspec.Raw]
    """Field to its JSON text, of every field that becomes part of the prompt, in the order of the prompt."""
    cache_salt: str = ""
    """Requests of different salts share no cache."""
    control: bool = False
    """The body has members that steer an engine, or may hold some: `extproc.control` looks closer."""

    def prompt_text(self) -> bytes | memoryview:
        """All JSON text that becomes the prompt; not copied where it is one field."""
        parts = [memoryview(part) for part in self.prompt.values()]
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Body(msgspec.Struct):
    """The top-level fields a decision looks at, as slices of the body."""

    model: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    query: msgspec.Raw = msgspec.Raw()
    documents: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()
    cache_salt: msgspec.Raw = msgspec.Raw()
    kv_transfer_params: msgspec.Raw = msgspec.Raw()
    ec_transfer_params: msgspec.Raw = msgspec.Raw()
    bootstrap_host: msgspec.Raw = msgspec.Raw()
    bootstrap_port: msgspec.Raw = msgspec.Raw()
    bootstrap_room: msgspec.Raw = msgspec.Raw()
    bootstrap_pair_key: msgspec.Raw = msgspec.Raw()
    routed_dp_rank: msgspec.Raw = msgspec.Raw()
    disagg_prefill_dp_rank: msgspec.Raw = msgspec.Raw()
    data_parallel_rank: msgspec.Raw = msgspec.Raw()
    decode_tp_size: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()
    vllm_xargs: msgspec.Raw = msgspec.Raw()
    sampling_params: msgspec.Raw = msgspec.Raw()


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_string = msgspec.json.Decoder(str).decode
_NULL = msgspec.Raw(b"null")
_steering = attrgetter(
    "kv_transfer_params",
    "ec_transfer_params",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "bootstrap_pair_key",
    "routed_dp_rank",
    "disagg_prefill_dp_rank",
    "data_parallel_rank",
    "decode_tp_size",
    "parameters",
    "vllm_xargs",
    "sampling_params",
)
"""The members that are, or may hold, those of `extproc.control.FIELDS`."""
_NOTHING_STEERS = _steering(_Body())


def parse(api: Api, body: bytes) -> InferenceRequest | Rejection:
    """Understand a body, or say why not."""
    if not body:
        return Rejection("invalid-json", "The body is empty; send a JSON object.")
    try:
        if not body.isascii():
            body.decode()
        fields = _decode_body(body)
    except UNREADABLE as error:
        return unreadable(error)
    model = _model(fields.model)
    if isinstance(model, Rejection):
        return model
    refusal = _refusal_of_prompt(api, fields)
    if refusal is not None:
        return refusal
    return InferenceRequest(
        api=api,
        model=model,
        stream=bytes(fields.stream) == b"true",
        body=body,
        model_slice=fields.model,
        stream_options_slice=fields.stream_options,
        prompt=_prompt(api, fields),
        cache_salt=_salt(fields.cache_salt),
        control=_steering(fields) != _NOTHING_STEERS,
    )


UNREADABLE = (UnicodeDecodeError, msgspec.DecodeError, RecursionError)
"""What decoding a body raises where it is no JSON in UTF-8."""


def unreadable(error: Exception) -> Rejection:
    """The answer to a body that raised one of UNREADABLE; nesting gets our own words, since Python's speak
    of its stack."""
    if isinstance(error, UnicodeDecodeError):
        return Rejection("invalid-json", f"The body is not UTF-8: byte {error.start} is invalid.")
    deep = isinstance(error, RecursionError)
    told = "it is nested too deeply" if deep else str(error).removeprefix("JSON is malformed: ")
    return Rejection("invalid-json", f"The body is not a JSON object: {told}.")


def _model(raw: msgspec.Raw) -> str | Rejection:
    if not bytes(raw):
        return Rejection("missing-model", "The body has no `model`; name the model to use.", "model")
    try:
        model = _decode_string(raw)
    except msgspec.DecodeError:
        model = ""
    return model or Rejection("invalid-model", "`model` must be a non-empty string.", "model")


def _prompt(api: Api, fields: _Body) -> dict[str, msgspec.Raw]:
    found = {}
    for name in api.preface + api.prompt_fields:
        raw = getattr(fields, name)
        if memoryview(raw) and raw != _NULL:
            found[name] = raw
    return found


def _salt(raw: msgspec.Raw) -> str:
    """A salt that is no string is the engine's to refuse."""
    try:
        return _decode_string(raw) if memoryview(raw) else ""
    except msgspec.DecodeError:
        return ""


def _refusal_of_prompt(api: Api, fields: _Body) -> Rejection | None:
    """What is wrong with the prompt: the first of the API's prompt fields that is there and not null."""
    for name in api.prompt_fields:
        text = memoryview(getattr(fields, name))
        if not text or text[0] == ord("n"):
            continue
        if text[0] not in api.openings:
            return Rejection("invalid-input", f"`{name}` has the wrong type.", name)
        return None
    wanted = api.prompt_fields[0]
    return Rejection("missing-input", f"The body has no `{wanted}`; it carries the prompt.", wanted)
