from benchmarks.schedule.feed import Events
from benchmarks.schedule.scene import Scene
from extproc.cache.frames import Operation, unpack


def test_as_many_blocks_change_as_asked_and_the_cache_stays_as_large():
    events = Events(Scene(4, 0))
    changed, held = 0, set()
    for _ in range(300):
        events.occur(10, kept=160)
        for frame in unpack(events.take_outbox(1 << 20)):
            changed += frame.size
            if frame.operation is Operation.ADD:
                held.update((frame.life, block) for block in frame.numbers())
            else:
                held.difference_update((frame.life, block) for block in frame.numbers())
    assert 3000 - 16 <= changed <= 3000
    assert 160 - 16 <= len(held) <= 160 + 16


def test_it_is_said_when_there_is_something_to_publish():
    events = Events(Scene(4, 0))
    said = []
    events.watch(lambda: said.append(True))
    events.occur(10, kept=100)
    assert not said
    assert events.take_outbox(1 << 20) == b""
    events.occur(10, kept=100)
    assert said
    assert events.take_outbox(1 << 20)
