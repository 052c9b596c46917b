"""Names of the data plane's parts in Envoy."""

from controller.xds import plane
from controller.xds.bootstrap import XDS_CLUSTER
from extproc.state.envoy import cluster_name


def test_no_worker_can_take_the_name_of_a_fixed_cluster():
    fixed = {
        plane.WORKERS_CLUSTER,
        plane.SECOND_CHANCE_CLUSTER,
        plane.THIRD_CHANCE_CLUSTER,
        plane.NOWHERE_CLUSTER,
        XDS_CLUSTER,
    }
    assert len(fixed) == 5
    names = {name.removeprefix("kvoy-") for name in fixed} | fixed | {"", "/", "extproc-0", "model/ns/s"}
    taken = {plane.worker_cluster_name(name) for name in names}
    assert len(taken) == len(names)
    assert not taken & (fixed | {cluster_name("ns", "s")})
