from redis.crc import key_slot

from extproc.state import keys

GROUP_KEYS = [keys.config, keys.log, keys.inflight_total, keys.inflight_leases]


def all_keys(group: str) -> list[str]:
    return [key(group) for key in GROUP_KEYS] + [keys.inflight_of(group, "host/extproc-0/{x}")]


def test_keys_of_a_group_share_one_cluster_slot() -> None:
    slots = {key_slot(key.encode()) for key in all_keys("prod")}

    assert slots == {key_slot(b"prod")}


def test_no_two_keys_are_the_same() -> None:
    found = [*all_keys("a"), *all_keys("b")]

    assert len(set(found)) == len(found)


def test_every_key_carries_the_schema_version() -> None:
    assert all(key.startswith("kvoy1:") for key in all_keys("g"))


def test_an_instance_key_is_the_common_prefix_and_its_name() -> None:
    # inflight.lua finds the counts of instances to reap by this rule.
    assert keys.inflight_of("g", "one") == keys.inflight_of("g", "") + "one"
