"""The types here say what the journal says: neither can change without the other."""

import json

import msgspec
import pytest

from extproc.ask.decision import Decision
from extproc.state.snapshot import Endpoint
from tests.extproc.ask.decisions import (
    a_client_head,
    a_head,
    a_journal,
    a_large_placement,
    a_pair,
    an_outcome,
    refused,
    routed,
    screened_out,
)

PREFILL = Endpoint.of("pod/default/prefill-0", "10.1.0.0:8000", group="g")


def told(decision, **ended):
    journal = a_journal()
    journal.decided(a_head(), decision, 4)
    if ended:
        journal.ended("request-1", an_outcome(**ended))
    return json.loads(msgspec.json.encode(journal.explain("request-1")))


def handed_off():
    journal = a_journal()
    journal.decided(a_client_head(), routed(a_pair()), 4)
    journal.tried("request-1", PREFILL, "computed", 0.25)
    journal.handed_off("request-1", "transferred")
    return json.loads(msgspec.json.encode(journal.explain("request-1")))


@pytest.mark.parametrize(
    "document",
    [
        told(routed(), status=200),
        told(routed(), served="", status=0, first_byte_s=None, duration_s=None, prompt_tokens=0),
        told(routed(a_large_placement(1))),
        told(routed(a_large_placement(100))),
        told(refused()),
        told(screened_out()),
        told(routed(a_pair())),
        told(routed(a_pair(cached=1500))),
        handed_off(),
        json.loads(msgspec.json.encode(a_journal().preview(a_head(), routed(None, None), 4, {"model": "x"}))),
    ],
    ids=[
        "ended",
        "given-up",
        "one",
        "large",
        "refused",
        "screened-out",
        "pair",
        "no-hop",
        "handed-off",
        "preview",
    ],
)
def test_all_that_is_told_of_a_decision_is_read(document):
    decision = msgspec.convert(document, Decision)

    read = msgspec.to_builtins(decision)
    # The headers of an error repeat what stands elsewhere.
    document.pop("headers", None)
    if "handoff" in document:
        # They come once there is something to tell.
        document["handoff"] = {"ending": None, "tries": [], **document["handoff"]}
    assert {name: read[name] for name in document} == document


@pytest.mark.parametrize(
    "document", [{}, {"why": 1}, {"error": "x"}, {"why": "x", "path": "/", "worker": None}]
)
def test_what_is_no_decision_is_refused(document):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, Decision)
