from extproc.collect.sites import sites
from extproc.state.records import Disaggregation, Member, ModelServer, Pod
from extproc.testing import a_part, a_pod, a_route, a_rule, a_server, a_snapshot


def test_every_pod_that_a_route_leads_to_is_a_site():
    found = sites(
        a_snapshot(
            a_route("r", a_rule("s"), model="m"), a_server("s"), a_server("unrouted"), a_pod("a", "s"),
            a_pod("b", "s", ip="10.0.0.2", port=9000), a_pod("c", "unrouted"),
        )
    )  # fmt: skip

    assert {pod: site.address for pod, site in found.items()} == {
        "pod/default/a": "10.0.0.1:8000",
        "pod/default/b": "10.0.0.2:9000",
    }
    assert [endpoint.key for endpoint in found["pod/default/a"].endpoints] == ["pod/default/a"]


def test_the_ranks_of_a_pod_are_one_site():
    server = ModelServer("default", "s", "vLLM", 8000, ranks=11)
    (site,) = sites(a_snapshot(a_route("r", a_rule("s"), model="m"), server, a_pod("a", "s"))).values()

    assert [endpoint.rank for endpoint in site.endpoints] == list(range(11))


def test_a_pod_of_several_servers_is_watched_once():
    route = a_route("r", a_rule("t", "s"), model="m")
    (site,) = sites(a_snapshot(route, a_server("s"), a_server("t"), a_pod("a", "s", "t"))).values()

    assert site.server.name == "s"
    assert len(site.endpoints) == 1


def test_servers_that_count_ranks_differently_share_the_site():
    route = a_route("r", a_rule("s", "t"), model="m")
    ranked = ModelServer("default", "t", "vLLM", 8000, ranks=2)
    (site,) = sites(a_snapshot(route, a_server("s"), ranked, a_pod("a", "s", "t"))).values()

    assert [endpoint.key for endpoint in site.endpoints] == [
        "pod/default/a", "pod/default/a#0", "pod/default/a#1",
    ]  # fmt: skip


def test_under_another_port_a_pod_is_not_watched_again():
    route = a_route("r", a_rule("s", "t"), model="m")
    (site,) = sites(a_snapshot(route, a_server("s"), a_server("t", port=9000), a_pod("a", "s", "t"))).values()

    assert site.address == "10.0.0.1:8000"
    assert len(site.endpoints) == 1


def test_the_ip_has_no_brackets(site_of):
    assert site_of("[fd00::1]:8000").ip == "fd00::1"
    assert site_of("10.0.0.1:8000").ip == "10.0.0.1"


def test_pods_that_only_compute_prompts_are_sites_too():
    apart = a_server("s", apart=Disaggregation("nixl"))
    found = sites(
        a_snapshot(
            a_route("r", a_rule("s"), model="m"),
            apart,
            a_part("p", "s", "prefill", ip="10.0.0.1"),
            a_part("d", "s", "decode", ip="10.0.0.2"),
        )
    )
    assert set(found) == {"pod/default/p", "pod/default/d"}


def test_a_pod_with_different_parts_for_two_servers_is_one_engine():
    members = {"one": Member("prefill", "a"), "two": Member("decode", "b")}
    pod = Pod("default", "x", "10.0.0.1", ("one", "two"), members=members)
    apart = Disaggregation("nixl")
    (site,) = sites(
        a_snapshot(
            a_route("r", a_rule("one", "two"), model="m"),
            a_server("one", apart=apart),
            a_server("two", apart=apart),
            pod,
        )
    ).values()
    assert [endpoint.key for endpoint in site.endpoints] == ["pod/default/x"]
