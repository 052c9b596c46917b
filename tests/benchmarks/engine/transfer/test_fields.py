import msgspec
import pytest

from benchmarks.engine.transfer.fields import TransferFields


def decoded(text: str) -> TransferFields:
    return msgspec.json.decode(text, type=TransferFields)


def test_a_body_need_not_say_anything() -> None:
    assert decoded("{}") == TransferFields()


@pytest.mark.parametrize("value", ["7", '"seven"', "[1, 2]", "null"])
def test_what_only_sglang_reads_may_be_anything(value: str) -> None:
    assert decoded(f'{{"bootstrap_room": {value}}}').bootstrap_room == msgspec.json.decode(value)


@pytest.mark.parametrize("value", ["7", '"seven"', "[1, 2]"])
async def test_vllms_parameters_are_an_object_on_every_endpoint(start, http, value: str) -> None:
    engine = await start()
    for path, prompt in (
        ("chat/completions", '"messages": []'),
        ("completions", '"prompt": "x"'),
        ("messages", '"model": "tiny", "max_tokens": 1, "messages": []'),
        ("responses", '"input": "x"'),
    ):
        body = f'{{{prompt}, "kv_transfer_params": {value}}}'
        async with http.post(f"{engine.url}/v1/{path}", data=body) as answer:
            assert (answer.status, (await answer.json())["error"]["param"]) == (
                400,
                "body.kv_transfer_params",
            )
