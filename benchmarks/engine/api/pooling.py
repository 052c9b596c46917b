"""``/v1/embeddings`` and ``/v1/rerank``: work that ends with its prefill."""

import base64
import hashlib
import struct
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from benchmarks.engine.api.ask import Envelope, check_length, resolve
from benchmarks.engine.api.prompts import Prompt, prompts
from benchmarks.engine.models import Adapter, Models
from benchmarks.engine.runtime import Work
from benchmarks.engine.tokens import Tokens, encode

DIMENSIONS = 16

_NO_ANSWER = encode("")


class EmbeddingRequest(msgspec.Struct):
    """The fields that have an effect."""

    input: Prompt
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"


class TextDocument(msgspec.Struct):
    """A document as an object."""

    text: str


Document: TypeAlias = str | TextDocument


class RerankRequest(msgspec.Struct):
    """The fields that have an effect."""

    query: str
    documents: list[Document]
    model: str | None = None
    top_n: int = 0
    """0 returns all."""


def embedding_works(request: EmbeddingRequest, models: Models, longest: int) -> list[Work]:
    """One piece of work per input; ApiError if the engine does not take it."""
    return _works(prompts(request.input, "input"), resolve(request.model, models), longest)


def rerank_works(request: RerankRequest, models: Models, longest: int) -> list[Work]:
    """One piece of work per document; ApiError if the engine does not take it."""
    texts: Prompt = [request.query + text for text in _texts(request)]
    return _works(prompts(texts, "documents"), resolve(request.model, models), longest)


def embeddings(envelope: Envelope, request: EmbeddingRequest, works: Sequence[Work]) -> dict[str, object]:
    """The body of an embeddings answer: equal inputs get equal vectors."""
    vectors = [_vector(work.prompt) for work in works]
    return {
        "id": f"embd-{envelope.id}",
        "object": "list",
        "created": envelope.created,
        "model": envelope.model,
        "data": [
            {
                "index": index,
                "object": "embedding",
                "embedding": _base64(vector) if request.encoding_format == "base64" else vector,
            }
            for index, vector in enumerate(vectors)
        ],
        "usage": {**_usage(works), "completion_tokens": 0, "prompt_tokens_details": None},
    }


def rerank(envelope: Envelope, request: RerankRequest, works: Sequence[Work]) -> dict[str, object]:
    """The body of a rerank answer: a document's score is the share of the query's words it holds."""
    query = set(request.query.lower().split())
    texts = _texts(request)
    scores = [len(query & set(text.lower().split())) / max(1, len(query)) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: (-scores[index], index))
    return {
        "id": f"rerank-{envelope.id}",
        "model": envelope.model,
        "usage": _usage(works),
        "results": [
            {
                "index": index,
                "document": {"text": texts[index], "multi_modal": None},
                "relevance_score": scores[index],
            }
            for index in order[: request.top_n or len(order)]
        ],
    }


def _works(inputs: Sequence[Tokens], adapter: Adapter | None, longest: int) -> list[Work]:
    for tokens in inputs:
        check_length(tokens, longest)
    return [Work(tokens, _NO_ANSWER, "stop", 0, adapter) for tokens in inputs]


def _texts(request: RerankRequest) -> list[str]:
    return [item if isinstance(item, str) else item.text for item in request.documents]


def _usage(works: Sequence[Work]) -> dict[str, object]:
    tokens = sum(len(work.prompt) for work in works)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _vector(tokens: Tokens) -> list[float]:
    """Components between -1 and 1 from a digest of the input."""
    digest = hashlib.sha256(tokens.tobytes()).digest()
    return [unit / 32_768 - 1 for unit in struct.unpack(f"<{DIMENSIONS}H", digest)]


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
