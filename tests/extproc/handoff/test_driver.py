"""What becomes of a hand-off, whatever prefill engines do: for every connector."""

import asyncio
import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.exchange import LocalAnswer, Routing
from extproc.handoff.connectors import CONNECTORS
from extproc.handoff.driver import Driver

OURS = tuple(name for name, connector in CONNECTORS.items() if connector.order != "sidecar")
SEQUENTIAL = tuple(name for name, connector in CONNECTORS.items() if connector.order == "sequential")
CONCURRENT = tuple(name for name, connector in CONNECTORS.items() if connector.order == "concurrent")
ALONE = tuple(name for name in OURS if CONNECTORS[name].decodes_alone)
FAILURES = ("refused", "status", "broken", "timeout")
REJECTION = b'{"error":{"message":"bad tool"}}'


def patience(how):
    """Seconds; short only where it has to end, so that a slow machine sees no failure but the wanted one."""
    return 0.2 if how == "timeout" else 30.0


async def engine_that(how, start, nobody):
    """A prefill engine that fails in the named way, or does not."""
    match how:
        case "refused":
            return nobody()
        case "status":
            return await start(status=503)
        case "broken":
            return await start(resets=True)
        case "timeout":
            return await start(gate=asyncio.Event())
        case "rejected":
            return await start(status=400)
        case "no-parameters":
            return await start(answer=b"{}")
    return await start()


@pytest.fixture
def failing(start, nobody):
    return lambda how: engine_that(how, start, nobody)


async def outcome(driver, handoff, writing=0):
    """What Envoy gets first, which takes `writing` turns of the event loop, and what it gets later."""
    course = driver.begin(handoff)
    try:
        decision = await course.decided()
        for _ in range(writing):
            await asyncio.sleep(0)
        return decision, await course.failed() if course.pending else None
    finally:
        await course.close()


def reason(answer):
    return dict(answer.headers)["x-kvoy-reason"]


@pytest.mark.parametrize("connector", OURS)
async def test_a_computed_prompt_goes_on_to_the_decode_endpoint(
    driver, handoff, start, books, diary, connector
):
    engine = await start()

    decision, late = await outcome(driver, handoff(connector, engine.endpoint("p")))

    assert isinstance(decision, Routing)
    assert late is None
    assert [way[0] for way in books.ways] == ["computed"]
    assert (diary.tries, diary.endings) == ([("p", "computed")], ["transferred"])
    assert books.live == {}


@pytest.mark.parametrize("connector", OURS)
async def test_the_prompt_leg_is_the_request_for_one_token(driver, handoff, start, connector):
    engine = await start()

    await outcome(driver, handoff(connector, engine.endpoint("p", rank=1)))

    (asked,) = engine.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body["messages"] == [{"role": "user", "content": "hi"}]
    # SGLang's prefill engine stops by itself, and its token is the answer's first one.
    assert asked.body.get("max_tokens") == (None if connector == "sglang" else 1)
    assert asked.body.get("stream", False) is False
    sent = {name: asked.headers[name] for name in ("content-type", "x-request-id", "x-data-parallel-rank")}
    assert sent == {"content-type": "application/json", "x-request-id": "r-1", "x-data-parallel-rank": "1"}
    assert (asked.headers["authorization"], asked.headers["traceparent"]) == ("Bearer k", "t")


async def test_one_rank_needs_no_header(driver, handoff, start):
    engine = await start()
    await outcome(driver, handoff("nixl", engine.endpoint("p")))

    assert "x-data-parallel-rank" not in engine.asked[0].headers


@pytest.mark.parametrize("connector", [name for name in OURS if name not in ("http", "lmcache")])
async def test_what_the_transfer_added_can_be_cut_out_again(driver, handoff, start, connector):
    engine = await start()
    given = handoff(connector, engine.endpoint("p"))

    decision, _ = await outcome(driver, given)

    cut = decision.transferred
    assert cut.length > 0
    assert decision.body[: cut.start] + decision.body[cut.start + cut.length :] == given.body
    assert (cut.partners, cut.tries) == (given.partners, CONNECTORS[connector].tries)
    assert cut.needed is (connector == "sglang")
    assert decision.headers == given.routing.headers
    assert replace(decision, body=None, transferred=None) == given.routing


@pytest.mark.parametrize("connector", ["http", "lmcache"])
async def test_engines_that_share_a_store_get_the_request_as_it_is(driver, handoff, start, connector):
    given = handoff(connector, (await start(answer=b"{}")).endpoint("p"))

    assert await outcome(driver, given) == (given.routing, None)


async def test_parameters_are_passed_on_to_the_letter(driver, handoff, start):
    from_engine = b'{"a" : 1.0, "b":[[1, 2]]}'
    engine = await start(answer=b'{"kv_transfer_params":' + from_engine + b"}")

    decision, _ = await outcome(driver, handoff("nixl", engine.endpoint("p")))

    assert b'"kv_transfer_params":' + from_engine in decision.body


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("connector", OURS)
async def test_a_prefill_endpoint_that_fails_is_replaced(
    driver, handoff, start, failing, books, diary, connector, how
):
    bad, good = await failing(how), await start()

    decision, late = await outcome(
        driver,
        handoff(
            connector, bad.endpoint("bad"), good.endpoint("good"), timeout_s=0.5 if how == "timeout" else 30.0
        ),
    )

    assert isinstance(decision, Routing)
    assert late is None
    assert diary.tries == [("bad", how), ("good", "computed")]
    assert [way[:2] for way in books.ways] == [("moved", "pod/default/good"), ("computed", 9)]
    assert (diary.endings, books.live) == (["transferred"], {})


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("connector", ALONE)
async def test_when_all_fail_the_decode_endpoint_computes_the_prompt(
    driver, handoff, failing, books, diary, connector, how
):
    given = handoff(
        connector,
        (await failing(how)).endpoint("a"),
        (await failing(how)).endpoint("b"),
        timeout_s=patience(how),
    )

    assert await outcome(driver, given) == (given.routing, None)
    assert diary.tries == [("a", how), ("b", how)]
    assert books.ways == [("moved", "pod/default/b"), ("dropped", True)]
    assert (diary.endings, books.live) == (["alone"], {})


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize(("connector", "decode_alone"), [*((name, False) for name in OURS), ("sglang", True)])
async def test_when_all_fail_and_nobody_else_may_the_client_gets_an_error(
    driver, handoff, failing, books, diary, connector, decode_alone, how
):
    bad = await failing(how)

    decision, _ = await outcome(
        driver, handoff(connector, bad.endpoint("a"), timeout_s=patience(how), decode_alone=decode_alone)
    )

    assert isinstance(decision, LocalAnswer)
    wanted = (504, "prefill-timeout") if how == "timeout" else (502, "prefill-failed")
    assert (decision.status, reason(decision)) == wanted
    assert json.loads(decision.body)["error"]["type"] == "server_error"
    assert bad.address.encode() not in decision.body
    assert books.ways == [("dropped", True)]
    assert (diary.endings, books.live) == (["failed"], {})


@pytest.mark.parametrize("connector", OURS)
async def test_two_prefill_endpoints_are_tried_and_no_third(driver, handoff, start, connector):
    engines = [await start(status=500) for _ in range(3)]

    await outcome(driver, handoff(connector, *(each.endpoint(str(at)) for at, each in enumerate(engines))))

    assert [len(engine.asked) for engine in engines] == [1, 1, 0]


@pytest.mark.parametrize("status", [408, 425, 429, 302, 500, 502, 503])
async def test_errors_of_the_moment_are_no_verdict_on_the_request(driver, handoff, start, diary, status):
    busy, free = await start(status=status), await start()

    await outcome(driver, handoff("nixl", busy.endpoint("busy"), free.endpoint("free")))

    assert diary.tries == [("busy", "status"), ("free", "computed")]


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("connector", ALONE)
async def test_a_wrong_request_is_the_decode_endpoints_to_refuse(
    driver, handoff, start, books, diary, connector, status
):
    first, second = await start(status=status, answer=REJECTION), await start()
    given = handoff(connector, first.endpoint("p"), second.endpoint("q"))

    assert await outcome(driver, given) == (given.routing, None)
    assert second.asked == []
    assert (diary.tries, diary.endings) == ([("p", "rejected")], ["alone"])
    assert books.live == {}


@pytest.mark.parametrize(("connector", "decode_alone"), [*((name, False) for name in OURS), ("sglang", True)])
async def test_a_wrong_request_that_only_prefill_endpoints_judge_gets_their_answer(
    driver, handoff, start, books, connector, decode_alone
):
    engine = await start(status=422, answer=REJECTION)

    decision, _ = await outcome(driver, handoff(connector, engine.endpoint("p"), decode_alone=decode_alone))

    assert (decision.status, decision.body) == (422, REJECTION)
    assert dict(decision.headers) == {"content-type": "application/json"}
    assert books.live == {}


async def test_a_refusal_too_long_to_pass_on_is_ours(driver, handoff, start):
    engine = await start(status=400, answer=b"x" * (2**20 + 1))

    decision, _ = await outcome(driver, handoff("nixl", engine.endpoint("p"), decode_alone=False))

    assert (decision.status, reason(decision)) == (502, "prefill-failed")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (b"{}", "no-parameters"),
        (b'{"kv_transfer_params":null}', "no-parameters"),
        (b'{"kv_transfer_params":7}', "broken"),
        (b"<html>", "broken"),
        (b"", "broken"),
        (b"\xff", "broken"),
    ],
)
async def test_an_answer_without_what_is_needed_is_a_failure(
    driver, handoff, start, books, diary, answer, result
):
    given = handoff("nixl", (await start(answer=answer)).endpoint("p"))

    assert await outcome(driver, given) == (given.routing, None)
    assert (diary.tries, diary.endings, books.live) == ([("p", result)], ["alone"], {})


async def test_a_sidecar_is_only_told_where(driver, handoff, nobody, books, diary):
    given = handoff("sidecar", nobody().endpoint("p"))

    decision, late = await outcome(driver, given)

    assert decision.headers == (("x-own", "1"), ("x-prefiller-host-port", given.prefills[0].address))
    assert (decision.body, late) == (None, None)
    assert (decision.transferred.length, decision.transferred.partners) == (0, given.partners)
    assert (books.ways, books.live) == ([("sidecar", 77)], {})
    assert (diary.tries, diary.endings) == ([], ["sidecar"])


# The decode endpoint already waits.


@pytest.mark.parametrize("connector", CONCURRENT)
async def test_the_answers_leg_does_not_wait_for_the_prompt(hasty, handoff, start, books, diary, connector):
    engine = await start(gate=asyncio.Event())
    course = hasty.begin(handoff(connector, engine.endpoint("p")))

    decision = await course.decided()
    assert isinstance(decision, Routing)
    assert course.pending
    assert (books.ways, diary.endings) == ([], [])
    engine.gate.set()

    assert await course.failed() is None
    assert not course.pending
    assert [way[0] for way in books.ways] == ["computed"]
    await course.close()
    assert (diary.tries, diary.endings) == ([("p", "computed")], ["transferred"])


@pytest.mark.parametrize(
    ("connector", "how"),
    # Where nobody listens, no bootstrap server does either: it shows before the decision.
    [(name, how) for name in CONCURRENT for how in FAILURES if (name, how) != ("mooncake", "refused")],
)
async def test_a_late_failure_ends_the_waiting_decode(
    hasty, handoff, start, failing, books, diary, connector, how
):
    bad, good = await failing(how), await start()

    decision, late = await outcome(
        hasty, handoff(connector, bad.endpoint("bad"), good.endpoint("good"), timeout_s=patience(how))
    )

    assert isinstance(decision, Routing)
    wanted = (504, "prefill-timeout") if how == "timeout" else (502, "prefill-failed")
    assert (late.status, reason(late)) == wanted
    assert good.asked == []
    assert books.ways == [("dropped", True)]
    assert (diary.tries, diary.endings) == ([("bad", how)], ["failed"])


async def test_a_failure_while_envoy_is_told_is_not_missed(hasty, handoff, start, diary, until):
    course = hasty.begin(handoff("sglang", (await start(status=503)).endpoint("p")))
    await course.decided()
    await until(lambda: diary.endings)

    assert course.pending
    assert (await course.failed()).status == 502
    await course.close()


@pytest.mark.parametrize("connector", CONCURRENT)
async def test_a_late_refusal_reaches_the_client(hasty, handoff, start, connector):
    engine = await start(status=400, answer=REJECTION)

    _, late = await outcome(hasty, handoff(connector, engine.endpoint("p")))

    assert (late.status, late.body) == (400, REJECTION)


async def test_each_try_meets_in_a_room_of_its_own(driver, handoff, start):
    first, second = await start(status=500), await start()

    decision, _ = await outcome(driver, handoff("sglang", first.endpoint("p"), second.endpoint("q")))

    rooms = [engine.asked[0].body["bootstrap_room"] for engine in (first, second)]
    assert rooms[0] != rooms[1]
    decode = json.loads(decision.body)
    assert decode["bootstrap_room"] == rooms[1]
    assert decode["bootstrap_port"] == second.source.port


async def test_mooncake_engines_are_named_as_their_bootstrap_server_does(driver, handoff, start):
    engine = await start()

    decision, _ = await outcome(driver, handoff("mooncake", engine.endpoint("p", rank=1)))

    params = json.loads(decision.body)["kv_transfer_params"]
    assert params["remote_engine_id"] == "eng-one"
    assert params["transfer_id"] == engine.asked[0].body["kv_transfer_params"]["transfer_id"]


async def test_a_prefill_engine_that_fails_is_asked_for_its_id_again(driver, handoff, start):
    """It may be another life of it that answers next."""
    engine = await start(status=500)

    await outcome(driver, handoff("mooncake", engine.endpoint("p"), engine.endpoint("p")))

    assert engine.queries == 2


# The client leaves.


@pytest.mark.parametrize("connector", OURS)
async def test_a_client_that_leaves_before_the_decision_ends_the_prefill(
    driver, handoff, start, books, diary, until, connector
):
    engine = await start(gate=asyncio.Event())
    waiting = asyncio.get_running_loop().create_task(
        outcome(driver, handoff(connector, engine.endpoint("p"), engine.endpoint("q")))
    )
    await until(lambda: engine.open == 1)

    waiting.cancel()

    await until(lambda: engine.aborted == 1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (books.ways, books.live) == ([("dropped", False)], {})
    assert (diary.tries, diary.endings) == ([("p", "left")], ["left"])
    assert len(engine.asked) == 1


@pytest.mark.parametrize("connector", CONCURRENT)
async def test_a_client_that_leaves_after_the_decision_ends_the_prefill(
    hasty, handoff, start, books, diary, until, connector
):
    engine = await start(gate=asyncio.Event())
    waiting = asyncio.get_running_loop().create_task(outcome(hasty, handoff(connector, engine.endpoint("p"))))
    await until(lambda: engine.open == 1)

    waiting.cancel()

    await until(lambda: engine.aborted == 1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (books.ways, books.live) == ([("dropped", False)], {})
    assert (diary.tries, diary.endings) == ([("p", "left")], ["left"])


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_a_course_that_nobody_followed_gives_back_what_was_reserved(
    driver, handoff, start, books, diary, connector
):
    engine = await start()

    await driver.begin(handoff(connector, engine.endpoint("p"))).close()

    assert (books.ways, books.live, diary.endings) == ([("dropped", False)], {}, ["left"])
    assert engine.asked == []


@pytest.mark.parametrize("connector", CONCURRENT)
async def test_a_decision_that_never_reached_envoy_ends_the_prefill(
    hasty, handoff, start, books, until, connector
):
    engine = await start(gate=asyncio.Event())
    course = hasty.begin(handoff(connector, engine.endpoint("p")))
    await course.decided()

    await course.close()

    assert (books.ways, books.live) == ([("dropped", False)], {})
    await until(lambda: engine.open == 0)


# The worker stops.


@pytest.mark.parametrize("connector", CONCURRENT)
async def test_a_worker_that_stops_ends_waiting_decodes_with_an_error(
    hasty, handoff, start, books, diary, until, connector
):
    engine = await start(gate=asyncio.Event())
    course = hasty.begin(handoff(connector, engine.endpoint("p")))
    await course.decided()
    await until(lambda: engine.open == 1)

    hasty.give_up()

    late = await course.failed()
    assert (late.status, reason(late)) == (502, "prefill-failed")
    assert (books.live, diary.endings) == ({}, ["failed"])
    await until(lambda: engine.aborted == 1)


async def test_a_worker_that_stops_does_not_disturb_what_is_done(hasty, handoff, start, until):
    engine = await start()
    course = hasty.begin(handoff("sglang", engine.endpoint("p")))
    await course.decided()
    await until(lambda: not course.pending)

    hasty.give_up()

    assert await course.failed() is None


async def test_a_worker_that_stops_lets_prompts_be_computed_that_envoy_still_waits_for(
    driver, handoff, start, until
):
    engine = await start(gate=asyncio.Event())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(outcome(driver, handoff("nixl", engine.endpoint("p"))))
        await until(lambda: engine.open == 1)
        driver.give_up()
        engine.gate.set()

    assert waiting.result()[0].transferred is not None


async def test_a_driver_that_closes_leaves_no_call_behind(
    engines, books, diary, clock, handoff, start, until
):
    engine = await start(gate=asyncio.Event())
    async with Driver(engines, books, diary, Random(1), clock, head_start_s=0) as driver:
        await driver.begin(handoff("sglang", engine.endpoint("p"))).decided()
        await until(lambda: engine.open == 1)

    await until(lambda: engine.open == 0)
    assert books.live == {}


# Defects.


@pytest.mark.parametrize("connector", ALONE)
async def test_a_defect_costs_a_transfer_and_not_the_worker(
    driver, handoff, start, books, diary, caplog, connector
):
    """A body that nobody can edit stands for all that was not foreseen."""
    broken = handoff(connector, (await start()).endpoint("p"), body=b"[] s3cret", reservation=1)

    decision, _ = await outcome(driver, broken)

    assert (decision, diary.tries, diary.endings) == (broken.routing, [("p", "defect")], ["alone"])
    assert books.live == {}
    assert "a defect in a hand-off" in caplog.text
    assert "s3cret" not in caplog.text
    books.live[1] = "first"
    decision, _ = await outcome(driver, handoff(connector, (await start()).endpoint("p")))
    assert diary.endings[-1] == "transferred"


async def test_an_api_whose_requests_have_no_known_name_is_computed_alone(driver, handoff, start):
    given = handoff("nixl-push", (await start()).endpoint("p"), api="/v1/responses", body=b'{"input":"a"}')

    assert await outcome(driver, given) == (given.routing, None)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    connector=st.sampled_from(tuple(CONNECTORS)),
    hows=st.lists(
        st.sampled_from([*FAILURES, "rejected", "no-parameters", "computed"]), min_size=1, max_size=3
    ),
    head_start_s=st.sampled_from([0, 0.005, 5]),
    leaves_after=st.one_of(st.none(), st.integers(1, 40)),
    writing=st.integers(0, 20),
    decode_alone=st.booleans(),
)
def test_whatever_happens_a_reservation_is_given_back_once(
    world, handoff, nobody, connector, hows, head_start_s, leaves_after, writing, decode_alone
):
    """Leaving, and telling Envoy, take turns of the event loop: anything may happen between any two steps."""

    async def play():
        async with world(head_start_s) as here:
            engines = [await engine_that(how, here.start, nobody) for how in hows]
            endpoints = [engine.endpoint(str(at)) for at, engine in enumerate(engines)]
            given_off = handoff(connector, *endpoints, timeout_s=0.05, decode_alone=decode_alone)
            asking = asyncio.get_running_loop().create_task(outcome(here.driver, given_off, writing))
            if leaves_after is not None:
                for _ in range(leaves_after):
                    await asyncio.sleep(0)
                asking.cancel()
            await asyncio.wait((asking,))
            assert here.books.live == {}
            assert len(here.diary.endings) == 1
            assert len(here.diary.tries) <= 2
            if not asking.cancelled():
                decision, late = asking.result()
                told = here.diary.endings == ["failed"]
                assert told is (isinstance(decision, LocalAnswer) or late is not None)

    asyncio.run(play())
