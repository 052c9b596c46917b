import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random

import grpc
import pytest
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from google.protobuf.json_format import ParseDict
from grpc import aio

from extproc.accesslog import Outcome
from extproc.decide import Decider
from extproc.exchange import Decide, LocalAnswer, Routing, rejected
from extproc.explain import Journal
from extproc.handoff.handoff import HandOff
from extproc.legs import Legs
from extproc.metrics import Metrics
from extproc.rejection import Rejection
from extproc.reservations import Reservation
from extproc.server import AccessLogSink, ExtProc, drain, grpc_server
from extproc.state.records import Disaggregation
from extproc.testing import a_fleet, a_part, a_pod, a_route, a_rule, a_server, a_snapshot
from extproc.tokens import Found, Miss, Question
from extproc.wire import Encoder

Request = external_processor_pb2.ProcessingRequest
Response = external_processor_pb2.ProcessingResponse

SNAPSHOT = a_snapshot(
    a_route("r", a_rule("s"), model="m"),
    a_server("s"),
    a_pod("a", "s"),
    a_route("apart", a_rule("apart"), model="apart"),
    a_server("apart", apart=Disaggregation("nixl")),
    a_part("p", "apart", "prefill", ip="10.0.0.2"),
    a_part("d", "apart", "decode", ip="10.0.0.3"),
    a_route("at-once", a_rule("at-once"), model="at-once"),
    a_server("at-once", apart=Disaggregation("nixl-push")),
    a_part("p2", "at-once", "prefill", ip="10.0.0.4"),
    a_part("d2", "at-once", "decode", ip="10.0.0.5"),
)
BODY = Request(
    request_body={"body": b'{"model":"m","messages":[]}', "end_of_stream": True}
).SerializeToString()


def headers(path: str = "/v1/chat/completions", content_type: bytes = b"application/json") -> bytes:
    pairs = {
        ":method": b"POST",
        ":path": path.encode(),
        "x-request-id": b"1",
        "content-type": content_type,
    }
    listed = [{"key": key, "raw_value": value} for key, value in pairs.items()]
    return Request(request_headers={"headers": {"headers": listed}}).SerializeToString()


class NoTokens:
    """Token ids that nobody may ask for."""

    async def ids(self, question: Question, within_s: float) -> Found | Miss:
        raise AssertionError("token ids were asked for")


@dataclass
class ACourse:
    """A hand-off that goes as it is told to."""

    handoff: HandOff
    longest_s: float = 60.0
    pending: bool = False
    answer: LocalAnswer | None = None
    """In place of the answer's leg."""
    failure: asyncio.Future[LocalAnswer | None] = field(default_factory=asyncio.Future)
    proceed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def decided(self) -> Routing | LocalAnswer:
        await self.proceed.wait()
        return self.answer or self.handoff.routing

    async def failed(self) -> LocalAnswer | None:
        return await self.failure

    async def close(self) -> None:
        self.closed.set()


class ADriver:
    """Hands out courses that a test holds."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[ACourse] = asyncio.Queue()

    def begin(self, handoff: HandOff) -> ACourse:
        course = ACourse(handoff)
        self.begun.put_nowait(course)
        return course


class Worker:
    """Both services on a socket, over a fixed snapshot."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="kvoy-")
        self.now = 0.0
        fleet = a_fleet(lambda: self.now)
        self.reservations = fleet.reservations
        self.outcomes: list[Outcome] = []
        self.lost: list[Reservation] = []
        metrics = Metrics()
        self.legs = Legs(fleet, lambda _: None)
        journal = Journal("extproc-0", lambda: 0.0)
        decider = Decider(fleet, self.legs, NoTokens(), journal, Random(1), lambda: 0.0)
        decider.adopt(SNAPSHOT)
        self.driver = ADriver()
        encoder = Encoder("extproc-0", "me")
        self.extproc = ExtProc(decider, self.driver, encoder, metrics, 2**20, time.perf_counter)
        self.sink = AccessLogSink(
            self.reservations, self.outcomes.append, self.lost.extend, "me", lambda: self.now
        )
        self.server = grpc_server(self.extproc, self.sink, f"{self.folder}/extproc-0.sock")
        self.channel = aio.insecure_channel(f"unix:{self.folder}/extproc-0.sock")

    @property
    def in_flight(self) -> dict[str, int]:
        return {key: load.requests for key, load in self.reservations.counts().items()}

    async def ask(self, *messages: bytes) -> list[Response]:
        """Send messages one by one, each after the answer to the one before; then read to the end."""
        call = self.channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")()
        answers = []
        for message in messages:
            await call.write(message)
            answers.append(await call.read())
        assert await call.read() is aio.EOF, "the stream ends after the last answer"
        return [Response.FromString(answer) for answer in answers]

    async def report(self, *messages: bytes) -> None:
        """One access-log stream with these messages, to its end."""
        call = self.channel.stream_unary("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")()
        for message in messages:
            await call.write(message)
        await call.done_writing()
        await call


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker()
    await worker.server.start()
    yield worker
    await worker.channel.close()
    await worker.server.stop(None)
    shutil.rmtree(worker.folder)


async def test_a_buffered_request_is_routed_and_the_stream_closed(worker: Worker) -> None:
    first, second = await worker.ask(headers(), BODY)

    assert first.WhichOneof("response") == "request_headers"
    own = dict(second.dynamic_metadata.fields["kvoy"].struct_value)
    assert own["instance"] == "me"
    assert worker.in_flight == {"pod/default/a": 1}


async def test_the_access_log_releases_what_was_reserved(worker: Worker) -> None:
    _, answer = await worker.ask(headers(), BODY)
    own = dict(answer.dynamic_metadata.fields["kvoy"].struct_value)
    entry = {"common_properties": {"metadata": {"filter_metadata": {"kvoy": own}}}}
    logs = {"http_logs": {"log_entry": [entry, entry]}}
    message = ParseDict(logs, als_pb2.StreamAccessLogsMessage()).SerializeToString()

    await worker.report(b"\xff junk", message, message)

    assert worker.in_flight == {}


async def test_a_defect_in_what_follows_costs_one_lesson_not_the_stream(worker: Worker) -> None:
    logs = []
    for _ in range(4):
        _, answer = await worker.ask(headers(), BODY)
        own = dict(answer.dynamic_metadata.fields["kvoy"].struct_value)
        logs.append({"common_properties": {"metadata": {"filter_metadata": {"kvoy": own}}}})
    told: list[Outcome] = []

    def fail_once(outcome: Outcome) -> None:
        told.append(outcome)
        if len(told) == 2:
            raise ZeroDivisionError

    worker.sink._ended = fail_once
    await worker.report(
        ParseDict({"http_logs": {"log_entry": logs}}, als_pb2.StreamAccessLogsMessage()).SerializeToString()
    )

    assert len(told) == 4
    assert worker.in_flight == {}


async def test_an_error_is_an_immediate_answer(worker: Worker) -> None:
    bad = Request(request_body={"body": b"not json", "end_of_stream": True}).SerializeToString()

    _, answer = await worker.ask(headers(), bad)

    assert answer.immediate_response.status.code == 400


async def test_a_path_that_is_not_parsed_is_answered_at_once(worker: Worker) -> None:
    (answer,) = await worker.ask(headers("/v1/audio/transcriptions", b"multipart/form-data; boundary=x"))

    assert answer.HasField("mode_override")


@pytest.mark.parametrize("message", [b"\xff\xff", b"", BODY], ids=["junk", "empty", "out-of-order"])
async def test_nonsense_ends_its_own_stream_only(worker: Worker, message: bytes) -> None:
    with pytest.raises(aio.AioRpcError) as refusal:
        await worker.ask(message)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(await worker.ask(headers(), BODY)) == 2


async def test_a_defect_costs_one_request(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(worker.reservations, "reserve", lambda **_: broken())
        _, answer = await worker.ask(headers(), BODY)
    _, healthy = await worker.ask(headers(), BODY)

    assert answer.immediate_response.status.code == 500
    assert b"internal_error" in answer.immediate_response.body
    assert healthy.WhichOneof("response") == "request_body"


async def test_a_large_body_passes_the_receive_limit(worker: Worker) -> None:
    large = b'{"model":"m","messages":["' + b"x" * 8_000_000 + b'"]}'
    body = Request(request_body={"body": large, "end_of_stream": True}).SerializeToString()

    assert len(await worker.ask(headers(), body)) == 2


async def test_a_stream_that_envoy_gave_up_leaves_no_reservation(worker: Worker) -> None:
    class GivenUp:
        """A stream whose answer can no longer be written."""

        def __init__(self) -> None:
            self.messages = [headers(), BODY]

        async def read(self) -> bytes:
            return self.messages.pop(0)

        async def write(self, answer: bytes) -> None:
            if Response.FromString(answer).WhichOneof("response") == "request_body":
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await worker.extproc.process(None, GivenUp())

    assert worker.in_flight == {}


async def test_a_stopping_worker_does_not_wait_for_an_open_log(worker: Worker) -> None:
    call = worker.channel.stream_unary("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")()
    await call.write(b"")

    worker.sink.close()

    await call
    assert call.done()


async def test_reservations_end_with_the_envoy_that_would_have_reported_on_them(worker: Worker) -> None:
    await worker.ask(headers(), BODY)
    worker.now = 10.0
    await worker.report(b"")
    worker.now = 11.0
    await worker.ask(headers(), BODY)

    worker.sink.sweep()
    assert worker.in_flight == {"pod/default/a": 2}, "entries may still be on their way"

    worker.now = 20.0
    worker.sink.sweep()
    assert worker.in_flight == {"pod/default/a": 1}, "what came after belongs to the next Envoy"


async def test_reservations_stay_while_an_envoy_is_connected(worker: Worker) -> None:
    await worker.ask(headers(), BODY)
    call = worker.channel.stream_unary("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")()
    await call.write(b"")
    await worker.report(b"")

    worker.now = 100.0
    worker.sink.sweep()

    assert worker.in_flight == {"pod/default/a": 1}
    call.cancel()


PROMPT = "All happy families are alike; " * 400


def long_prompt(model: str) -> bytes:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}]}).encode()
    return Request(request_body={"body": body, "end_of_stream": True}).SerializeToString()


APART, AT_ONCE = long_prompt("apart"), long_prompt("at-once")


class Stream:
    """An ext_proc stream that has sent a request for two endpoints."""

    def __init__(self, worker: Worker, *metadata: tuple[str, str]) -> None:
        self.call = worker.channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")(
            metadata=metadata
        )

    @classmethod
    async def of(cls, worker: Worker) -> tuple["Stream", ACourse]:
        stream = cls(worker)
        await stream.call.write(headers())
        await stream.call.read()
        await stream.call.write(APART)
        return stream, await worker.driver.begun.get()

    async def read(self) -> Response | None:
        raw = await self.call.read()
        return None if raw is aio.EOF else Response.FromString(raw)


async def test_envoy_is_told_to_wait_and_then_how_it_goes_on(worker: Worker) -> None:
    stream, course = await Stream.of(worker)

    waiting = await stream.read()
    assert waiting is not None
    assert waiting.override_message_timeout.seconds == 60
    assert worker.in_flight == {"pod/default/p": 1, "pod/default/d": 1}
    course.proceed.set()
    answer = await stream.read()

    assert answer is not None
    assert answer.WhichOneof("response") == "request_body"
    assert await stream.read() is None
    await course.closed.wait()


async def test_an_answer_in_place_of_the_answers_leg_leaves_no_count_of_it(worker: Worker) -> None:
    stream, course = await Stream.of(worker)
    course.answer = rejected(Rejection("prefill-failed", "no"))
    await stream.read()

    course.proceed.set()
    answer = await stream.read()

    assert answer is not None
    assert answer.immediate_response.status.code == 502
    assert worker.in_flight.get("pod/default/d") is None
    await course.closed.wait()


async def test_the_stream_is_open_while_a_prefill_is_and_tells_of_its_failure(worker: Worker) -> None:
    stream, course = await Stream.of(worker)
    course.pending = True
    course.proceed.set()
    await stream.read()
    assert (await stream.read()).WhichOneof("response") == "request_body"

    assert not course.closed.is_set()
    course.failure.set_result(rejected(Rejection("prefill-failed", "no")))

    answer = await stream.read()
    assert answer is not None
    assert answer.immediate_response.status.code == 502
    assert await stream.read() is None


async def test_a_prefill_that_ends_well_ends_the_stream(worker: Worker) -> None:
    stream, course = await Stream.of(worker)
    course.pending = True
    course.proceed.set()
    await stream.read()
    await stream.read()

    course.failure.set_result(None)

    assert await stream.read() is None
    assert worker.in_flight.get("pod/default/d") == 1, "its end is the access log's to tell"


@pytest.mark.parametrize("decided", [False, True])
async def test_a_client_that_leaves_ends_the_course(worker: Worker, decided: bool) -> None:
    stream, course = await Stream.of(worker)
    course.pending = True
    if decided:
        course.proceed.set()
        await stream.read()
        await stream.read()

    stream.call.cancel()

    await course.closed.wait()
    assert worker.in_flight.get("pod/default/d") == (1 if decided else None)


async def test_a_stopping_worker_ends_prefills_before_it_goes() -> None:
    order: list[str] = []

    class Stopping:
        async def stop(self, within_s: float) -> None:
            assert within_s == 0.05
            await given_up.wait()
            order.append("stopped")

    class Driver:
        def give_up(self) -> None:
            order.append("given up")
            given_up.set()

    given_up = asyncio.Event()
    await drain(Stopping(), Driver(), 0.05)

    assert order == ["given up", "stopped"]


async def test_who_cannot_watch_leaves_it_to_the_filter_that_can(worker: Worker) -> None:
    stream = Stream(worker, ("kvoy-watch", "offered"))
    await stream.call.write(headers())
    await stream.read()
    await stream.call.write(AT_ONCE)

    answer = await stream.read()

    assert answer is not None
    mutation = answer.request_body.response.header_mutation
    assert [option.header.key for option in mutation.set_headers] == ["x-kvoy-watch"]
    assert await stream.read() is None
    assert worker.in_flight == {}
    assert worker.driver.begun.empty()


@pytest.mark.parametrize("metadata", [(), (("kvoy-watch", "on"),)], ids=["another gateway", "watching"])
async def test_who_can_watch_or_is_offered_nothing_hands_over(
    worker: Worker, metadata: tuple[tuple[str, str], ...]
) -> None:
    stream = Stream(worker, *metadata)
    await stream.call.write(headers())
    await stream.read()
    await stream.call.write(AT_ONCE)

    course = await worker.driver.begun.get()
    course.proceed.set()
    await stream.read()
    answer = await stream.read()

    assert answer is not None
    assert answer.dynamic_metadata.fields["kvoy"].struct_value.fields["reservation"].number_value


async def test_a_stream_that_was_given_up_before_the_answer_leaves_no_count(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a worker that hangs: Envoy has asked another one meanwhile."""
    stream = Stream(worker)
    await stream.call.write(headers())
    await stream.read()
    decide, decided = worker.extproc._decider.decide, asyncio.Event()

    def too_late(ask: Decide, may_stay: Callable[[], bool]) -> object:
        stream.call.cancel()
        time.sleep(0.2)
        decided.set()
        return decide(ask, may_stay)

    monkeypatch.setattr(worker.extproc._decider, "decide", too_late)
    await stream.call.write(BODY)
    await decided.wait()

    async with asyncio.timeout(5):
        while worker.in_flight:
            await asyncio.sleep(0.01)


class AContext:
    """An ext_proc stream that Envoy ends as soon as it has the last answer."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.writing = asyncio.Event()
        self.written = asyncio.Event()

    async def read(self) -> bytes:
        return self._messages.pop(0)

    async def write(self, _: bytes) -> None:
        if not self._messages:
            self.writing.set()
            await self.written.wait()


async def test_an_answer_that_envoy_took_counts_although_the_stream_ends_with_it(worker: Worker) -> None:
    context = AContext(headers(), BODY)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(worker.extproc.process(b"", context))
        await context.writing.wait()
        serving.cancel()
        context.written.set()

    assert worker.in_flight == {"pod/default/a": 1}


async def test_a_gateway_without_a_clock_is_not_asked_for_time(worker: Worker) -> None:
    duplex = Request(protocol_config={"request_body_mode": "FULL_DUPLEX_STREAMED"})
    duplex.MergeFromString(headers())
    stream = Stream(worker)
    await stream.call.write(duplex.SerializeToString())
    await stream.call.write(APART)

    course = await worker.driver.begun.get()
    course.proceed.set()
    answer = await stream.read()

    assert answer is not None
    assert answer.WhichOneof("response") == "request_headers"
