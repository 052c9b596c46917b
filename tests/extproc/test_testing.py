from extproc.testing import a_head, a_pod, a_route, a_rule, a_server, a_snapshot


def test_a_small_world_compiles_into_a_snapshot() -> None:
    snapshot = a_snapshot(
        a_route("r", a_rule(("s", 30), "t"), model="m", adapters=["lora"]),
        a_server("s"),
        a_server("t", port=9000),
        a_pod("p", "s", "t", ip="10.0.0.7"),
    )

    assert [(server.name, weight) for server, weight in snapshot.routes[0].rules[0].targets] == [
        ("s", 30),
        ("t", 100),
    ]
    assert [e.address for e in snapshot.endpoints["server/default/t"]] == ["10.0.0.7:9000"]
    assert snapshot.models == (("m", 0.0), ("lora", 0.0))


def test_header_arguments_become_header_names() -> None:
    assert a_head(user_type="premium").headers == {"user-type": "premium"}
