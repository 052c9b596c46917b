from extproc.schedule.testing import a_member, a_pool
from extproc.state.live import Load


def test_a_pool_has_its_members_columns():
    pool = a_pool(a_member(requests=2, pending=30, cached=64, running=1), a_member())

    assert [endpoint.key for endpoint in pool.endpoints] == ["pod/default/0", "pod/default/1"]
    assert pool.loads == [Load(2, 30), Load(0, 0)]
    assert (pool.approximate, pool.exact) == ([64, 0], None)
    assert pool.engines[0] is not None
    assert (pool.engines[0].running, pool.engines[1]) == (1, None)


def test_exact_knowledge_is_there_when_every_member_has_it():
    assert a_pool(a_member(exact=3), a_member(exact=4)).exact == [3, 4]
    assert a_pool(a_member(exact=3), a_member()).exact is None


def test_pools_of_two_roles_have_no_endpoint_in_common():
    pools = [a_pool(a_member(group="g"), role=role) for role in ("prefill", "decode", None)]

    assert [pool.role for pool in pools] == ["prefill", "decode", None]
    assert [pool.endpoints[0].group for pool in pools] == ["g"] * 3
    assert len({pool.endpoints[0].key for pool in pools}) == 3
    assert len({pool.endpoints[0].address for pool in pools}) == 3
