import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.collect import metrics
from extproc.collect.metrics import Observation, Tally, Unreadable, aggregated, read

IDLE_VLLM = 'vllm:num_requests_running{engine="0",model_name="m"} 0.0\n'


def only(text):
    """The observation of the only rank."""
    (observation,) = read(text).ranks.values()
    return observation


@pytest.mark.parametrize("name", ["idle", "after_load", "pd_1", "pd_2"])
def test_a_captured_vllm_tells_everything(capture, name):
    exposition = read(capture(name))

    observation = exposition.ranks[0]
    assert list(exposition.ranks) == [0]
    assert 1.79e9 < exposition.started < 1.80e9
    assert (observation.running, observation.waiting, observation.kv_usage) == (0, 0, 0.0)
    assert not observation.asleep
    assert (observation.block_size, observation.capacity_tokens) == (32, 131072)


def test_latencies_are_sums_and_counts(capture):
    observation = only(capture("after_load"))

    assert observation.ttft == Tally(216.19846534729004, 193)
    assert observation.tpot == Tally(349.1710437540064, 8104)


def test_data_parallel_ranks_are_kept_apart(capture):
    ranks = read(capture("dp2")).ranks

    assert [ranks[0].ttft.events, ranks[1].ttft.events] == [2, 8]
    assert [rank.capacity_tokens for rank in ranks.values()] == [131072, 131072]


def test_waiting_by_reason_is_not_counted_as_waiting():
    text = (
        'vllm:num_requests_waiting{engine="0",model_name="m"} 3.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 3.0\n'
    )

    assert only(text).waiting == 3


def test_what_is_not_exposed_is_none_and_not_zero():
    assert only(IDLE_VLLM) == Observation(running=0)


def test_the_old_name_of_cache_usage_is_known():
    assert only('vllm:gpu_cache_usage_perc{model_name="m"} 0.25\n').kv_usage == 0.25


def test_the_new_name_of_a_latency_wins_over_the_old_one():
    text = "".join(
        f'vllm:{name}_{part}{{engine="0"}} {value}\n'
        for name, value in (("time_per_output_token_seconds", 1), ("inter_token_latency_seconds", 2))
        for part in ("sum", "count")
    )

    assert only(text).tpot == Tally(2, 2)


def test_a_sum_without_its_count_is_no_latency():
    assert only(IDLE_VLLM + 'vllm:time_to_first_token_seconds_sum{engine="0"} 2.0\n').ttft is None


def test_the_newest_lora_series_tells_which_adapters_are_in_use():
    series = (
        'vllm:lora_requests_info{{max_lora="2",running_lora_adapters="{}",waiting_lora_adapters="{}"}} {}\n'
    )
    text = IDLE_VLLM + series.format("old", "", 5) + series.format("a,b", "b,c", 9) + series.format("", "", 7)

    assert read(text).active_adapters == {"a", "b", "c"}


@pytest.mark.parametrize(("awake", "asleep"), [("1.0", False), ("0.0", True)])
def test_a_sleeping_engine_says_so(capture, awake, asleep):
    text = capture("idle").replace('sleep_state="awake"} 1.0', f'sleep_state="awake"}} {awake}')

    assert only(text).asleep is asleep


def test_sglang_is_read_by_its_own_names():
    text = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1"} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1"} 2.0
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0",dp_rank="1"} 0.5
sglang:max_total_num_tokens{model_name="m",tp_rank="0",dp_rank="1"} 8192
sglang:page_size{model_name="m",tp_rank="0",dp_rank="1"} 64
sglang:time_to_first_token_seconds_sum{model_name="m",dp_rank="1",is_streaming="true"} 1.0
sglang:time_to_first_token_seconds_sum{model_name="m",dp_rank="1",is_streaming="false"} 2.0
sglang:time_to_first_token_seconds_count{model_name="m",dp_rank="1",is_streaming="true"} 3.0
sglang:time_to_first_token_seconds_count{model_name="m",dp_rank="1",is_streaming="false"} 4.0
"""

    assert read(text).ranks == {1: Observation(4, 2, 0.5, False, Tally(3, 7), None, 64, 8192)}


def test_shards_and_priorities_of_sglang_repeat_what_is_counted_already():
    text = "".join(
        f"sglang:num_queue_reqs{{{labels}}} 2.0\n"
        for labels in ('tp_rank="0"', 'tp_rank="1"', 'tp_rank="0",priority="5"', 'tp_rank="0",pp_rank="1"')
    )

    assert only(text).waiting == 2


def test_sglang_before_its_gauges_told_its_capacity_in_labels():
    assert only('sglang:cache_config_info{page_size="16",num_pages="10"} 1.0\n').capacity_tokens == 160


def test_blocks_are_the_capacity_where_tokens_are_not_told():
    observation = only('vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0\n')

    assert (observation.block_size, observation.capacity_tokens) == (16, 1600)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1"])
def test_nonsense_is_not_believed(value):
    observation = only(
        f'vllm:num_requests_running{{engine="0"}} {value}\n{IDLE_VLLM.replace("running", "waiting")}'
    )

    assert observation.running is None
    assert observation.waiting == 0


def test_usage_stays_below_one():
    assert only("sglang:token_usage 1.04\n").kv_usage == 1.0


@pytest.mark.parametrize(
    "text", ["", "hello", "<html></html>", "process_start_time_seconds 5\n", "a_total 1\n"]
)
def test_what_is_no_engine_is_refused(text):
    with pytest.raises(Unreadable, match="no metric of vLLM or SGLang"):
        read(text)


@pytest.mark.parametrize("rest", ["{", "{engine=0} 1", '{engine="0"} one', '{engine="0"}', " "])
def test_a_broken_line_is_an_error_and_not_a_missing_value(rest):
    with pytest.raises(Unreadable, match="no Prometheus text"):
        read(f"vllm:num_requests_running{rest}\n")


def test_a_rank_that_is_no_number_is_left_out():
    assert list(read(IDLE_VLLM + IDLE_VLLM.replace('"0"', '"x"')).ranks) == [0]


def test_lines_may_end_as_on_windows():
    assert only(IDLE_VLLM.replace("\n", "\r\n")).running == 0


names = st.sampled_from(sorted(metrics._NAMES))
labels = st.dictionaries(
    st.sampled_from(["engine", "dp_rank", "tp_rank", "sleep_state", "block_size", "running_lora_adapters"]),
    st.text(st.characters(exclude_characters='\n\r"\\', codec="utf-8"), max_size=8),
    max_size=4,
)
values = st.one_of(st.floats().map(str), st.text(max_size=6))


def written(own):
    return ",".join(f'{label}="{text}"' for label, text in own.items())


@given(st.lists(st.tuples(names, labels, values), max_size=8), st.text(max_size=40))
def test_whatever_is_exposed_it_is_read_or_refused(lines, garbage):
    text = "\n".join(f"{name}{{{written(own)}}} {value}" for name, own, value in lines)
    try:
        exposition = read(f"{text}\n{garbage}")
    except Unreadable:
        return
    for one in exposition.ranks.values():
        assert one.kv_usage is None or 0 <= one.kv_usage <= 1
        assert all(
            n is None or n >= 0 for n in (one.running, one.waiting, one.block_size, one.capacity_tokens)
        )
    assert exposition.started is None or math.isfinite(exposition.started)


def test_ranks_add_up_to_one_engine():
    both = aggregated(
        [
            Observation(1, 2, 0.2, True, Tally(1, 2), None, 32, 100),
            Observation(3, None, 0.4, False, Tally(3, 4), None, 32, 100),
        ]
    )

    assert both == Observation(4, 2, pytest.approx(0.3), False, Tally(4, 6), None, 32, 200)
