"""The commands against real admin endpoints."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from extproc.admin import Admin, Views
from extproc.ask.cli import explain, route
from extproc.explain import edits
from extproc.request import Head
from extproc.state.live import Load
from tests.extproc.ask.decisions import SNAPSHOT, a_head, a_journal, an_outcome, refused, routed

REQUEST = b'{"model": "m", "messages": [{"role": "user", "content": "a secret prompt"}]}'


@contextmanager
def listening(app: web.Application) -> Iterator[str]:
    """The address of a server in a thread of its own: a command has its own event loop."""
    ready: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.append(f"127.0.0.1:{runner.addresses[0][1]}")
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(20)
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
    assert not thread.is_alive()


class Worker:
    """Knows one ended request; refuses previews that ask for the model ``unknown``."""

    def __init__(self) -> None:
        self.journal = a_journal()
        self.journal.decided(a_head("known"), routed(), 4)
        self.journal.ended("known", an_outcome())
        self.asked: list[tuple[Head, bytes]] = []
        self.views = Views(
            ready=lambda: True,
            exposition=lambda: b"",
            explain=self.journal.explain,
            preview=self.preview,
            snapshot=lambda: SNAPSHOT,
            own=dict,
            load=lambda key: Load(0, 0),
            engines=list,
            entries=dict,
            lag_s=lambda: None,
        )

    async def preview(self, head: Head, body: bytes) -> Mapping[str, Any]:
        self.asked.append((head, body))
        if b'"unknown"' in body:
            return self.journal.preview(head, refused(), 4, {})
        changed = edits(body, body.replace(b'"m"', b'"renamed"'))
        return self.journal.preview(head, routed(None, None), 4, changed)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def admin(worker: Worker) -> Iterator[str]:
    with listening(Admin(worker.views).app()) as address:
        yield address


def run(command, *args: str, body: bytes | None = None, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(command, args, input=body, env=env or {"KVOY_ADMIN": None})


def words(result: Result) -> str:
    return " ".join(result.output.split())


class TestExplain:
    def test_the_report_is_printed(self, admin):
        result = run(explain, "known", "--admin", admin)

        assert result.exit_code == 0, result.output
        assert "chosen    default/b at 10.0.0.2:8000\n" in result.output
        assert "cached 1008, predicted 1024" in result.output

    def test_json_is_what_the_worker_said(self, admin, worker):
        result = run(explain, "known", "--json", "--admin", admin)

        assert result.exit_code == 0
        assert json.loads(result.output) == json.loads(msgspec.json.encode(worker.journal.explain("known")))

    def test_the_worker_that_knows_is_found_among_those_that_do_not(self, admin):
        ignorant = replace(Worker().views, explain=a_journal().explain)
        with listening(Admin(ignorant).app()) as second:
            result = run(explain, "known", "--admin", second, "--admin", admin)

        assert result.exit_code == 0

    def test_addresses_are_taken_from_the_environment(self, admin):
        env = {"KVOY_ADMIN": f"127.0.0.1:1 http://{admin}/"}

        assert run(explain, "known", env=env).exit_code == 0

    def test_nobody_knows_the_request(self, admin):
        result = run(explain, "never", "--admin", admin)

        assert result.exit_code == 1
        assert f"Error: No worker knows the request never (asked: {admin})" in words(result)

    def test_nobody_listens(self):
        result = run(explain, "known", "--admin", "127.0.0.1:1")

        assert result.exit_code == 1
        assert "Nobody listens at 127.0.0.1:1. Is kvoy running?" in words(result)

    def test_a_worker_that_hangs_is_named_soon(self, monkeypatch):
        async def hang(request: web.Request) -> web.Response:
            await asyncio.sleep(20)
            raise AssertionError("nobody waits so long")

        monkeypatch.setattr("extproc.ask.questions.EXPLAIN_S", 0.2)
        app = web.Application()
        app.router.add_get("/{path:.*}", hang)
        with listening(app) as address:
            result = run(explain, "known", "--admin", address)

        assert result.exit_code == 1
        assert f"{address}: no answer within 0.2 s" in words(result)

    @pytest.mark.parametrize("document", [{}, {"why": "x"}, {"candidates": 7}])
    def test_another_answer_than_a_decision_is_an_error_and_no_traceback(self, document):
        async def odd(request: web.Request) -> web.Response:
            return web.json_response(document)

        app = web.Application()
        app.router.add_get("/{path:.*}", odd)
        with listening(app) as address:
            result = run(explain, "known", "--admin", address)

        assert result.exit_code == 1
        assert "of another version than this command" in words(result)

    @pytest.mark.parametrize("address", ["9190", "x", "127.0.0.1:99999", ""])
    def test_what_is_no_address_is_named(self, address):
        result = run(explain, "known", "--admin", address)

        assert result.exit_code == 2
        assert "Invalid value for '--admin'" in words(result)


class TestRoute:
    def ask(self, admin: str, *args: str, body: bytes = REQUEST) -> Result:
        return run(route, "-f", "-", "--admin", admin, *args, body=body)

    def test_what_would_happen_is_printed(self, admin):
        result = self.ask(admin)

        assert result.exit_code == 0, result.output
        assert "now, as a preview" in result.output
        assert "chosen    default/b at 10.0.0.2:8000\n" in result.output
        assert 'the body\'s model becomes "renamed"\n' in result.output

    def test_the_prompt_is_not_printed(self, admin):
        for flags in ((), ("--json",)):
            assert "secret" not in self.ask(admin, *flags).output

    def test_a_file_is_sent_byte_by_byte_with_headers_and_path(self, admin, worker, tmp_path):
        body = '{"model":"m",  "messages": ["ü\\u00e9"]}\n'.encode()
        (tmp_path / "request.json").write_bytes(body)
        headers = ("--headers", "User-Type: premium", "--headers", "x: a:b ")

        result = run(
            *(route, "-f", str(tmp_path / "request.json"), *headers),
            *("--path", "/v1/completions", "--admin", admin),
        )

        assert result.exit_code == 0, result.output
        assert worker.asked == [(Head("POST", "/v1/completions", {"user-type": "premium", "x": "a:b"}), body)]

    def test_of_a_repeated_header_the_first_counts(self, admin, worker):
        self.ask(admin, "--headers", "a: 1", "--headers", "A: 2")

        assert worker.asked[0][0].headers == {"a": "1"}

    def test_a_rejection_is_printed_as_the_client_would_see_it(self, admin):
        result = self.ask(admin, body=b'{"model": "unknown"}')

        assert result.exit_code == 1
        assert "answered  404 unknown-model\n" in result.output
        assert '"code": "model_not_found"' in result.output

    def test_a_rejection_is_json_too(self, admin):
        result = self.ask(admin, "--json", body=b'{"model": "unknown"}')

        assert result.exit_code == 1
        assert json.loads(result.output)["reason"] == "unknown-model"

    def test_the_worker_s_refusal_is_told(self, worker, monkeypatch):
        monkeypatch.setattr("extproc.admin.LARGEST_BODY", 3)
        with listening(Admin(worker.views).app()) as address:
            result = self.ask(address)

        assert result.exit_code == 1
        assert "status 413" in words(result)

    def test_nobody_listens(self):
        assert "Nobody listens at 127.0.0.1:1." in words(self.ask("127.0.0.1:1"))

    def test_a_body_that_is_no_text_is_refused_here(self, admin, worker):
        result = self.ask(admin, body=b'{"model": "\xff"}')

        assert result.exit_code == 2
        assert "Invalid value for '-f'" in words(result)
        assert "can't decode byte 0xff" in words(result)
        assert worker.asked == []

    def test_a_body_that_is_too_large_is_refused_here(self, admin, worker):
        result = self.ask(admin, body=b" " * (16 * 2**20 + 1))

        assert result.exit_code == 2
        assert "the body is larger than 16 MiB" in words(result)
        assert worker.asked == []

    @pytest.mark.parametrize("header", ["user-type", ": x", ""])
    def test_what_is_no_header_is_named(self, admin, worker, header):
        result = self.ask(admin, "--headers", header)

        assert result.exit_code == 2
        assert "is not NAME: VALUE, as in 'user-type: premium'" in words(result)
        assert worker.asked == []

    def test_a_file_is_needed(self):
        assert "Missing option '-f'" in words(run(route))
        assert run(route, "-f", "/nowhere/request.json").exit_code == 2


@pytest.mark.parametrize("command", [explain, route])
def test_help_shows_examples(command):
    assert "Examples:" in run(command, "--help").output


def test_help_imports_only_click():
    heavy = ("aiohttp", "msgspec", "uvloop", "asyncio")
    check = f"import sys, extproc.ask.cli; print([name for name in {heavy} if name in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert printed.stdout == "[]\n"
