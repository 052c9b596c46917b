from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from controller.changes import describe, diff, leftovers
from extproc.state.fold import Records, fold
from extproc.state.records import (
    Delete,
    Member,
    ModelRoute,
    ModelServer,
    Plugin,
    Pod,
    Profile,
    Publication,
    Put,
    Scheduler,
)
from extproc.state.snapshot import compile_snapshot


def keyed(*records):
    return {record.key: record for record in records}


def server(name, port=8000):
    return ModelServer("ns", name, "vLLM", port)


def pod(name, *servers, ip="10.0.0.1", port=None, role=None):
    """With a role it has it in all its servers."""
    members = {} if role is None else {each: Member(role, "one") for each in servers}
    return Pod("ns", name, ip, servers, port, members)


names = st.sampled_from("abc")
ips = st.sampled_from(["10.0.0.1", "10.0.0.2", "::1"])
ports = st.sampled_from([8000, 9000])
roles = st.sampled_from([None, "prefill", "decode"])
any_records = st.lists(
    st.builds(server, names, ports)
    | st.builds(lambda name, of, ip, port, role: pod(name, *sorted(of), ip=ip, port=port, role=role),
                names, st.sets(names), ips, st.none() | ports, roles)
    | st.builds(lambda name, model: ModelRoute("ns", name, (), model), names, names),
    max_size=8,
).map(lambda records: consistent(keyed(*records)))  # fmt: skip


def consistent(records):
    """As the compiler leaves them: no pod names a server that does not exist."""
    known = {record.name for record in records.values() if isinstance(record, ModelServer)}
    return {
        key: within(record, known) if isinstance(record, Pod) else record for key, record in records.items()
    }


def within(record, known):
    members = {name: member for name, member in record.members.items() if name in known}
    return structs.replace(record, servers=tuple(known.intersection(record.servers)), members=members)


def endpoints(records):
    found = compile_snapshot("e", 1, records.values()).endpoints
    return {(key, endpoint.address) for key, each in found.items() for endpoint in each}


@given(any_records, any_records)
def test_folding_the_difference_into_the_old_gives_the_new(old, new):
    publication = Publication("e", 2, diff(old, new))

    assert fold(Records("e", 1, old), publication).by_key == new


@given(any_records)
def test_no_difference_is_no_change(records):
    assert diff(records, dict(records)) == ()
    assert leftovers(records, dict(records)) == {}


def test_a_difference_is_new_changed_and_gone_records_in_order():
    old = keyed(server("gone"), server("changed"), server("same"))
    new = keyed(server("same"), server("new"), server("changed", 9000))

    assert diff(old, new) == (
        Put(server("changed", 9000)),
        Put(server("new")),
        Delete("server/ns/gone"),
    )


def test_a_difference_for_people():
    old = keyed(server("a"), pod("gone"))
    new = keyed(server("a", 9000), ModelRoute("ns", "chat", ()))

    assert describe(old, diff(old, new)) == "+ModelRoute ns/chat, ~ModelServer ns/a, -Pod ns/gone"


def test_a_change_of_the_scheduler_is_told():
    old, new = Scheduler(Profile()), Scheduler(Profile((), (Plugin("random"),)))

    assert describe(keyed(old), diff(keyed(old), keyed(new))) == "~Scheduler default"


def test_a_long_difference_is_cut():
    text = describe({}, diff({}, keyed(*(pod(f"p{at:02}") for at in range(25)))))

    assert text.startswith("+Pod ns/p00, ")
    assert text.endswith("+Pod ns/p19, 5 more")


def test_no_difference_for_people():
    assert describe({}, ()) == "no change"


@given(any_records, any_records)
def test_new_records_with_the_leftovers_of_the_old_serve_every_choice_by_either(old, new):
    union = endpoints(leftovers(old, new) | new)

    assert union >= endpoints(new)
    assert union >= endpoints(old)


@given(any_records, any_records)
def test_leftovers_name_no_endpoint_twice(old, new):
    union = leftovers(old, new) | new
    found = compile_snapshot("e", 1, union.values()).endpoints
    before = compile_snapshot("e", 1, new.values()).endpoints

    for key, each in found.items():
        addresses = [endpoint.address for endpoint in each]
        doubled = len(addresses) - len(set(addresses))
        kept = [endpoint.address for endpoint in before.get(key, ())]
        assert doubled == len(kept) - len(set(kept))


def test_a_pod_that_moved_is_left_over_where_it_was():
    old = keyed(server("a"), pod("p", "a", ip="10.0.0.1"))
    new = keyed(server("a"), pod("p", "a", ip="10.0.0.2"))

    assert list(leftovers(old, new).values()) == [pod("p", "a", ip="10.0.0.1", port=8000)]


def test_a_server_whose_port_changed_leaves_its_pods_on_the_old_one():
    old = keyed(server("a", 8000), pod("p", "a"))
    new = keyed(server("a", 9000), pod("p", "a"))

    assert list(leftovers(old, new).values()) == [pod("p", "a", port=8000)]


def test_prefill_pods_leave_nothing_for_envoy():
    old = keyed(server("a"), pod("p", "a", role="prefill"))

    assert leftovers(old, keyed(server("a"))) == {}


def test_a_decode_pod_that_becomes_a_prefill_pod_answers_a_little_longer():
    old = keyed(server("a"), pod("p", "a", role="decode"))
    new = keyed(server("a"), pod("p", "a", role="prefill"))

    assert endpoints(new) == set()
    assert endpoints(leftovers(old, new) | new) == endpoints(old) == {("server/ns/a", "10.0.0.1:8000")}


def test_routes_leave_nothing_for_envoy():
    assert leftovers(keyed(ModelRoute("ns", "chat", ())), {}) == {}
