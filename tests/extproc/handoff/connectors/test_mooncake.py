from extproc.handoff.connectors.mooncake import Mooncake


def test_both_engines_meet_under_one_transfer_id(transfer, fields):
    name = f"xfer-5f0c-77-{2**62 + 1:x}"
    assert fields(Mooncake().prefill(transfer())) == {
        "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": name}
    }
    assert fields(Mooncake().decode(transfer(), None)) == {
        "kv_transfer_params": {
            "do_remote_decode": False,
            "do_remote_prefill": True,
            "remote_bootstrap_addr": "http://10.0.0.1:5600",
            "remote_engine_id": "eng-1",
            "transfer_id": name,
        }
    }


def test_another_try_is_another_transfer(transfer):
    one, other = (Mooncake().prefill(transfer(room=room)) for room in (1, 2))

    assert one != other


def test_the_bootstrap_servers_address_is_a_url(transfer, fields):
    params = fields(Mooncake().decode(transfer(host="fd00::1"), None))["kv_transfer_params"]

    assert params["remote_bootstrap_addr"] == "http://[fd00::1]:5600"


def test_only_the_first_attempt_may_ask_for_the_transfer():
    assert Mooncake.tries == 1
    assert Mooncake.asks_engine_id
