import pytest

from benchmarks.engine.api import catalogue
from benchmarks.engine.api.catalogue import DetokenizeRequest, LoadRequest, TokenizeRequest, UnloadRequest
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.prompts import Message
from benchmarks.engine.models import Models


@pytest.fixture
def models() -> Models:
    return Models("tiny", ["lora-a"])


def test_the_listing_names_adapters_with_their_parent(models: Models) -> None:
    base, adapter = catalogue.listing(models, 1, 4096)["data"]
    assert (base["id"], base["parent"], base["max_model_len"]) == ("tiny", None, 4096)
    assert (adapter["id"], adapter["parent"], adapter["max_model_len"]) == ("lora-a", "tiny", None)


def test_loading_and_unloading_read_as_vllms(models: Models, captures) -> None:
    load, unload = LoadRequest("lora-b", "DIR/tiny-lora-b"), UnloadRequest("lora-b")
    assert catalogue.load(models, load) == captures["lora_load"].body
    with pytest.raises(ApiError) as again:
        catalogue.load(models, load)
    assert again.value.body() == captures["lora_load_again"].json
    assert catalogue.unload(models, unload) == captures["lora_unload"].body
    with pytest.raises(ApiError) as gone:
        catalogue.unload(models, unload)
    assert gone.value.body() == captures["lora_unload_again"].json


def test_an_adapter_can_be_replaced_in_place(models: Models) -> None:
    catalogue.load(models, LoadRequest("lora-a", "/new", load_inplace=True))
    assert models.adapters == {"lora-a": "/new"}


@pytest.mark.parametrize("request_", [LoadRequest("", "/x"), LoadRequest("x", "")])
def test_an_adapter_needs_a_name_and_a_path(models: Models, request_: LoadRequest) -> None:
    with pytest.raises(ApiError, match="must be provided"):
        catalogue.load(models, request_)


@pytest.mark.parametrize("name", ["tokenize_completion", "tokenize_chat"])
def test_tokenizing_is_shaped_like_vllms(models: Models, captures, name: str) -> None:
    captured = captures[name].json
    request = (
        TokenizeRequest(prompt="def main(): return 1", return_token_strs=True)
        if name == "tokenize_completion"
        else TokenizeRequest(messages=[Message("user", "hello")], return_token_strs=True)
    )
    given = catalogue.tokenize(request, models, 4096)
    assert list(given) == list(captured)
    assert given["max_model_len"] == captured["max_model_len"]
    assert given["count"] == len(given["tokens"]) == len(given["token_strs"])


def test_pieces_come_only_when_asked_for(models: Models) -> None:
    assert catalogue.tokenize(TokenizeRequest(prompt="x"), models, 9)["token_strs"] is None


def test_what_was_tokenized_can_be_detokenized(models: Models) -> None:
    tokens = catalogue.tokenize(TokenizeRequest(prompt="def main()"), models, 9)["tokens"]
    assert catalogue.detokenize(DetokenizeRequest(tokens), models) == {"prompt": "def main()"}


def test_the_generation_prompt_can_be_left_out(models: Models) -> None:
    messages = [Message("user", "hello")]
    long = catalogue.tokenize(TokenizeRequest(messages=messages), models, 9)
    short = catalogue.tokenize(TokenizeRequest(messages=messages, add_generation_prompt=False), models, 9)
    assert long["tokens"][: short["count"]] == short["tokens"]
    assert short["count"] < long["count"]


def test_wrong_requests_are_refused(models: Models) -> None:
    with pytest.raises(ApiError, match="prompt or messages"):
        catalogue.tokenize(TokenizeRequest(), models, 9)
    with pytest.raises(ApiError, match="nope"):
        catalogue.tokenize(TokenizeRequest(prompt="x", model="nope"), models, 9)
    with pytest.raises(ApiError, match="vocabulary"):
        catalogue.detokenize(DetokenizeRequest([-5]), models)
