import pytest
from redis.asyncio import Redis

from extproc.state import keys
from extproc.state.store import Store, StoreUnavailable, Subject

SUBJECTS = [Subject(namespace, life) for life in (1, 2**64 - 1) for namespace in (1, 2)]


async def test_what_is_written_is_read(store: Store) -> None:
    for number, subject in enumerate(SUBJECTS):
        await store.snapshots.write(subject, b"\x00%d" % number)
    await store.snapshots.write(SUBJECTS[0], b"newer")

    found = await store.snapshots.read([*SUBJECTS, Subject(1, 5)])

    assert found == dict(zip(SUBJECTS, [b"newer", b"\x001", b"\x002", b"\x003"], strict=True))
    assert await store.snapshots.read([]) == {}


async def test_many_are_read(store: Store) -> None:
    many = [Subject(1, life) for life in range(50)]
    for subject in many:
        await store.snapshots.write(subject, str(subject.life).encode())

    assert await store.snapshots.read(many) == {s: str(s.life).encode() for s in many}


async def test_a_snapshot_expires_unless_it_is_kept(store: Store, raw: Redis) -> None:
    await store.snapshots.write(SUBJECTS[0], b"x", ttl_s=5.0)
    key = keys.cache_snapshot("g", *SUBJECTS[0])
    assert 0 < await raw.pttl(key) <= 5000

    assert await store.snapshots.keep(SUBJECTS, ttl_s=500.0) == set(SUBJECTS[1:])
    assert 5000 < await raw.pttl(key) <= 500_000
    assert await store.snapshots.keep([]) == set()


async def test_after_a_flush_every_snapshot_is_missing(store: Store, raw: Redis) -> None:
    for subject in SUBJECTS:
        await store.snapshots.write(subject, b"x")
    assert await store.snapshots.keep(SUBJECTS) == set()
    await raw.flushall()

    assert await store.snapshots.keep(SUBJECTS) == set(SUBJECTS)
    assert await store.snapshots.read(SUBJECTS) == {}


async def test_a_killed_store_is_reported_by_every_operation(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    own_valkey.kill()
    try:
        for attempt in (
            store.snapshots.write(SUBJECTS[0], b""),
            store.snapshots.read(SUBJECTS),
            store.snapshots.keep(SUBJECTS),
        ):
            with pytest.raises(StoreUnavailable):
                await attempt
    finally:
        await store.close()
