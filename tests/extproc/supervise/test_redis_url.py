import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.supervise import Address, redis_url
from extproc.supervise.redis_url import address, check, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://state", "state:6379"),
        ("redis://user:secret@state:7000/2", "state:7000"),
        ("rediss://state:6380?db=2&ssl_ca_certs=/ca.pem&ssl_cert_reqs=none", "state:6380"),
        ("redis://state?username=me&password=secret", "state:6379"),
        ("redis://[::1]:6379", "[::1]:6379"),
        ("redis://[fe80::1%25eth0]/", "[fe80::1%25eth0]:6379"),
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
        ("redis://" + "a" * 64, "names no host"),
        ("redis://host/tmp", "names no database by its number: write redis://host:6379/0"),
        ("redis://host?db=one", "has an option that is none of db, username, password, or a value"),
        ("redis://host?timeout=1", "has an option that is none of"),
        ("redis://host?timeout", "has an option that is none of"),
        ("redis://host?ssl_ca_certs=/ca.pem", "has an option that is none of"),
        (
            "rediss://host?ssl_cert_reqs=maybe",
            "has an option that is none of .*, ssl_ca_certs, ssl_cert_reqs,",
        ),
        ("unix:///run/redis.sock?db=", "has an option that is none of"),
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
        ("redis://host/1?password=secret", "redis://host/1"),
        ("redis://host?db=1#secret", "redis://host"),
        ("redis://host?password=s@cret", "redis://…"),
        ("redis://me:se?cret@host", "redis://…"),
        ("se?cret@host", "…"),
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
    assert Address.parse(address(url)) if ":/" not in address(url) else address(url).startswith("unix:/")


SCHEMES = ["redis", "rediss", "unix", "http", "nonsense"]


@given(
    st.sampled_from(SCHEMES),
    st.sampled_from(["me:{}TOPSECRET{}@{}", "{2}?{0}password=TOPSECRET{1}"]),
    *[st.text("ab:/@#?[]&=", max_size=8)] * 3,
)
def test_no_error_shows_a_password(scheme, form, before, after, rest):
    url = f"{scheme}://{form.format(before, after, rest)}"
    said = [shown(url)]
    try:
        check(url)
    except ValueError as error:
        said.append(str(error))
    assert "TOPSECRET" not in " ".join(said)


def test_every_verb_takes_the_url_from_the_environment():
    from controller.cli import controller
    from controller.up.cli import up
    from extproc.__main__ import main
    from extproc.cli import extproc

    for verb in (controller, extproc, main, up):
        (option,) = (each for each in verb.params if "--redis" in each.opts)
        assert option.envvar == redis_url.VARIABLE
