import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.supervise import Address, ip


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9190", "127.0.0.1", 9190),
        ("state:6379", "state", 6379),
        ("[::1]:0", "::1", 0),
        ("[fd00::1]:65535", "fd00::1", 65535),
    ],
)
def test_host_and_port_as_people_write_them(text, host, port):
    assert Address.parse(text) == Address(host, port)
    assert str(Address(host, port)) == text


@pytest.mark.parametrize(
    "text",
    ["", "9190", ":9190", "host", "host:", "host:http", "host:-1", "host:65536", "host:٣", "host:0000080",
     "::1:80", "fd00::1:8000", "[::1]", "[]:80", "[host]:80", "[::1]80", "[[::1]]:80", "http://a:80",
     "a b:80", "a:80\n"],
)  # fmt: skip
def test_anything_else_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=r"is not HOST:PORT, e.g. 127.0.0.1:9190 or \[::1\]:9190"):
        Address.parse(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_is_read_back(host, port):
    address = Address(str(host), port)

    assert Address.parse(str(address)) == Address.of_ip(str(address)) == address


@given(st.text("a1:[].%/ \n", max_size=12))
def test_any_text_is_an_address_or_refused(text):
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("host", ["::1", "[::1]", "0:0:0:0:0:0:0:1"])
def test_an_ipv6_host_may_have_brackets(host):
    assert ip(host) == "::1"


@pytest.mark.parametrize(
    "host", ["", "localhost", "127.1", "127.0.0.1 ", "1.2.3.4.5", "fe80::1%eth0", "[::1"]
)
def test_what_is_no_ip_address_is_refused_with_what_to_write(host):
    with pytest.raises(ValueError, match=r"is no IP address: write 127.0.0.1 or ::1 for this machine alone"):
        ip(host)


def test_one_listens_on_an_ip_address_alone():
    with pytest.raises(ValueError, match="localhost is no IP address"):
        Address.of_ip("localhost:80")
