import pytest

from benchmarks.schedule.prompts import prompts_of
from benchmarks.schedule.scene import SECRET, Scene
from extproc.cache.chain import kv_chain, kv_root
from extproc.cache.frames import numbers
from extproc.state.live import life


def test_every_engine_is_known_to_the_configuration_and_to_the_collector():
    scene = Scene(pods=300, entries=0)
    endpoints = scene.snapshot.endpoints[scene.server.key]
    assert len({endpoint.address for endpoint in endpoints}) == 300
    assert [engine.endpoint for engine in scene.engines] == [endpoint.key for endpoint in endpoints]
    assert scene.lives == [life(e.endpoint, e.address, e.started) for e in scene.engines]


@pytest.mark.parametrize("exact", [False, True])
def test_the_index_has_as_many_blocks_as_asked_and_some_engines_share_them(exact):
    scene = Scene(pods=4, entries=400, exact=exact)
    held = [
        numbers(each.own) if exact else numbers(each.old + each.young)
        for _, each in (scene.kv(()) if exact else scene.prefixes(()))
    ]
    assert len(held) == 4
    assert len({block for blocks in held for block in blocks}) == 400
    assert sum(map(len, held)) == 400 + 3 * 25


def test_one_engine_holds_a_whole_conversation_and_others_its_beginning():
    scene = Scene(pods=8, entries=0, exact=True)
    asked = prompts_of([64])
    chain = kv_chain(kv_root(None, None, SECRET), asked[0].known[0].ids, 16)
    depths = []
    for _, snapshot in scene.kv(asked):
        held = set(numbers(snapshot.own))
        depth = sum(block in held for block in chain)
        assert held.issuperset(chain[:depth]), "what an engine holds of a prompt begins at its start"
        depths.append(depth)
    assert max(depths) == 64
    assert sum(depth > 64 // 16 for depth in depths) <= 4


def test_generations_are_filled_differently():
    young = [snapshot.young_bytes for _, snapshot in Scene(pods=8, entries=80).prefixes(())]
    assert len(set(young)) == 8
