"""Which blocks an engine holds, from its events, under our own names; pure.

The engine's hashes depend on its version and settings, so a block gets the name that workers compute too:
`extproc.cache.chain.kv_chain` over the token ids that the events tell. A physical block may exist several
times and is removed copy by copy, so copies are counted. An engine that is made to report cached blocks again
(vLLM's ``kv_cache_report_mode``) can not be told from one that stored them twice: such blocks then stay until
the engine clears its cache or ends, which costs a worse choice, never a wrong answer.
"""

from collections.abc import Sequence
from struct import pack, unpack

from xxhash import xxh3_64_intdigest

from extproc.cache.chain import kv_chain, kv_root
from extproc.cache.frames import Frame, Namespace, Operation, changes, clear, numbers, pack_all, packed
from extproc.cache.snapshots import KvSnapshot
from extproc.collect.kv.events import Cleared, Event, Removed, Stored

_WHOLE = ("full_attention", "mla_attention", "sink_full_attention")
"""Kinds of attention whose blocks say that the whole prefix is there."""


class Ledger:
    """The blocks of one life of an engine, and the changes not published yet."""

    def __init__(self, life: int, secret: bytes) -> None:
        self._life = life
        self._secret = secret
        self._own: dict[int, int] = {}
        self._copies: dict[int, int] = {}
        self._group: int | None = None
        self._restored = False
        self._changes: list[tuple[Operation, list[int]]] = []
        self.block_size: int | None = None
        """Tokens per block, as the engine last told."""
        self.orphans = 0
        """Blocks not counted because nothing is known of the block before them."""

    def __len__(self) -> int:
        """Blocks held, each counted once."""
        return len(self._own)

    def apply(self, events: Sequence[Event]) -> int:
        """Follow these events in order; how many blocks they were about."""
        return sum([self._follow(event) for event in events])

    def clear(self) -> None:
        """Drop everything: what the engine holds is not known any more."""
        self._own.clear()
        self._copies.clear()
        self._changes = [(Operation.CLEAR, [])]

    def take(self) -> bytes:
        """The changes since the last call as frames of the cache stream."""
        frames: list[Frame] = []
        for operation, hashes in self._changes:
            if operation is Operation.CLEAR:
                frames.append(clear(self._life, Namespace.KV))
            else:
                frames += changes(self._life, Namespace.KV, operation, hashes)
        self._changes = []
        return pack_all(frames)

    def snapshot(self, position: str, sequence: int) -> KvSnapshot:
        """Everything, with the changes not taken yet; `KvSnapshot` says what the arguments mean."""
        copies = self._copies
        counts = [copies.get(engine, 0) + 1 for engine in self._own]
        return KvSnapshot(
            position=position,
            own=packed(list(self._own.values())),
            engine=packed(list(self._own)),
            counts=pack(f"<{len(counts)}I", *counts),
            sequence=sequence,
        )

    def restore(self, snapshot: KvSnapshot) -> None:
        """Hold exactly this; nothing of it is published again."""
        engine = numbers(snapshot.engine)
        counts = unpack(f"<{len(engine)}I", snapshot.counts)
        self._own = dict(zip(engine, numbers(snapshot.own), strict=True))
        self._copies = {hash_: count - 1 for hash_, count in zip(engine, counts, strict=True) if count > 1}
        self._restored = True
        self._changes = []

    def _follow(self, event: Event) -> int:
        match event:
            case Stored() if self._told_by(event.group, event.kind):
                return self._store(event)
            case Removed() if self._taken_by(event.group):
                return self._remove(event.hashes)
            case Cleared():
                self.clear()
        return 0

    def _told_by(self, group: int | None, kind: str | None) -> bool:
        """Whether blocks stored in this group of layers count.

        Engines with several kinds of attention tell each block once per group. The first with full attention
        stands for all; group 0 where the engine tells no kinds.
        """
        if kind in _WHOLE and self._group is None:
            self._group = group
        if kind is None or self._group is None:
            return kind in (None, *_WHOLE) and group in (None, self._group or 0)
        return group == self._group

    def _taken_by(self, group: int | None) -> bool:
        """Whether blocks removed from this group count; all do until a restored ledger knows its own."""
        if self._group is None and self._restored:
            return True
        return group in (None, self._group or 0)

    def _store(self, event: Stored) -> int:
        count = len(event.hashes)
        parent = self._parent(event)
        if parent is None:
            self.orphans += count
            return count
        self.block_size = event.block_size
        own, copies = self._own, self._copies
        appeared: list[int] = []
        for engine, hash_ in zip(event.hashes, _chain(parent, event), strict=True):
            if engine in own:
                copies[engine] = copies.get(engine, 0) + 1
            else:
                own[engine] = hash_
                appeared.append(hash_)
        self._changed(Operation.ADD, appeared)
        return count

    def _parent(self, event: Stored) -> int | None:
        if event.parent is None:
            return kv_root(event.adapter, event.salt, self._secret)
        return self._own.get(event.parent)

    def _remove(self, engine_hashes: Sequence[int]) -> int:
        own, copies = self._own, self._copies
        gone: list[int] = []
        for engine in engine_hashes:
            if more := copies.pop(engine, 0):
                if more > 1:
                    copies[engine] = more - 1
            elif (hash_ := own.pop(engine, None)) is not None:
                gone.append(hash_)
        self._changed(Operation.REMOVE, gone)
        return len(engine_hashes)

    def _changed(self, operation: Operation, hashes: list[int]) -> None:
        if not hashes:
            return
        if self._changes and self._changes[-1][0] is operation:
            self._changes[-1][1].extend(hashes)
        else:
            self._changes.append((operation, hashes))


def _chain(parent: int, event: Stored) -> list[int]:
    if not event.extras:
        return kv_chain(parent, event.token_ids, event.block_size)
    size = 4 * event.block_size
    return [
        parent := xxh3_64_intdigest(event.token_ids[at * size : (at + 1) * size] + extra, parent)
        for at, extra in enumerate(event.extras)
    ]
