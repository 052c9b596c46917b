"""What the engine does wrong on purpose.

Faults are JSON objects told apart by ``kind``, given at start or at run time as a list that replaces the one
in force. ``status``, ``hang``, ``reset`` and ``die`` hit inference requests, each the next ``times`` ones
(all if absent); the first in the list with times left wins. ``slow_start`` and ``refuse`` hit everything for
a while.
``lose_events`` hits what subscribers of KV events get, ``no_tokens`` who asks for the tokens of a prompt,
``no_params`` what a prefill engine answers.
"""

from collections.abc import Sequence
from math import inf
from typing import Annotated, ClassVar, TypeAlias

import msgspec
from msgspec import Meta

Times: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86400)]
TokenCount: TypeAlias = Annotated[int, Meta(ge=0)]


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="status"):
    """Answer with this status at once."""

    status: Annotated[int, Meta(ge=400, le=599)]
    times: Times | None = None


class Hang(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hang"):
    """Stop after this many tokens and hold the connection; 0 is before the headers.

    An answer of fewer tokens is not hit; a plain answer has sent nothing when it stops.
    """

    after_tokens: TokenCount = 0
    times: Times | None = None


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="reset"):
    """As `Hang`, but the connection is reset (TCP RST)."""

    after_tokens: TokenCount = 0
    times: Times | None = None


class Die(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="die"):
    """As `Reset`, but the whole engine dies: every connection is reset, and nothing listens any more."""

    after_tokens: TokenCount = 0
    times: Times | None = None


class SlowStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="slow_start"):
    """Answer everything with 503, ``/health`` included, for this long: a model that is loading."""

    seconds: Seconds


class Refuse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="refuse"):
    """Reset every connection and refuse new ones for this long: a process that is down."""

    seconds: Seconds


class LoseEvents(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lose_events"
):
    """The next so many batches of KV events, of whichever rank, miss the subscribers; a replay has them."""

    batches: Times


class NoTokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="no_tokens"):
    """Answer ``/tokenize`` with this status."""

    status: Annotated[int, Meta(ge=400, le=599)]


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="no_params"):
    """The next so many prefills, all without, answer without ``kv_transfer_params``; nothing is kept."""

    times: Times | None = None


RequestFault: TypeAlias = Status | Hang | Reset | Die
Fault: TypeAlias = RequestFault | SlowStart | Refuse | LoseEvents | NoTokens | NoParams


class Faults:
    """The faults in force."""

    _decoder: ClassVar[msgspec.json.Decoder[list[Fault]]] = msgspec.json.Decoder(list[Fault])

    def __init__(self) -> None:
        self._left: list[tuple[RequestFault, int | None]] = []
        self._unready_until = float("-inf")
        self._batches_to_lose = 0
        self._params_to_omit = 0.0
        self.tokens_refused: int | None = None
        """Status with which ``/tokenize`` answers; None where it does its work."""

    @classmethod
    def parse(cls, text: bytes | str) -> list[Fault]:
        """A JSON list of faults; ValueError says what is wrong with it and where."""
        try:
            return cls._decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(
                f"faults: {error}; expected a list such as "
                '[{"kind":"status","status":503,"times":2}], kind: status, hang, reset, die, slow_start, '
                "refuse, lose_events, no_tokens, no_params"
            ) from None

    def replace(self, faults: Sequence[Fault], now: float) -> float | None:
        """Put ``faults`` in force instead of those before; returns the seconds to refuse for, if any."""
        self._left = [(fault, fault.times) for fault in faults if isinstance(fault, RequestFault)]
        slow = [fault.seconds for fault in faults if isinstance(fault, SlowStart)]
        self._unready_until = now + max(slow) if slow else float("-inf")
        self._batches_to_lose = sum(fault.batches for fault in faults if isinstance(fault, LoseEvents))
        self.tokens_refused = next((fault.status for fault in faults if isinstance(fault, NoTokens)), None)
        self._params_to_omit = sum(fault.times or inf for fault in faults if isinstance(fault, NoParams))
        return max((fault.seconds for fault in faults if isinstance(fault, Refuse)), default=None)

    def is_ready(self, now: float) -> bool:
        """False while a slow start lasts."""
        return now >= self._unready_until

    def loses_events(self) -> bool:
        """Whether the next batch of KV events is lost; counts it."""
        if not self._batches_to_lose:
            return False
        self._batches_to_lose -= 1
        return True

    def omits_params(self) -> bool:
        """Whether the next prefill answers without parameters; counts it."""
        if not self._params_to_omit:
            return False
        self._params_to_omit -= 1
        return True

    def take(self) -> RequestFault | None:
        """The fault that hits the next request; counts it."""
        if not self._left:
            return None
        fault, left = self._left[0]
        if left is not None:
            self._left[:1] = [(fault, left - 1)] if left > 1 else []
        return fault
