import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.collect.kv.sequence import Repetition, Sequence, Verdict


def answered(sequence, batches):
    """What becomes of the batches of one answer."""
    repetition = Repetition(sequence)
    return [repetition.take(seq, at) for seq, at in batches]


def test_batches_in_order_are_applied():
    sequence = Sequence()

    assert [sequence.hear(seq, seq) for seq in range(5)] == [Verdict.APPLY] * 5
    assert sequence.next == 5


def test_a_reader_may_continue_where_another_stopped():
    assert Sequence(7).hear(7, 1.0) is Verdict.APPLY


def test_a_gap_is_missed_and_filled():
    sequence = Sequence()
    sequence.hear(0, 0.0)

    assert sequence.hear(3, 3.0) is Verdict.MISSING
    assert sequence.next == 1
    assert answered(sequence, [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]) == [
        Verdict.KNOWN,
        *[Verdict.APPLY] * 3,
    ]
    assert sequence.settle(3, 3.0) is Verdict.KNOWN
    assert sequence.hear(4, 4.0) is Verdict.APPLY


def test_a_gap_that_nobody_fills_is_lost():
    sequence = Sequence()

    assert sequence.hear(3, 3.0) is Verdict.MISSING
    assert sequence.settle(3, 3.0) is Verdict.LOST
    assert sequence.hear(4, 4.0) is Verdict.APPLY


def test_an_answer_that_begins_too_late_is_a_loss():
    sequence = Sequence(10)

    assert answered(sequence, [(500, 1.0), (501, 2.0)]) == [Verdict.LOST, Verdict.APPLY]


def test_a_hole_within_an_answer_is_no_loss():
    sequence = Sequence()
    repetition = Repetition(sequence)

    assert repetition.take(0, 0.0) is Verdict.APPLY
    assert repetition.take(2, 2.0) is Verdict.MISSING
    assert repetition.again(False)
    assert repetition.start == 0
    assert [repetition.take(seq, float(seq)) for seq in range(3)] == [
        Verdict.KNOWN,
        Verdict.APPLY,
        Verdict.APPLY,
    ]
    assert not repetition.again(True)


def test_a_hole_that_stays_is_given_up():
    repetition = Repetition(Sequence())
    repetition.take(0, 0.0)
    repetition.again(False)

    assert repetition.take(0, 0.0) is Verdict.KNOWN
    assert repetition.take(2, 2.0) is Verdict.MISSING
    assert not repetition.again(False)


def test_another_batch_in_the_place_of_the_last_is_another_publishers():
    sequence = Sequence()
    answered(sequence, [(0, 0.0), (1, 1.0)])
    repetition = Repetition(sequence)

    assert repetition.start == 1
    assert repetition.take(1, 1.5) is Verdict.RESTARTED
    assert repetition.again(False)
    assert repetition.start == 0
    assert [repetition.take(0, 1.2), repetition.take(1, 1.5)] == [Verdict.APPLY] * 2
    assert not repetition.again(True)


def test_a_restart_that_an_answer_told_is_not_found_again():
    sequence = Sequence()
    for seq in range(10):
        sequence.hear(seq, float(seq))
    repetition = Repetition(sequence)
    repetition.again(True)
    assert repetition.take(0, 50.0) is Verdict.RESTARTED
    assert answered(sequence, [(0, 50.0), (1, 51.0)]) == [Verdict.APPLY] * 2

    assert sequence.hear(1, 51.0) is Verdict.KNOWN
    assert sequence.hear(2, 52.0) is Verdict.APPLY


def test_a_publisher_without_the_last_batch_is_another_one():
    sequence = Sequence()
    answered(sequence, [(seq, float(seq)) for seq in range(10)])
    repetition = Repetition(sequence)

    assert repetition.start == 9
    assert repetition.again(True)
    assert repetition.start == 0
    assert repetition.take(0, 50.0) is Verdict.RESTARTED
    assert repetition.again(False)
    assert repetition.take(0, 50.0) is Verdict.APPLY


def test_a_publisher_without_any_batch_is_asked_twice_and_no_more():
    repetition = Repetition(Sequence(10))

    assert repetition.again(True)
    assert not repetition.again(True)


def test_who_continues_from_a_snapshot_does_not_know_the_last_batch():
    assert answered(Sequence(10), [(9, 1.0), (10, 2.0)]) == [Verdict.KNOWN, Verdict.APPLY]


def test_what_was_repeated_is_known_when_heard():
    sequence = Sequence()
    answered(sequence, [(seq, float(seq)) for seq in range(5)])

    assert [sequence.hear(seq, float(seq)) for seq in (3, 4)] == [Verdict.KNOWN] * 2
    assert sequence.hear(5, 5.0) is Verdict.APPLY


@pytest.mark.parametrize("restarted_at", [0, 3, 9])
def test_numbers_that_go_backwards_are_a_restart(restarted_at):
    sequence = Sequence()
    for seq in range(10):
        sequence.hear(seq, float(seq))

    assert sequence.hear(restarted_at, 100.0) is Verdict.RESTARTED
    assert sequence.next == 0


def test_a_restart_is_seen_even_if_nothing_had_been_heard():
    sequence = Sequence()
    answered(sequence, [(seq, float(seq)) for seq in range(10)])

    assert sequence.hear(4, 100.0) is Verdict.RESTARTED


class Story:
    """A reader that hears publishers one after another, with losses; what it applied since it last forgot."""

    def __init__(self):
        self.sequence = Sequence()
        self.applied = []

    def act(self, verdict, batch):
        if verdict in (Verdict.LOST, Verdict.RESTARTED):
            self.applied = []
        if verdict in (Verdict.LOST, Verdict.APPLY):
            self.applied.append(batch)
        return verdict

    def hear(self, batch, kept):
        verdict = self.act(self.sequence.hear(*batch), batch)
        if verdict in (Verdict.MISSING, Verdict.RESTARTED):
            self.ask(kept)
            self.act(self.sequence.settle(*batch), batch)

    def ask(self, kept):
        repetition = Repetition(self.sequence)
        for _ in range(5):
            whole = self._answered(repetition, [batch for batch in kept if batch[0] >= repetition.start])
            if not repetition.again(whole):
                return
        raise AssertionError("it asks for ever")

    def _answered(self, repetition, answer):
        for batch in answer:
            verdict = self.act(repetition.take(*batch), batch)
            if verdict in (Verdict.MISSING, Verdict.RESTARTED):
                return False
        return True


@given(st.data())
def test_whatever_is_lost_the_latest_batches_are_applied_once_and_in_order(data):
    story, at = Story(), 0.0
    for _ in range(data.draw(st.integers(1, 3), label="publishers")):
        keeps = data.draw(st.integers(1, 30), label="batches kept")
        published, connected = [], False
        for heard in data.draw(st.lists(st.booleans(), max_size=30), label="heard"):
            at += 1.0
            published.append((len(published), at))
            if heard:
                if not connected:
                    story.ask(published[-keeps:])
                    connected = True
                story.hear(published[-1], published[-keeps:])
                assert story.applied == published[-len(story.applied) :]
                assert len(story.applied) >= min(keeps, len(published))
        if published:
            story.ask(published[-keeps:])
            assert story.applied == published[-len(story.applied) :]
            assert len(story.applied) >= min(keeps, len(published))
