"""Which batch of an engine's events comes next, what is missing, what a restart looks like; pure.

Engines number their batches from 0 without holes and repeat the latest of them on request. A batch that
arrives is judged by its number and time stamp; who asks then applies it, ignores it, or fetches what is
missing.
"""

from enum import Enum, auto


class Verdict(Enum):
    """What to do with a batch."""

    APPLY = auto()
    """It is the next one; from now on the one after it is."""
    KNOWN = auto()
    """It was applied before."""
    MISSING = auto()
    """Batches before it are missing: ask for `Sequence.resume` and those after it."""
    LOST = auto()
    """Batches before it can not be had any more: drop everything known, then apply this one."""
    RESTARTED = auto()
    """The publisher began anew: drop everything known, ask for all batches from 0."""


class Sequence:
    """Where the reader of one publisher stands."""

    def __init__(self, next_seq: int = 0) -> None:
        self.next = next_seq
        """Number of the first batch not applied yet."""
        self._last_at: float | None = None
        self._latest = float("-inf")
        self._heard = -1

    @property
    def resume(self) -> int:
        """From where on to ask: the last batch applied shows whether it still is the same publisher."""
        return max(self.next - 1, 0)

    def hear(self, seq: int, at: float) -> Verdict:
        """Judge a batch as it is published.

        A publisher's numbers only grow. A known number with a time stamp newer than anything applied is
        another publisher's too: it began anew while only repeated batches had been read.
        """
        backwards = seq <= self._heard or (seq < self.next and at > self._latest)
        if backwards:
            self.restart()
        self._heard = seq
        return Verdict.RESTARTED if backwards else self._judge(seq, at)

    def settle(self, seq: int, at: float) -> Verdict:
        """Judge a batch when those missing before it have been asked for."""
        verdict = self._judge(seq, at)
        if verdict is Verdict.MISSING:
            self._took(seq, at)
            return Verdict.LOST
        return verdict

    def open(self, seq: int, at: float) -> Verdict:
        """Judge the first batch of an answer from `resume` on."""
        known = self._last_at is not None
        if known and seq == self.next - 1 and at != self._last_at:
            self.restart()
            return Verdict.RESTARTED
        if known and seq == self.next:
            self._took(seq, at)
            return Verdict.LOST
        return self.settle(seq, at)

    def repeat(self, seq: int, at: float) -> Verdict:
        """Judge a repeated batch that others of its answer precede: only the transport tears holes there."""
        return self._judge(seq, at)

    def restart(self) -> None:
        """The publisher began anew."""
        self.next = 0
        self._last_at = None
        self._latest = float("-inf")
        self._heard = -1

    def _judge(self, seq: int, at: float) -> Verdict:
        if seq < self.next:
            return Verdict.KNOWN
        if seq > self.next:
            return Verdict.MISSING
        self._took(seq, at)
        return Verdict.APPLY

    def _took(self, seq: int, at: float) -> None:
        self.next = seq + 1
        self._last_at = at
        self._latest = max(self._latest, at)


class Repetition:
    """Asking a publisher for what is missing, as often as it takes.

    Each answer begins with the last batch applied. Another batch in its place, or none, is another
    publisher's. An answer that begins later means that the publisher keeps no older ones.
    """

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self.start = sequence.resume
        """From which number on to ask."""
        self.empty = True
        """Nothing of the answer has come yet."""
        self._begun = sequence.next

    def take(self, seq: int, at: float) -> Verdict:
        """Judge a batch of the answer to a request for `start` and those after it.

        After MISSING and RESTARTED the rest of the answer is of no use.
        """
        first, self.empty = self.empty, False
        if not first:
            return self._sequence.repeat(seq, at)
        if self.start < self._sequence.resume:
            self._sequence.restart()
            return Verdict.RESTARTED
        return self._sequence.open(seq, at)

    def again(self, whole: bool) -> bool:
        """Whether to ask once more, from the new `start`, after an answer that came to its end or did not."""
        if whole:
            more = self.empty and self.start > 0
            self._begin(0)
            return more
        more = self._sequence.next != self._begun
        self._begin(self._sequence.resume)
        return more

    def _begin(self, start: int) -> None:
        self.start = start
        self.empty = True
        self._begun = self._sequence.next
