from redis.crc import key_slot

from extproc.state import keys


def all_keys(group: str) -> list[str]:
    plain = [keys.config, keys.log, keys.live, keys.cache, keys.secret]
    return [
        *(key(group) for key in plain),
        keys.cache_snapshot(group, 1, 7),
        keys.cache_snapshot(group, 2, 7),
        keys.cache_snapshot(group, 1, 2**64 - 1),
        keys.lease(group, "engine", "pod/default/{x}#1"),
        keys.lease(group, "other", "pod/default/{x}#1"),
        keys.members(group, "collector"),
    ]


def test_keys_of_a_group_share_one_cluster_slot() -> None:
    slots = {key_slot(key.encode()) for key in all_keys("prod")}

    assert slots == {key_slot(b"prod")}


def test_no_two_keys_are_the_same() -> None:
    found = [*all_keys("a"), *all_keys("b")]

    assert len(set(found)) == len(found)


def test_every_key_carries_the_schema_version() -> None:
    assert all(key.startswith("kvoy1:") for key in all_keys("g"))
