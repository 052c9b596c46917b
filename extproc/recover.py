"""Brings what engine lives hold from the store into a replica: their snapshots, and every change since.

Used for all lives when a worker starts or has missed something, and for each life that begins later.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Collection

import msgspec

from extproc.cache import snapshots
from extproc.cache.frames import FramesCorrupt, Namespace
from extproc.cache.holdings import Holdings
from extproc.cache.snapshots import Snapshot
from extproc.state.store import Entry, Store, Subject
from extproc.state.store.streams import START, order

log = logging.getLogger("kvoy.follow")

_PAGE = 64
"""Entries per read of the cache stream: a reply is parsed at a stretch."""


async def recover(
    store: Store, holdings: Holdings, lives: Collection[int], until: str, bare: set[int]
) -> AsyncIterator[int]:
    """Restore `lives`, then replay the cache stream up to the position `until`.

    Yields a count after each small piece of work, so that the caller can do what must not wait. A life
    without a snapshot keeps what it holds, and everything that the stream retains is replayed for it; `bare`
    takes those lives. Raises `StoreError`; begin again then.
    """
    since: dict[Subject, str] = {}
    done = 0
    for life in lives:
        subjects = [Subject(namespace, life) for namespace in Namespace]
        stored = await store.snapshots.read(subjects)
        since |= {subject: _restore(holdings, subject, stored.get(subject)) for subject in subjects}
        if Subject(Namespace.PREFIX, life) not in stored:
            bare.add(life)
        done += 1
        yield done
    async for entry, only in _replay(store, since, until):
        _receive(holdings, entry, only)
        done += 1
        yield done


def _restore(holdings: Holdings, subject: Subject, raw: bytes | None) -> str:
    """Restore one snapshot; returns the position from which to replay."""
    snapshot = None if raw is None else _decoded(subject.life, raw)
    if snapshot is None:
        return START
    holdings.restore(subject.life, snapshot)
    return snapshot.position


def _decoded(life: int, raw: bytes) -> Snapshot | None:
    try:
        snapshot = snapshots.decode(raw)
        order(snapshot.position)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        log.warning("the cache snapshot of life %016x is unreadable: %s", life, error)
        return None
    return snapshot


async def _replay(
    store: Store, since: dict[Subject, str], until: str
) -> AsyncIterator[tuple[Entry, set[Subject]]]:
    """Entries, each with what it is news to: lives and namespaces whose snapshot it comes after."""
    waiting = deque(sorted(since.items(), key=lambda item: order(item[1])))
    position = waiting[0][1] if waiting else until
    only: set[Subject] = set()
    while order(position) < order(until):
        page, position = await store.streams.between(position, until, _PAGE)
        for entry in page:
            while waiting and order(waiting[0][1]) < order(entry.position):
                only.add(waiting.popleft()[0])
            yield entry, only


def _receive(holdings: Holdings, entry: Entry, only: set[Subject]) -> None:
    try:
        holdings.receive(entry.frames, only)
    except FramesCorrupt as error:
        log.warning("changes of the cache by %s are unreadable: %s", entry.producer, error)
