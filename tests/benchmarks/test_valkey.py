from pathlib import Path

from redis import Redis

from benchmarks.valkey import valkey


def test_it_answers_until_the_block_ends_and_leaves_nothing():
    with valkey() as url:
        client = Redis.from_url(url)
        assert client.ping()
        client.close()
        folder = Path(url.removeprefix("unix://")).parent
        assert folder.exists()
    assert not folder.exists()
