from pathlib import Path

import pytest

from benchmarks.engine.settings import EngineSettings


def test_the_defaults_are_in_range() -> None:
    settings = EngineSettings()
    assert settings.num_blocks * settings.block_size >= settings.max_model_len


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "pod\r\nx: y"),
        ("name", "poð"),
        ("model", ""),
        ("port", -1),
        ("max_loras", -1),
        ("max_model_len", 1),
        ("block_size", 0),
        ("num_blocks", 10),
        ("max_running", 0),
        ("max_waiting", -1),
        ("prefill_tokens_per_s", 0.0),
        ("prefill_tokens_per_s", float("nan")),
        ("inter_token_s", -0.1),
        ("inter_token_s", float("nan")),
        ("inter_token_s_per_answer", -0.1),
        ("prefill_chunk_tokens", -1),
        ("reply_tokens", 0),
        ("keep_requests", -1),
        ("data_parallel_size", 0),
        ("kv_events", -2),
        ("kv_events_replay", -2),
        ("kv_events_replay", 0),
        ("kv_events_buffer", 0),
        ("tls_cert", Path("x")),
        ("role", "router"),
        ("role", "prefill"),
        ("connector", "p2p"),
        ("kv_port", -1),
        ("tensor_parallel_size", 0),
        ("kv_peers", ("127.0.0.1:5600",)),
        ("transfer_s_per_token", -0.1),
        ("handshake_s", float("nan")),
        ("kv_lease_s", -1.0),
        ("transfer_timeout_s", -1.0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        EngineSettings(**{field: value})


def test_adapters_need_room() -> None:
    with pytest.raises(ValueError, match="max_loras"):
        EngineSettings(loras=("a",), max_loras=0)


def test_ranks_have_no_connector() -> None:
    with pytest.raises(ValueError, match="data_parallel_size"):
        EngineSettings(data_parallel_size=2, connector="nixl")
