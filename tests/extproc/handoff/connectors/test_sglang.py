from extproc.handoff.connectors.sglang import SGLang


def test_both_engines_meet_in_one_room(transfer, fields):
    meeting = {"bootstrap_host": "10.0.0.1", "bootstrap_port": 5600, "bootstrap_room": 2**62 + 1}

    assert fields(SGLang().prefill(transfer())) == meeting
    assert fields(SGLang().decode(transfer(), None)) == meeting


def test_the_decode_engine_learns_which_rank_computes_the_prompt(transfer, fields):
    assert fields(SGLang().decode(transfer(rank=0), None))["disagg_prefill_dp_rank"] == 0
    assert "disagg_prefill_dp_rank" not in fields(SGLang().prefill(transfer(rank=0)))


def test_ipv6_hosts_come_in_brackets(transfer, fields):
    """SGLang joins host and port by a colon."""
    assert fields(SGLang().decode(transfer(host="fd00::1"), None))["bootstrap_host"] == "[fd00::1]"


def test_no_decode_engine_computes_a_prompt():
    assert not SGLang.decodes_alone
