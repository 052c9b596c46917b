import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from random import Random

import grpc
import pytest
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from google.protobuf.json_format import ParseDict
from grpc import aio

from extproc.accesslog import Outcome
from extproc.decide import Decider
from extproc.explain import Journal
from extproc.metrics import Metrics
from extproc.server import AccessLogSink, ExtProc, grpc_server
from extproc.testing import a_fleet, a_pod, a_route, a_rule, a_server, a_snapshot
from extproc.tokens import Found, Miss, Question
from extproc.wire import Encoder

Request = external_processor_pb2.ProcessingRequest
Response = external_processor_pb2.ProcessingResponse

SNAPSHOT = a_snapshot(a_route("r", a_rule("s"), model="m"), a_server("s"), a_pod("a", "s"))
BODY = Request(
    request_body={"body": b'{"model":"m","messages":[]}', "end_of_stream": True}
).SerializeToString()


def headers(path: str = "/v1/chat/completions") -> bytes:
    pairs = {":method": b"POST", ":path": path.encode(), "x-request-id": b"1"}
    listed = [{"key": key, "raw_value": value} for key, value in pairs.items()]
    return Request(request_headers={"headers": {"headers": listed}}).SerializeToString()


class NoTokens:
    """Token ids that nobody may ask for."""

    async def ids(self, question: Question, within_s: float) -> Found | Miss:
        raise AssertionError("token ids were asked for")


class Worker:
    """Both services on a socket, over a fixed snapshot."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="kvoy-")
        self.now = 0.0
        fleet = a_fleet(lambda: self.now)
        self.reservations = fleet.reservations
        self.outcomes: list[Outcome] = []
        metrics = Metrics()
        decider = Decider(fleet, NoTokens(), Journal("extproc-0", lambda: 0.0), Random(1), lambda: 0.0)
        decider.adopt(SNAPSHOT)
        self.extproc = ExtProc(decider, Encoder("extproc-0", "me"), metrics, 2**20, time.perf_counter)
        self.sink = AccessLogSink(
            self.reservations, self.outcomes.append, metrics.expired, "me", lambda: self.now
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
    (answer,) = await worker.ask(headers("/tokenize"))

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
