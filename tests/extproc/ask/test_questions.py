import json

import pytest

from extproc.ask.questions import Unanswered, decision_on, preview, what_if, why
from extproc.ask.workers import Said, Silent
from extproc.supervise import Address


def at(port):
    return Address("127.0.0.1", port)


def absent(port):
    return Silent(at(port), "connection refused", absent=True)


UNKNOWN = {"error": "this worker has no decision under this request id"}


@pytest.mark.parametrize(
    ("request_id", "path"),
    [
        ("3772-64", "/explain/3772-64"),
        ("a/../b?c#d e", "/explain/a%2F..%2Fb%3Fc%23d%20e"),
        ("é", "/explain/%C3%A9"),
    ],
)
def test_an_id_is_one_part_of_the_path(request_id, path):
    assert (why(request_id).path, why(request_id).body) == (path, None)


def test_a_request_travels_as_its_text():
    question = what_if("/v1/completions", {"a": "b"}, '{"x": "ü"'.encode())

    assert question.path == "/route"
    assert json.loads(question.body) == {
        "path": "/v1/completions",
        "headers": {"a": "b"},
        "body": '{"x": "ü"',
    }


def test_a_body_that_is_not_utf8_is_not_asked_about():
    with pytest.raises(UnicodeDecodeError):
        what_if("/", {}, b"\xff")


class TestDecision:
    def test_one_worker_knows(self):
        found = {"decided_at": 1.0}
        answers = [Said(at(1), 404, UNKNOWN), Said(at(2), 200, found), Silent(at(3), "no answer within 2 s")]

        assert decision_on("x", answers) is found

    def test_of_two_decisions_the_newer_counts(self):
        """Envoy asks another worker when the answer of the first is lost."""
        answers = [Said(at(port), 200, {"decided_at": when}) for port, when in ((1, 5.0), (2, 7.0), (3, 6.0))]

        assert decision_on("x", answers) == {"decided_at": 7.0}

    def test_nobody_knows(self):
        answers = [Said(at(1), 404, UNKNOWN), Said(at(2), 404, UNKNOWN), absent(3)]

        with pytest.raises(Unanswered) as unanswered:
            decision_on("x", answers)

        assert "No worker knows the request x (asked: 127.0.0.1:1, 127.0.0.1:2)" in str(unanswered.value)
        assert ":3" not in str(unanswered.value)

    def test_who_may_know_but_is_silent_is_named(self):
        answers = [Said(at(1), 404, UNKNOWN), Silent(at(2), "no answer within 2 s")]

        with pytest.raises(Unanswered, match=r"No answer: 127\.0\.0\.1:2: no answer within 2 s"):
            decision_on("x", answers)

    def test_nobody_listens(self):
        with pytest.raises(Unanswered, match=r"Nobody listens at 127\.0\.0\.1:1 to 127\.0\.0\.1:2\. Is kvoy"):
            decision_on("x", [absent(1), absent(2)])
        with pytest.raises(Unanswered, match=r"Nobody listens at 127\.0\.0\.1:1\. Is .*--admin"):
            decision_on("x", [absent(1)])

    def test_errors_are_told_with_their_reasons(self):
        answers = [Said(at(1), 500, {}), Silent(at(2), "what answers there is no kvoy worker"), absent(3)]

        with pytest.raises(Unanswered) as unanswered:
            decision_on("x", answers)

        assert str(unanswered.value) == (
            "No worker answered the question: 127.0.0.1:1: status 500: no reason given; "
            "127.0.0.1:2: what answers there is no kvoy worker"
        )


class TestPreview:
    def test_the_first_answer_counts(self):
        assert preview([absent(1), Said(at(2), 200, {"why": "x"})]) == {"why": "x"}

    def test_a_refusal_is_told_with_its_reason(self):
        with pytest.raises(Unanswered, match=r"127\.0\.0\.1:1: status 413: the body is larger"):
            preview([Said(at(1), 413, {"error": "the body is larger"})])

    def test_nobody_listens(self):
        with pytest.raises(Unanswered, match="Nobody listens"):
            preview([absent(1)])
