"""Names of the data plane's parts in Envoy."""

from controller.xds import plane


def test_no_worker_can_take_the_name_of_a_fixed_cluster():
    fixed = {
        plane.WORKERS_CLUSTER,
        plane.SECOND_CHANCE_CLUSTER,
        plane.THIRD_CHANCE_CLUSTER,
        plane.NOWHERE_CLUSTER,
    }
    assert len(fixed) == 4
    assert not fixed & {plane.worker_cluster_name(f"extproc-{i}") for i in range(64)}
