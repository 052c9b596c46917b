import json
from random import Random
from typing import get_args

import msgspec
import pytest

from extproc.ask.decision import Decision
from extproc.ask.report import report
from extproc.handoff.ledger import Ending
from extproc.schedule.scheduler import Scheduler
from extproc.state.snapshot import Endpoint
from tests.extproc.ask.decisions import (
    ENDPOINTS,
    PROFILE,
    a_client_head,
    a_head,
    a_journal,
    a_large_placement,
    a_pair,
    a_pool,
    an_engine,
    an_outcome,
    refused,
    routed,
    screened_out,
)


def lines(told, width=200, **changed):
    document = {**json.loads(msgspec.json.encode(told)), **changed}
    return list(report(msgspec.convert(document, Decision), width))


def explained(decision, *, width=200, changed=None, **ended):
    journal = a_journal()
    journal.decided(a_head(), decision, 4)
    if ended:
        journal.ended("request-1", an_outcome(**ended))
    return lines(journal.explain("request-1"), width, **(changed or {}))


def block(said, first_word):
    """The lines from the one that begins so to the next empty one."""
    start = next(at for at, line in enumerate(said) if line.startswith(first_word))
    rest = said[start:]
    return rest[: rest.index("")] if "" in rest else rest


def test_what_decided_and_what_matched():
    said = explained(routed())

    assert said[:6] == [
        "request   request-1",
        "path      /v1/chat/completions",
        "decided   2026-09-21 14:13:20.125 UTC by extproc-0, configuration generation 4",
        "matched   ModelRoute default/r, rule all",
        "pool      ModelServer default/s, 3 ready endpoints",
        "chosen    default/b at 10.0.0.2:8000",
    ]
    assert "reserved  7" in said
    assert "prompt    1500 tokens; cached tokens by the approximate index" in said


def test_a_pool_of_one_is_told_as_one():
    assert "pool      ModelServer default/s, 1 ready endpoint" in explained(routed(a_large_placement(1)))


def test_every_candidate_has_its_figures_best_first():
    header, best, second = block(explained(routed()), "candidate  total")

    assert header.split() == [
        *("candidate", "total", "in", "flight", "pending", "cached", "running", "waiting", "kv", "age")
    ]
    assert best.split() == ["default/b", "0.938", "1", "512", "1024", "1", "0", "25%", "0.200", "s"]
    assert second.split()[:2] == ["default/a", "0.580"]


def test_every_score_has_its_weight_and_the_figures_behind_it():
    _, *rows = block(explained(routed()), "candidate  score")

    assert [row.split()[:5] for row in rows] == [
        ["default/b", "1.000", "x", "0.75", "lmetric"],
        ["default/b", "0.750", "x", "0.25", "gpu-usage"],
        ["default/a", "0.523", "x", "0.75", "lmetric"],
        ["default/a", "0.750", "x", "0.25", "gpu-usage"],
    ]
    assert "1024/16 cached" in rows[0]


def test_who_was_screened_out_and_why():
    assert block(explained(routed()), "screened out")[1:] == ["default/c     11 requests wait (limit 10)"]


def test_figures_that_are_not_known_are_dashes():
    placement = Scheduler.of(PROFILE).place(a_pool(), Random(1))
    row = block(explained(routed(placement)), "candidate  total")[1]

    assert row.split()[-4:] == ["-"] * 4


def test_an_engine_that_cannot_be_observed_is_named():
    engines = [an_engine(endpoint, failing="connection refused") for endpoint in ENDPOINTS]
    said = explained(routed(Scheduler.of(PROFILE).place(a_pool(*engines), Random(1))))

    assert "default/c cannot be observed: connection refused" in said


def test_of_a_large_pool_the_best_are_shown_and_the_others_counted():
    said = explained(routed(a_large_placement(100)))

    rows = block(said, "candidate")
    assert len(rows) == 1 + 12 + 1
    assert rows[-1] == "... and 88 more"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_tables_keep_to_the_width(width):
    said = explained(routed(), width=width)

    assert all(len(line) <= width for line in said[said.index("") :])


def test_a_ranked_endpoint_carries_its_rank():
    journal = a_journal()
    journal.decided(a_head(), routed(), 4)
    told = json.loads(msgspec.json.encode(journal.explain("request-1")))
    told["candidates"][0]["rank"] = 0

    assert "chosen    default/b#0 at 10.0.0.2:8000" in lines(told)


def test_a_rejection_is_shown_as_the_client_sees_it():
    said = explained(refused())

    assert "answered  404 unknown-model" in said
    (client,) = [line for line in said if line.startswith("client")]
    assert json.loads(client.removeprefix("client    "))["error"]["code"] == "model_not_found"
    assert not [line for line in said if line.startswith(("chosen", "matched", "candidate", "reserved"))]


def test_where_all_were_screened_out_all_are_named():
    assert len(block(explained(screened_out()), "screened out")) == 4


def test_a_prediction_stands_beside_what_came_true():
    said = explained(routed(), status=200)

    assert said[-3:] == [
        "ended     complete, status 200 by 10.0.0.2:8000",
        "took      first byte 0.123 s, in all 2.500 s",
        "tokens    prompt 1490, answer 87, cached 1008, predicted 1024",
    ]


def test_a_move_to_another_endpoint_is_told():
    said = explained(routed(), served="10.0.0.1:8000", first_byte_s=None, cached_tokens=None)

    assert said[-3].endswith("by 10.0.0.1:8000, another endpoint than the chosen one")
    assert said[-2].startswith("took      first byte -,")
    assert said[-1].endswith("cached -, predicted -")


def test_a_note_and_an_adapter_are_told():
    prompt = {"tokens": 5, "adapter": "french"}
    said = explained(routed(), changed={"notes": ["too slow"], "adapter": True, "prompt": prompt})

    assert "note      too slow" in said
    assert "matched   an adapter of ModelRoute default/r, rule all" in said
    assert "prompt    5 tokens, adapter french; cached tokens by the approximate index" in said


class TestPreview:
    def of(self, decision, edits):
        return lines(a_journal().preview(a_head(), decision, 4, edits))

    def test_edits_of_the_body_are_told(self):
        said = self.of(routed(None, None), {"model": "x", "stream_options": {"include_usage": True}})

        assert said[1] == "decided   now, as a preview, by extproc-0, configuration generation 4"
        assert said[-2:] == [
            'the body\'s model becomes "x"',
            'the body\'s stream_options becomes {"include_usage": true}',
        ]
        assert not [line for line in said if line.startswith(("request", "reserved"))]

    def test_a_body_that_stays_is_told_too(self):
        assert self.of(routed(None, None), {})[-1] == "the body goes to the engine as it is"

    def test_of_a_refused_request_no_body_goes_anywhere(self):
        assert not [line for line in self.of(refused(), {}) if "engine" in line]


def test_no_name_steers_the_terminal():
    said = explained(routed(), changed={"path": "/\x1b[2J", "notes": ["a\nb"], "server": "\x07"})

    assert all(line.isprintable() for line in said)


class TestPair:
    """Prefill and decode apart."""

    def explained(self, pair, *tries, ending=None, width=200):
        journal = a_journal()
        journal.decided(a_client_head(), routed(pair), 4)
        for pod, result, seconds in tries:
            journal.tried("request-1", Endpoint.of(f"pod/default/{pod}", "10.1.0.0:8000"), result, seconds)
        if ending is not None:
            journal.handed_off("request-1", ending)
        return lines(journal.explain("request-1"), width)

    def test_both_endpoints_are_named_and_why_it_takes_two(self):
        said = self.explained(a_pair())

        assert said[1] == "named     their-id by the client"
        assert "pool      ModelServer default/s, 2 ready decode endpoints" in said
        (prefill,) = [line for line in said if line.startswith("prefill   ")]
        assert prefill.startswith("prefill   default/prefill-0 at 10.1.0.0:8000: ")
        assert prefill.endswith(" of 2 ready prefill endpoints of the group that is not screened out")
        (decode,) = [line for line in said if line.startswith("decode    ")]
        assert decode.startswith("decode    default/decode-0 at 10.2.0.0:8000: best by ")
        assert (
            "why       default/decode-0 lacks 1500 of 1500 prompt tokens: "
            "default/prefill-0 of its group g computes the prompt"
        ) in said
        assert not [line for line in said if line.startswith(("chosen", "handed", "prefill asked"))]

    def test_each_role_has_its_tables(self):
        said = self.explained(a_pair())

        assert [row.split()[0] for row in block(said, "decode candidate  total")[1:]] == [
            "default/decode-0",
            "default/decode-1",
        ]
        assert [row.split()[0] for row in block(said, "prefill candidate  ")[1:]] == ["default/prefill-0"]
        assert block(said, "prefill screened out")[1:] == [
            "default/prefill-1     11 requests wait (limit 10)"
        ]
        scores = block(said, "decode candidate  score x weight")
        assert [row.split()[4] for row in scores[1:4]] == ["lmetric", "gpu-usage", "prefill"]

    def test_where_one_endpoint_does_it_there_is_no_other(self):
        said = self.explained(a_pair(cached=1400))

        assert "prefill   none" in said
        (why,) = [line for line in said if line.startswith("why ")]
        assert why.startswith("why       default/decode-0 computes the rest, as it lacks but 100 of 1500")
        assert not [line for line in said if line.startswith("prefill candidate")]

    def test_every_try_is_told_with_what_came_of_it(self):
        tries = (("prefill-0", "status", 0.004), ("prefill-1", "computed", 0.25))
        said = self.explained(a_pair(), *tries, ending="transferred")

        assert block(said, "prefill asked") == [
            "prefill asked      result      after",
            "default/prefill-0  status    0.004 s",
            "default/prefill-1  computed  0.250 s",
            "handed    transferred: a prefill endpoint computed the prompt",
        ]

    def test_a_hand_off_may_end_without_a_try(self):
        assert self.explained(a_pair(), ending="sidecar")[-1] == (
            "handed    sidecar: a proxy on the decode pod asks the prefill endpoint"
        )

    @pytest.mark.parametrize("ending", get_args(Ending))
    def test_every_ending_is_put_into_words(self, ending):
        (handed,) = [line for line in self.explained(a_pair(), ending=ending) if line.startswith("handed")]

        assert handed.startswith(f"handed    {ending}: ")
        assert len(handed.partition(": ")[2]) > 10
