"""Addresses: what people write, as Envoy takes it."""

import re

import pytest

from controller.xds.address import admin, pipe, tcp


def test_host_and_port_become_a_socket_address():
    address = tcp("0.0.0.0:8080").socket_address
    assert (address.address, address.port_value) == ("0.0.0.0", 8080)


def test_an_ipv6_host_loses_its_brackets():
    address = tcp("[fd00::1]:8000").socket_address
    assert (address.address, address.port_value) == ("fd00::1", 8000)


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "host", "::1", "127.0.0.1:65536", "fd00::1:8000", "[::1]"],
)
def test_anything_else_is_refused_with_its_text(text):
    with pytest.raises(ValueError, match=f"{re.escape(text)} is not HOST:PORT"):
        tcp(text)


def test_a_name_is_refused_which_envoy_would_not_look_up():
    with pytest.raises(ValueError, match="localhost is no IP address"):
        tcp("localhost:8080")


def test_admin_takes_a_unix_socket_or_a_port():
    assert admin("unix:/run/a.sock") == pipe("/run/a.sock")
    assert admin("127.0.0.1:9901") == tcp("127.0.0.1:9901")
    with pytest.raises(ValueError, match="is longer than the 100 bytes"):
        admin("unix:/" + "a" * 100)
