"""One replica of what every engine life holds, in both namespaces."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from extproc.cache import frames
from extproc.cache.early import Early
from extproc.cache.frames import Frame, Namespace, Operation
from extproc.cache.index import Index
from extproc.cache.kv import Kv
from extproc.cache.prefix import Prefix
from extproc.cache.snapshots import PrefixSnapshot, Snapshot


class Holdings:
    """What every engine life holds, as frames tell.

    Frames, from the stream or made here, are queued and applied one after the other by `step`, so that two
    replicas that are given the same frames are equal. What is made here (`learn`, `correct`, `clear`,
    `resize`) is also put into the outbox; about lives that are not enrolled nothing is made.
    """

    def __init__(self) -> None:
        self._prefix = Prefix()
        self._kv = Kv()
        self._lives: set[int] = set()
        self._early = Early()
        self._queue: deque[tuple[int, Iterator[int]]] = deque()
        self._outbox: deque[bytes] = deque()
        self._watchers: list[Callable[[], object]] = []

    def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed`, which must be cheap and never fail, whenever `step` or `take_outbox` has work."""
        self._watchers.append(changed)

    @property
    def lives(self) -> Collection[int]:
        """The enrolled lives."""
        return self._lives

    @property
    def queued(self) -> int:
        """Frames and snapshots that are not applied yet, or not to their end."""
        return len(self._queue)

    def enroll(self, life: int, capacity_bytes: int) -> None:
        """Follow this life, which can hold so many bytes of prompts; frames heard shortly before count.

        Does nothing for a life that is enrolled: `resize` changes the capacity. What is heard of lives that
        are not enrolled is kept within bounds (`early.Early`).
        """
        if life in self._lives:
            return
        self._lives.add(life)
        self._prefix.enroll(life, capacity_bytes)
        self._enqueue(self._early.take(life))

    def retire(self, life: int) -> None:
        """The life is over: at once it holds nothing, and what is queued about it is dropped."""
        if life not in self._lives:
            return
        self._lives.remove(life)
        self._queue = deque(queued for queued in self._queue if queued[0] != life)
        self._prefix.retire(life)
        self._kv.retire(life)
        self._changed()

    def learn(self, life: int, chain: Sequence[int]) -> None:
        """A prompt was placed there, so the life will hold its chain.

        Blocks used for the first time in the present generation are queued and published.
        """
        if life not in self._lives:
            return
        generations = self._prefix.generations(life)
        first = generations.news(chain)
        if generations.full:
            self._tell(life, [frames.rotate(life, generations.following)])
            # The whole chain goes into the next generation: its start must not leave before its end.
            first = 0
        if first is not None:
            self._tell(life, frames.changes(life, Namespace.PREFIX, Operation.ADD, chain[first:], first))

    def correct(self, life: int, chain: Sequence[int], depth: int) -> None:
        """The life turned out to hold no more than the first `depth` blocks of the chain."""
        self._tell(life, frames.changes(life, Namespace.PREFIX, Operation.REMOVE, chain[depth:], depth))

    def clear(self, life: int, namespace: Namespace) -> None:
        """The life turned out to hold nothing."""
        self._tell(life, [frames.clear(life, namespace)])

    def resize(self, life: int, capacity_bytes: int) -> None:
        """The life can hold so many bytes of prompts."""
        self._tell(life, [frames.capacity(life, capacity_bytes)])

    def receive(self, raw: bytes, only: Collection[tuple[int, int]] | None = None) -> None:
        """Queue frames from the stream; raises `FramesCorrupt`, and then nothing of `raw` is queued.

        `only` names what counts, by namespace and life, for a part of the stream that is read again.
        """
        received = frames.unpack(raw)
        if only is not None:
            received = [frame for frame in received if (frame.namespace, frame.life) in only]
        self._enqueue(received)

    def restore(self, life: int, snapshot: Snapshot) -> None:
        """Queue the replacement of all that the life holds in the snapshot's namespace.

        Whoever calls this then gives to `receive` all frames about the life after the snapshot's position.
        """
        if life not in self._lives:
            return
        if isinstance(snapshot, PrefixSnapshot):
            self._queue.append((life, self._prefix.load(life, snapshot)))
        else:
            self._queue.append((life, self._kv.load(life, snapshot)))
        self._changed()

    def step(self, budget: int = 128) -> bool:
        """Apply so many block changes, at most a slice more; True while there is more to do.

        Once nothing is queued, a little of what forgotten lives left behind is cleaned up.
        """
        while budget > 0 and self._queue:
            done = next(self._queue[0][1], None)
            if done is None:
                self._queue.popleft()
            budget -= done or 1
        if self._queue:
            return True
        # One pass over the index cleans up after all lives, so it waits until no more of them are forgotten.
        scrubbing = self._prefix.index.scrub()
        return self._kv.index.scrub() or scrubbing

    def take_outbox(self, limit_bytes: int) -> bytes:
        """Frames to publish, oldest first, of so many bytes at most (one frame at least); b"" for none."""
        taken: list[bytes] = []
        size = 0
        while self._outbox and (not taken or size + len(self._outbox[0]) <= limit_bytes):
            taken.append(self._outbox.popleft())
            size += len(taken[-1])
        return b"".join(taken)

    def capacity(self, life: int) -> int:
        """Bytes of prompts that an enrolled life is assumed to hold."""
        return self._prefix.generations(life).capacity

    def snapshot(self, life: int, position: str) -> PrefixSnapshot:
        """What is applied of an enrolled life's `PREFIX` namespace; `step` until nothing is `queued` first.

        `position` is the id of the last cache-stream entry that was received.
        """
        return self._prefix.generations(life).snapshot(position)

    def prefix_depths(self, hashes: Sequence[int], lives: Sequence[int]) -> list[int]:
        """Blocks of a `chain.prefix_chain`, from its start, that each life holds; 0 for unknown lives."""
        return self._prefix.index.depths(hashes, lives)

    def kv_depths(self, hashes: Sequence[int], lives: Sequence[int]) -> list[int]:
        """Blocks of a `chain.kv_chain`, from its start, that each life holds; 0 for unknown lives."""
        return self._kv.index.depths(hashes, lives)

    def entries(self, namespace: Namespace) -> int:
        """Distinct blocks in the index of the namespace."""
        return len(self._index(namespace))

    def _index(self, namespace: Namespace) -> Index:
        return self._prefix.index if namespace is Namespace.PREFIX else self._kv.index

    def _tell(self, life: int, told: list[Frame]) -> None:
        if life not in self._lives:
            return
        self._outbox.extend([frame.pack() for frame in told])
        self._enqueue(told)

    def _enqueue(self, heard: list[Frame]) -> None:
        for frame in heard:
            if frame.life not in self._lives:
                self._early.keep(frame)
            else:
                namespace = self._prefix if frame.namespace is Namespace.PREFIX else self._kv
                self._queue.append((frame.life, namespace.apply(frame)))
        self._changed()

    def _changed(self) -> None:
        for changed in self._watchers:
            changed()
