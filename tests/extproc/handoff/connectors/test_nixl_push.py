import pytest

from extproc.handoff.connectors.nixl_push import NixlPush


def test_the_prefill_engine_is_told_that_another_one_decodes(transfer, fields):
    assert fields(NixlPush().prefill(transfer())) == {
        "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False}
    }


def test_the_decode_engine_knows_all_before_the_prompt_is_computed(transfer, fields):
    assert fields(NixlPush().decode(transfer(), None)) == {
        "kv_transfer_params": {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_engine_id": "eng-1",
            "remote_host": "10.0.0.1",
            "remote_port": 5600,
            "tp_size": 4,
            "remote_request_id": "chatcmpl-5f0c-77",
        }
    }


def test_ipv6_hosts_are_bare(transfer, fields):
    """vLLM writes the brackets itself."""
    params = fields(NixlPush().decode(transfer(host="fd00::1"), None))["kv_transfer_params"]

    assert params["remote_host"] == "fd00::1"


@pytest.mark.parametrize(
    ("api", "name"),
    [("chat", "chatcmpl-5f0c-77"), ("completions", "cmpl-5f0c-77-0"), ("messages", "chatcmpl-5f0c-77")],
)
def test_the_request_is_called_as_vllm_calls_it(transfer, fields, api, name):
    params = fields(NixlPush().decode(transfer(api=api), None))["kv_transfer_params"]

    assert params["remote_request_id"] == name
    assert api in NixlPush.apis


def test_apis_that_name_requests_at_random_are_not_handed_off():
    assert "responses" not in NixlPush.apis


def test_only_the_first_attempt_may_register():
    assert NixlPush.tries == 1
