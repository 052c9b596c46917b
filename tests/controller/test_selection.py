import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests.problem import Fault
from controller.manifests.reader import read_file
from controller.selection import incomplete_groups, select
from extproc.state.records import Member
from extproc.state.records import Pod as PodRecord


def view(manifest):
    reading = read_file("m.json", json.dumps(manifest).encode())
    assert reading.problems == ()
    return reading.objects[0].view


def a_server(name, *, apart=True, namespace="team", annotations=None, group="group", **spec):
    selector = {"matchLabels": {"app": "pool"}}
    if apart:
        roles = {"prefillLabels": {"prefills": "yes"}, "decodeLabels": {"decodes": "yes"}}
        selector["pdGroup"] = {"groupKey": group, **roles}
    return view(
        {
            "apiVersion": "networking.serving.volcano.sh/v1alpha1",
            "kind": "ModelServer",
            "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
            "spec": {
                "inferenceEngine": "vLLM",
                "workloadPort": {"port": 8000},
                "workloadSelector": selector,
                **spec,
            },
        }
    )


def a_pod(annotations=None, **labels):
    return view(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "a",
                "namespace": "team",
                "labels": {"app": "pool", **labels},
                "annotations": annotations or {},
            },
        }
    )


PUSH = {"kvConnector": {"type": "nixl-push"}}


def test_without_roles_a_pod_serves_whoever_selects_it():
    servers = [
        a_server("b", apart=False),
        a_server("a", apart=False),
        a_server("c", apart=False, namespace="x"),
    ]

    found = select(a_pod(prefills="yes"), servers)

    assert (found.servers, found.members, found.idle, found.faults) == (["a", "b"], {}, [], [])


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_pod_with_a_role_and_a_group_is_a_member(role):
    found = select(a_pod(group="one", **{f"{role}s": "yes"}), [a_server("s")])

    assert (found.servers, found.members) == (["s"], {"s": Member(role, "one")})
    assert found.idle == found.faults == []


def test_a_pod_may_be_plain_for_one_server_and_a_member_of_others():
    servers = [a_server("plain", apart=False), a_server("s"), a_server("t", group="rack")]

    found = select(a_pod(group="one", rack="7", decodes="yes"), servers)

    assert found.servers == ["plain", "s", "t"]
    assert found.members == {"s": Member("decode", "one"), "t": Member("decode", "7")}


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"prefills": "yes"}, 'its label "group" is missing or empty'),
        ({"decodes": "yes", "group": ""}, 'its label "group" is missing or empty'),
        ({"group": "one"}, "it matches neither prefillLabels nor decodeLabels"),
        ({"group": "one", "prefills": "no"}, "it matches neither prefillLabels nor decodeLabels"),
    ],
)
def test_a_pod_without_a_part_serves_nothing_and_the_reason_is_told(labels, why):
    found = select(a_pod(**labels), [a_server("s"), a_server("plain", apart=False)])

    assert (found.servers, found.members, found.faults) == (["plain"], {}, [])
    assert found.idle == [f"Pod team/a does nothing for ModelServer team/s: {why}"]


def test_a_pod_of_both_roles_is_at_fault():
    found = select(a_pod(group="one", prefills="yes", decodes="yes"), [a_server("s")])

    assert found.faults == [
        Fault(
            "metadata.labels",
            "match prefillLabels and decodeLabels of ModelServer team/s; change one of them",
        )
    ]
    assert (found.servers, found.members, found.idle) == ([], {}, [])


@pytest.mark.parametrize(
    ("of_pod", "of_server", "port"), [(None, None, 5600), (None, "2", 2), ("1", "2", 1), ("1", None, 1)]
)
def test_the_kv_port_is_the_pods_or_the_servers_or_the_connectors(of_pod, of_server, port):
    pod_says, server_says = (
        {} if said is None else {"kvoy.io/kv-port": said} for said in (of_pod, of_server)
    )
    server = a_server("s", annotations=server_says, **PUSH)

    prefill = select(a_pod(pod_says, group="one", prefills="yes"), [server])
    decode = select(a_pod(pod_says, group="one", decodes="yes"), [server])

    assert prefill.members["s"] == Member("prefill", "one", port)
    assert decode.members["s"] == Member("decode", "one", 0)


@given(
    st.dictionaries(
        st.sampled_from(["group", "rack", "prefills", "decodes"]), st.sampled_from(["yes", "no", ""])
    ),
    st.permutations([a_server("plain", apart=False), a_server("s"), a_server("t", group="rack", **PUSH)]),
)
def test_every_server_that_selects_a_pod_is_accounted_for_once(labels, servers):
    found = select(a_pod(**labels), servers)

    assert found.servers == sorted(found.servers)
    assert set(found.members) == set(found.servers) - {"plain"}
    assert len(found.servers) + len(found.idle) + len(found.faults) == len(servers)
    assert all(member.group for member in found.members.values())


def a_member_of(group, role, server="s", namespace="team"):
    return PodRecord(namespace, "p", "10.0.0.1", (server,), members={server: Member(role, group)})


def test_a_group_needs_both_roles():
    pods = [
        a_member_of("one", "prefill"),
        a_member_of("two", "decode"),
        a_member_of("both", "prefill"),
        a_member_of("both", "decode"),
        PodRecord("team", "plain", "10.0.0.2", ("s",)),
    ]

    assert list(incomplete_groups(pods)) == [
        'group "one" of ModelServer team/s has no ready decode pod',
        'group "two" of ModelServer team/s has no ready prefill pod',
    ]


def test_groups_of_one_name_in_two_servers_or_namespaces_are_different_groups():
    pods = [
        a_member_of("one", "prefill"),
        a_member_of("one", "decode", server="t"),
        a_member_of("one", "decode", namespace="x"),
    ]

    assert len(list(incomplete_groups(pods))) == 3


def test_no_pods_lack_nothing():
    assert list(incomplete_groups([])) == []
