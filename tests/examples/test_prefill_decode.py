"""The demo of prefill and decode apart."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import controller
from examples.stage import Answer

EXAMPLE = Path(__file__).parents[2] / "examples" / "prefill-decode"


@pytest.fixture(scope="module")
def promises():
    """The module of the demo: its folder has a hyphen, as all folders of manifests."""
    spec = importlib.util.spec_from_file_location("prefill_decode_demo", EXAMPLE / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_controller_accepts_it():
    done = CliRunner().invoke(controller, ["--check", "-f", str(EXAMPLE)])

    assert (done.exit_code, done.output) == (0, f"{EXAMPLE}: valid: 1 ModelRoute, 1 ModelServer, 4 Pod\n")


def test_every_prompt_is_computed_where_the_manifests_say(demo, manifests, scratch):
    done = demo(manifests)

    assert done.returncode == 0, done.stdout + done.stderr
    first = re.search(r"^a book +prefill-([ab]) +decode-([ab]) +200 ", done.stdout, re.M)
    assert first[1] == first[2]
    assert re.search(rf"^the same book +- +decode-{first[1]} .* it lacks but \d+ of ", done.stdout, re.M)
    assert re.search(r"^a short question +- +decode-[ab] +200 .* the prompt is short", done.stdout, re.M)
    failed = re.search(r"^a third book, prefill fails +- +decode-([ab]) +200 .*$", done.stdout, re.M)
    assert failed[0].endswith(f"; but prefill-{failed[1]} failed (status)")
    assert list(scratch.iterdir()) == []


class TestWhatIsWrong:
    """What the demo ends with, if the request to `title` came out so."""

    @pytest.fixture
    def wrong(self, promises):
        pods = promises.read(EXAMPLE)
        asks = {ask.title: ask for ask in promises.ASKS}
        right = Answer("id", 200, "decode-a", 1.0, b"", {"handoff": {"ending": "transferred"}})

        def judged(title, got, **changed):
            return promises.wrong(asks[title], replace(right, **changed), {"a book": right}, pods, got)

        return judged

    def test_nothing_where_both_engines_of_a_rack_did_their_part(self, wrong):
        assert wrong("a book", {"prefill-a": 200, "decode-a": 200}) is None

    @pytest.mark.parametrize(
        ("got", "told"),
        [
            ({"decode-a": 200}, "beside decode-a, nobody should have been prefill-a (200)"),
            ({"prefill-b": 200}, "beside decode-a, prefill-b (200) should have been prefill-a (200)"),
            ({"prefill-a": 503}, "beside decode-a, prefill-a (503) should have been prefill-a (200)"),
        ],
        ids=["no hop", "another rack", "failed"],
    )
    def test_a_prompt_that_another_one_computed(self, wrong, got, told):
        assert wrong("a book", got) == f"a book: {told}"

    def test_a_hop_that_was_not_needed(self, wrong):
        ended = {"handoff": {}}
        got = {"prefill-a": 200, "decode-a": 200}

        assert wrong("a short question", {"decode-a": 200}, explanation=ended) is None
        assert wrong("a short question", got, explanation=ended) == (
            "a short question: beside decode-a, prefill-a (200) should have been nobody"
        )

    def test_a_hand_off_that_ended_otherwise(self, wrong):
        ended = {"handoff": {"ending": "alone"}}

        assert wrong("a book", {"prefill-a": 200}, explanation=ended) == (
            "a book: the hand-off ended as alone, not transferred"
        )

    @pytest.mark.parametrize("pod", ["prefill-a", None, "decode-z"])
    def test_an_answer_of_no_decode_pod(self, wrong, pod):
        assert wrong("a book", {}, served_by=pod) == f"a book: {pod} answered, which is no decode pod"

    def test_an_error(self, wrong):
        assert wrong("a book", {}, status=502, body=b"sorry") == "a book: status 502: sorry"

    def test_a_cached_book_that_another_one_answered(self, wrong):
        ended = {"handoff": {}}

        assert wrong("the same book", {"decode-b": 200}, served_by="decode-b", explanation=ended) == (
            "the same book: served by decode-b, whose cache has nothing of it"
        )
