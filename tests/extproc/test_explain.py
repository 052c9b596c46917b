import msgspec
import pytest

from extproc.explain import edits
from extproc.state.snapshot import Endpoint
from tests.extproc.ask.decisions import (
    NOW,
    a_head,
    a_journal,
    a_large_placement,
    an_outcome,
    refused,
    routed,
    screened_out,
)


def test_a_placement_is_told_with_what_matched_and_all_evidence():
    journal = a_journal()
    decision = routed()
    journal.decided(a_head("x"), decision, 4)

    told = journal.explain("x")

    assert told == {
        "request_id": "x",
        "client_request_id": None,
        "worker": "extproc-0",
        "decided_at": NOW,
        "path": "/v1/chat/completions",
        "generation": 4,
        "route": "default/r",
        "rule": "all",
        "adapter": False,
        "server": "default/s",
        "reservation": 7,
        **decision.placement.explain(),
    }
    assert [candidate["pod"] for candidate in told["candidates"]] == ["default/b", "default/a"]
    assert [screened["pod"] for screened in told["screened"]] == ["default/c"]


def test_a_rejection_is_told_as_the_client_sees_it():
    journal = a_journal()
    journal.decided(a_head(), refused(), 4)

    told = journal.explain("request-1")

    assert (told["status"], told["reason"]) == (404, "unknown-model")
    assert told["why"] == "The model `x` does not exist."
    assert told["headers"]["x-kvoy-reason"] == "unknown-model"
    assert msgspec.json.decode(msgspec.json.encode(told))["body"]["error"]["code"] == "model_not_found"
    assert "server" not in told


def test_a_request_for_which_all_endpoints_were_screened_out_is_told_with_them():
    journal = a_journal()
    decision = screened_out()
    journal.decided(a_head(), decision, 4)

    told = journal.explain("request-1")

    assert (told["status"], told["reason"]) == (503, "no-ready-pod")
    assert told["server"] == "default/s"
    assert [screened["pod"] for screened in told["screened"]] == ["default/a", "default/b", "default/c"]
    assert told["why"] == decision.nobody.why()


def test_a_client_does_not_choose_how_much_is_remembered():
    journal = a_journal()
    journal.decided(a_head("id" * 1000, "/" + "x" * 60_000), refused(), 1)

    told = journal.explain(("id" * 1000)[:256])

    assert len(told["path"]) == 256


class TestBounds:
    def test_only_the_last_decisions_are_kept(self):
        journal = a_journal(decisions=3)
        for at in range(5):
            journal.decided(a_head(str(at)), routed(), 1)

        assert [journal.explain(str(at)) is not None for at in range(5)] == [False, False, True, True, True]

    def test_of_large_pools_fewer_are_kept(self):
        journal = a_journal(candidates=100)
        for at in range(5):
            journal.decided(a_head(str(at)), routed(a_large_placement(40)), 1)

        assert [journal.explain(str(at)) is not None for at in range(5)] == [False, False, False, True, True]

    def test_what_was_screened_out_counts_as_well(self):
        journal = a_journal(candidates=6)
        for at in range(3):
            journal.decided(a_head(str(at)), screened_out(), 1)

        assert [journal.explain(str(at)) is not None for at in range(3)] == [False, True, True]

    def test_a_request_that_is_decided_again_counts_once(self):
        journal = a_journal(candidates=6)
        journal.decided(a_head("other"), routed(), 1)
        for reservation in range(10):
            journal.decided(a_head("x"), routed(reservation=reservation), 1)

        assert journal.explain("x")["reservation"] == 9
        assert journal.explain("other") is not None

    def test_the_latest_decision_is_the_last_to_go(self):
        journal = a_journal(decisions=2)
        for request_id in ("x", "y", "x", "z"):
            journal.decided(a_head(request_id), routed(), 1)

        assert [journal.explain(request_id) is not None for request_id in "xyz"] == [True, False, True]


class TestOutcome:
    def test_the_prediction_stands_beside_what_came_true(self):
        journal = a_journal()
        journal.decided(a_head(), routed(), 1)
        journal.ended("request-1", an_outcome())

        assert journal.explain("request-1")["outcome"] == {
            "end": "complete",
            "status": 200,
            "served_by": "10.0.0.2:8000",
            "moved": False,
            "first_byte_s": 0.1234,
            "duration_s": 2.5,
            "prompt_tokens": 1490,
            "completion_tokens": 87,
            "cached_tokens": 1008,
            "predicted_cached_tokens": 1024,
        }

    @pytest.mark.parametrize("served", ["", "10.0.0.1:8000"])
    def test_nothing_was_predicted_of_another_endpoint_than_the_chosen_one(self, served):
        journal = a_journal()
        journal.decided(a_head(), routed(), 1)
        journal.ended("request-1", an_outcome(served=served))

        outcome = journal.explain("request-1")["outcome"]

        assert outcome["moved"] == (served != "")
        assert outcome["predicted_cached_tokens"] == (None if served else 1024)
        assert outcome["served_by"] == (served or None)

    def test_without_a_usage_no_tokens_are_claimed(self):
        journal = a_journal()
        journal.decided(a_head(), routed(), 1)
        journal.ended("request-1", an_outcome(prompt_tokens=0, completion_tokens=0, cached_tokens=0))

        outcome = journal.explain("request-1")["outcome"]

        assert [outcome[f"{kind}_tokens"] for kind in ("prompt", "completion", "cached")] == [None] * 3

    def test_the_end_of_another_placement_of_the_request_is_not_this_ones(self):
        journal = a_journal()
        journal.decided(a_head(), routed(reservation=8), 1)
        journal.ended("request-1", an_outcome(reservation=7))

        assert "outcome" not in journal.explain("request-1")

    def test_what_is_not_known_or_was_refused_does_not_end(self):
        journal = a_journal()
        journal.decided(a_head(), refused(), 1)
        journal.ended("request-1", an_outcome())
        journal.ended("never heard of", an_outcome())

        assert "outcome" not in journal.explain("request-1")
        assert journal.explain("never heard of") is None


class TestPreview:
    def test_it_is_told_as_a_decision_is_and_not_kept(self):
        journal = a_journal()
        decision = routed(reservation=None)
        told = journal.preview(a_head(), decision, 4, {"model": "other"})

        assert told["edits"] == {"model": "other"}
        assert told["server"] == "default/s"
        assert told["candidates"] == decision.placement.explain()["candidates"]
        assert told["reservation"] is None
        assert journal.explain("request-1") is None

    def test_edits_are_the_fields_that_changed_with_their_new_values(self):
        before = b'{"model": "m", "stream": true, "messages": ["secret"]}'
        after = (
            b'{"model": "x", "stream": true, "messages": ["secret"], "stream_options":{"include_usage":true}}'
        )

        assert msgspec.json.encode(edits(before, after)) == (
            b'{"model":"x","stream_options":{"include_usage":true}}'
        )

    def test_a_body_that_stays_has_no_edits(self):
        assert edits(b"not even JSON", None) == {}


def test_a_try_of_an_earlier_decision_does_not_spoil_the_explanation_of_a_later_one():
    journal = a_journal()
    journal.decided(a_head(), refused(), 1)

    journal.tried("request-1", Endpoint.of("pod/default/p", "10.0.0.1:8000"), "left", 0.1)

    assert journal.explain("request-1")["handoff"]["tries"] == [
        {"endpoint": "default/p", "result": "left", "seconds": 0.1}
    ]
