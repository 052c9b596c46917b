from pathlib import Path

from controller.up.settings import Settings


def test_without_a_redis_a_valkey_of_our_own_serves_the_default_group():
    settings = Settings(Path("/manifests"), "127.0.0.1:8080", ("127.0.0.1:9190",), "127.0.0.1:9189")

    assert (settings.redis_url, settings.group) == (None, "default")
