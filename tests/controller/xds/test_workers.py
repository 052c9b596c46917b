"""The clusters of the workers."""

import pytest

from controller.xds.plane import DataPlane
from controller.xds.workers import deciding_clusters, worker_cluster


def plane(workers: int) -> DataPlane:
    return DataPlane("127.0.0.1:0", tuple((f"extproc-{i}", f"/run/{i}.sock") for i in range(workers)))


def sockets(cluster) -> set[str]:
    (part,) = cluster.load_assignment.endpoints
    return {each.endpoint.address.pipe.path for each in part.lb_endpoints}


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_whichever_worker_fails_one_half_is_without_it(count):
    everyone, second, third = (sockets(each) for each in deciding_clusters(plane(count)))
    assert everyone == second | third == {f"/run/{i}.sock" for i in range(count)}
    assert second
    assert third
    assert not second & third


def test_a_single_worker_gets_every_chance():
    assert [sockets(each) for each in deciding_clusters(plane(1))] == [{"/run/0.sock"}] * 3


def test_a_worker_alone_has_its_own_cluster():
    cluster = worker_cluster("extproc-3", "/run/3.sock")
    assert (cluster.name, sockets(cluster)) == ("kvoy-worker/extproc-3", {"/run/3.sock"})


def test_no_circuit_breaker_limits_what_workers_are_asked():
    for cluster in deciding_clusters(plane(2)):
        (threshold,) = cluster.circuit_breakers.thresholds
        assert (
            min(threshold.max_requests, threshold.max_connections, threshold.max_pending_requests) >= 100_000
        )
