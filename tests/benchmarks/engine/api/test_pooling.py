import base64
import struct

import pytest

from benchmarks.engine.api import pooling
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.pooling import EmbeddingRequest, RerankRequest, TextDocument
from benchmarks.engine.models import Adapter, Models

MODELS = Models("tiny", ["sql"])


def embedded(envelope, given, **fields) -> dict:
    request = EmbeddingRequest(given, **fields)
    return pooling.embeddings(envelope, request, pooling.embedding_works(request, MODELS, 100))


def test_equal_inputs_get_equal_vectors(envelope) -> None:
    one, two, three = (item["embedding"] for item in embedded(envelope, ["a", "b", "a"])["data"])
    assert one == three != two
    assert len(one) == pooling.DIMENSIONS
    assert all(-1 <= component <= 1 for component in one)


def test_base64_holds_the_same_vector(envelope) -> None:
    plain = embedded(envelope, "a")["data"][0]["embedding"]
    packed = base64.b64decode(embedded(envelope, "a", encoding_format="base64")["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == plain


def test_embeddings_count_their_input(envelope) -> None:
    body = embedded(envelope, [[1, 2, 3], [4]])
    assert (body["object"], [item["index"] for item in body["data"]]) == ("list", [0, 1])
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (4, 0)


def test_inputs_are_checked(envelope) -> None:
    with pytest.raises(ApiError, match="nope"):
        embedded(envelope, "a", model="nope")
    with pytest.raises(ApiError, match="maximum context length"):
        embedded(envelope, "x" * 1000)


def test_an_adapter_runs_under_its_name() -> None:
    (work,) = pooling.embedding_works(EmbeddingRequest("a", "sql"), MODELS, 100)
    assert (work.adapter, len(work.output)) == (Adapter("sql", 1), 0)


def test_rerank_puts_the_closest_document_first(envelope) -> None:
    request = RerankRequest("red apple", ["a car", TextDocument("a red apple"), "an apple"])
    body = pooling.rerank(envelope, request, pooling.rerank_works(request, MODELS, 100))
    assert [(item["index"], item["relevance_score"]) for item in body["results"]] == [
        (1, 1.0),
        (2, 0.5),
        (0, 0.0),
    ]
    assert body["results"][0]["document"] == {"text": "a red apple", "multi_modal": None}


def test_rerank_returns_the_top_n(envelope) -> None:
    request = RerankRequest("a", ["b", "a"], top_n=1)
    body = pooling.rerank(envelope, request, pooling.rerank_works(request, MODELS, 100))
    assert [item["index"] for item in body["results"]] == [1]


def test_rerank_needs_documents() -> None:
    with pytest.raises(ApiError, match="documents"):
        pooling.rerank_works(RerankRequest("a", []), MODELS, 100)
