import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.supervise.redis_url import address, check, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://state", "state:6379"),
        ("redis://user:secret@state:7000/2", "state:7000"),
        ("rediss://state:6380?x=y", "state:6380"),
        ("redis://[::1]:6379", "::1:6379"),
        ("unix:///run/redis.sock?db=1", "unix:/run/redis.sock"),
        ("unix://user:secret@/run/redis.sock", "unix:/run/redis.sock"),
    ],
)
def test_a_good_url_says_where_to_connect(url, expected):
    check(url)

    assert address(url) == expected


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", "is no Redis URL: write redis://host:6379"),
        ("localhost:6379", "is no Redis URL"),
        ("http://localhost:6379", "http://localhost:6379 is no Redis URL"),
        ("redis://", "redis:// names no host: write redis://host:6379"),
        ("redis:///0", "names no host"),
        ("unix://", "names no socket: write unix:///path/to/socket"),
        ("unix://relative", "names no socket"),
        ("redis://host:port", "redis://host:port has no valid port: write redis://host:6379"),
        ("redis://host:99999", "has no valid port"),
        ("redis://[::1", "is no Redis URL"),
        ("redis://a℀b", "is no Redis URL"),
    ],
)
def test_a_bad_url_is_refused_with_its_remedy(url, error):
    with pytest.raises(ValueError, match=error):
        check(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("redis://:secret@host:6379", "redis://host:6379"),
        ("redis://user:s@cr@t@host", "redis://host"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("user:secret@host", "host"),
    ],
)
def test_a_shown_url_has_no_password(url, expected):
    assert shown(url) == expected


@given(st.text(max_size=40))
def test_any_text_is_accepted_or_refused(url):
    try:
        check(url)
    except ValueError:
        return
    assert address(url)


@given(st.sampled_from(["redis", "rediss", "unix", "http", "nonsense"]), st.text("ab:/@#?[]", max_size=12))
def test_no_error_shows_a_password(scheme, rest):
    url = f"{scheme}://me:TOPSECRET@{rest}"
    said = [shown(url)]
    try:
        check(url)
    except ValueError as error:
        said.append(str(error))
    assert "TOPSECRET" not in " ".join(said)
