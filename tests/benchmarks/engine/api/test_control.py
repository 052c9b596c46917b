import base64

from benchmarks.engine.api.control import report
from benchmarks.engine.journal import Journal, Outcome


def test_a_report_holds_the_counts_and_the_kept_requests() -> None:
    journal = Journal(1)
    journal.close(journal.open("POST", "/gone", (), b""), Outcome.ABORTED)
    journal.open("POST", "/v1/x?y=1", (("A", "b"),), b"\xff\x00")
    told = report(journal)
    assert (told["received"], told["aborted"], told["open"], told["finished"], told["reset"]) == (
        2,
        1,
        1,
        0,
        0,
    )
    (entry,) = told["requests"]
    assert base64.b64decode(entry.pop("body_base64")) == b"\xff\x00"
    assert entry == {
        "number": 2,
        "method": "POST",
        "path": "/v1/x?y=1",
        "headers": (("A", "b"),),
        "outcome": "open",
        "status": None,
        "rank": None,
    }


async def test_requests_are_kept_byte_for_byte(start, http) -> None:
    engine = await start()
    raw = b'{"prompt" :  "\xc3\xa4",\n"max_tokens":1}'
    async with http.post(f"{engine.url}/v1/completions?a=b", data=raw, headers={"X-User": "me"}) as answer:
        assert answer.status == 200
    async with http.get(f"{engine.url}/_engine/requests") as answer:
        told = await answer.json()
    (entry,) = told["requests"]
    assert base64.b64decode(entry["body_base64"]) == raw
    assert (entry["path"], entry["outcome"], entry["status"]) == ("/v1/completions?a=b", "finished", 200)
    assert ["X-User", "me"] in entry["headers"]


async def test_probes_and_control_are_not_kept(start, http) -> None:
    engine = await start()
    for path in ("/health", "/ping", "/metrics", "/_engine/requests"):
        async with http.get(engine.url + path) as answer:
            assert answer.status == 200
    assert engine.requests.received == 0


async def test_faults_are_answered_with_what_is_in_force(start, http) -> None:
    engine = await start()
    given = [{"kind": "status", "status": 503, "times": 1}]
    async with http.post(f"{engine.url}/_engine/faults", json=given) as answer:
        assert await answer.json() == given
    async with http.post(f"{engine.url}/v1/completions", json={"prompt": "x"}) as answer:
        assert answer.status == 503
    async with http.post(f"{engine.url}/v1/completions", json={"prompt": "x"}) as answer:
        assert answer.status == 200


async def test_wrong_faults_change_nothing(start, http) -> None:
    engine = await start()
    async with http.post(f"{engine.url}/_engine/faults", json=[{"kind": "hang"}]) as answer:
        assert answer.status == 200
    async with http.post(f"{engine.url}/_engine/faults", data="[{") as answer:
        assert answer.status == 400
        assert "expected a list such as" in (await answer.json())["error"]["message"]
    async with http.post(f"{engine.url}/_engine/faults", json=[]) as answer:
        assert answer.status == 200
    async with http.post(f"{engine.url}/v1/completions", json={"prompt": "x"}) as answer:
        assert answer.status == 200
