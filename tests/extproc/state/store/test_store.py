import pytest

from extproc.state.store import Store


@pytest.mark.parametrize("url", ["http://h", "h:6379", ""])
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="unix://"):
        Store.connect(url, "g")
