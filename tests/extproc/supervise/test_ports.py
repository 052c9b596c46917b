import socket
from contextlib import suppress

import pytest

from extproc.supervise import Address, ports
from extproc.supervise.ports import PortTaken, claim, claim_addresses


@pytest.fixture
def busy():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_any_free_ports_are_different_and_can_be_used():
    ports = claim("127.0.0.1", 0, 20)

    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", port))


def test_free_ports_are_none_that_others_get_by_chance():
    first_by_chance = 32_768  # as Linux comes
    assert max(claim("127.0.0.1", 0, 50)) < first_by_chance


def test_where_quiet_ports_are_busy_any_other_is_taken(monkeypatch, busy):
    monkeypatch.setattr(ports, "_QUIET", [busy])
    monkeypatch.setattr(ports, "_TRIES", 1)

    (port,) = claim("127.0.0.1", 0)

    assert port not in (0, busy)


def test_wished_ports_follow_each_other():
    for first in claim("127.0.0.1", 0, 50):
        # Other processes take and leave ports all the time: not every free port has two free neighbours.
        with suppress(PortTaken):
            assert claim("127.0.0.1", first, 3) == (first, first + 1, first + 2)
            return
    raise AssertionError("no three free ports in a row were found")


def test_a_busy_port_is_named_with_what_to_do(busy):
    said = rf"cannot listen on 127.0.0.1:{busy} \(Address already in use\); choose another port, or 0"

    with pytest.raises(PortTaken, match=said):
        claim("127.0.0.1", busy)


def test_a_busy_port_among_several_is_named():
    for _ in range(50):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            busy = listening.getsockname()[1]
            # Other processes take and leave ports all the time: the one before may be busy too.
            with suppress(PortTaken):
                claim("127.0.0.1", busy - 1)
                with pytest.raises(PortTaken, match=rf"127.0.0.1:{busy} "):
                    claim("127.0.0.1", busy - 1, 2)
                return
    raise AssertionError("no busy port after a free one was found")


def test_a_port_that_many_listeners_could_share_is_busy_too():
    """Envoy listens with SO_REUSEPORT: a second one would silently take half of the first one's requests."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        with pytest.raises(PortTaken):
            claim("127.0.0.1", listening.getsockname()[1])


def test_ports_past_the_last_are_refused():
    with pytest.raises(PortTaken, match=r"127.0.0.1:65536 \(ports end at 65535\)"):
        claim("127.0.0.1", 65536)


def test_an_address_of_another_host_is_refused():
    with pytest.raises(PortTaken, match=r"cannot listen on 192.0.2.1:0 \(Cannot assign requested address\)"):
        claim("192.0.2.1", 0)


def test_addresses_keep_their_host():
    assert [a.rpartition(":")[0] for a in claim_addresses("127.0.0.1:0", 2)] == ["127.0.0.1"] * 2


def test_an_ipv6_address_is_written_in_brackets():
    try:
        (address,) = claim_addresses("[::1]:0", 1)
    except PortTaken:
        pytest.skip("this machine has no IPv6")
    assert address.startswith("[::1]:")
    assert Address.of_ip(address).port


def test_a_busy_ipv6_port_is_named_in_brackets():
    with socket.socket(socket.AF_INET6) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listening.listen()
        port = listening.getsockname()[1]

        with pytest.raises(PortTaken, match=rf"cannot listen on \[::1\]:{port} "):
            claim("::1", port)


@pytest.mark.parametrize("nonsense", ["", "9190", ":9190", "localhost", "localhost:", "host:http", "a:-1"])
def test_what_is_no_address_is_refused(nonsense):
    with pytest.raises(ValueError, match=r"is not HOST:PORT, e.g. 127.0.0.1:9190"):
        claim_addresses(nonsense, 1)


def test_a_name_is_refused():
    with pytest.raises(ValueError, match=r"localhost is no IP address: write 127.0.0.1"):
        claim_addresses("localhost:0", 1)


def test_a_port_that_is_drawn_twice_is_given_once(monkeypatch):
    (port,) = claim("127.0.0.1", 0)
    monkeypatch.setattr(ports.random, "sample", lambda *_: [port])

    assert len(set(claim("127.0.0.1", 0, 3))) == 3
