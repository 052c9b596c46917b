"""Where an engine publishes its KV events: it is asked, else its ModelServer says so."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NoReturn

import aiohttp
import msgspec

from extproc.collect.kv.target import Target

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_WILDCARDS = ("*", "0.0.0.0", "::")
_REMEDY = "annotate its ModelServer with kvoy.io/kv-events"


class NoSource(Exception):
    """No KV events can be had of an engine, in words that say why and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one engine publishes, as seen from here; ZeroMQ addresses."""

    endpoint: str
    replay: str | None = None
    """None where missed batches can not be had again."""
    flaw: str | None = None
    """What is wrong with it, for the log."""


async def discover(http: aiohttp.ClientSession, target: Target) -> Source:
    """Ask the engine, then look at what is configured; raises `NoSource`."""
    if target.configured == "off":
        raise NoSource("the annotation kvoy.io/kv-events of its ModelServer is off")
    try:
        return told(await _asked(http, target), target)
    except NoSource:
        if target.configured is None:
            raise
    return configured(target)


def told(document: Any, target: Target) -> Source:
    """What the engine's answer says about the target's rank; raises `NoSource`."""
    try:
        if target.engine == "vLLM":
            return _vllm(msgspec.convert(document, dict[int, _Vllm], strict=False), target)
        return _sglang(msgspec.convert(document, _ServerInfo), target)
    except msgspec.ValidationError as error:
        raise NoSource(f"its answer about KV events is not understood ({error}): {_REMEDY}") from None


def configured(target: Target) -> Source:
    """What the ModelServer says, where rank r has the port plus r; raises `NoSource`."""
    events = target.configured
    if events is None or events == "off":
        raise NoSource(f"nothing is configured: {_REMEDY}")
    return _source(events.endpoint, events.replay, target, target.rank)


class _Vllm(msgspec.Struct):
    """One rank's publisher; its addresses already are this rank's."""

    endpoint: str
    publisher: str = "zmq"
    enable_kv_cache_events: bool = True
    replay_endpoint: str | None = None


class _Publisher(msgspec.Struct):
    endpoint_host: str
    endpoint_port_base: int
    publisher: str = "zmq"
    replay_endpoint_port_base: int | None = None


class _ServerInfo(msgspec.Struct):
    kv_events: _Publisher | None = None


def _vllm(ranks: dict[int, _Vllm], target: Target) -> Source:
    if target.rank == 0 and len(ranks) == 1:
        (found,) = ranks.values()  # a pod that is one rank of several pods tells only itself
    elif target.rank in ranks:
        found = ranks[target.rank]
    else:
        _off(target)
    if found.publisher != "zmq" or not found.enable_kv_cache_events:
        _off(target)
    return _source(found.endpoint, found.replay_endpoint, target, 0)


def _sglang(info: _ServerInfo, target: Target) -> Source:
    found = info.kv_events
    if found is None or found.publisher != "zmq":
        _off(target)
    host = f"[{found.endpoint_host}]" if ":" in found.endpoint_host else found.endpoint_host
    base = found.replay_endpoint_port_base
    repeated = None if base is None else f"tcp://{host}:{base}"
    return _source(f"tcp://{host}:{found.endpoint_port_base}", repeated, target, target.rank)


def _off(target: Target) -> NoReturn:
    raise NoSource(f"rank {target.rank} publishes no KV events: start the engine with --kv-events-config")


def _source(endpoint: str, repeated: str | None, target: Target, offset: int) -> Source:
    address = _reachable(endpoint, target.pod_ip, offset)
    if repeated is None:
        return Source(address, flaw="it repeats nothing: set replay_endpoint in its --kv-events-config")
    try:
        return Source(address, _reachable(repeated, target.pod_ip, offset))
    except NoSource as error:
        return Source(address, flaw=f"what it missed can not be had: {error}")


def _reachable(address: str, pod_ip: str, offset: int) -> str:
    """The address from here, `offset` ports on; raises `NoSource`."""
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if scheme != "tcp" or not host or not (port.isascii() and port.isdigit()) or int(port) + offset > 65535:
        raise NoSource(f"{address!r} is not tcp://HOST:PORT: change its --kv-events-config")
    if host in _WILDCARDS:
        host = pod_ip
    elif _loopback(host) and not _loopback(pod_ip):
        raise NoSource(f"{address} is reachable only inside its pod: let it listen on tcp://*:{port}")
    return f"tcp://[{host}]:{int(port) + offset}" if ":" in host else f"tcp://{host}:{int(port) + offset}"


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _asked(http: aiohttp.ClientSession, target: Target) -> Any:
    url = target.http_base_url + ("/kv_event_sources" if target.engine == "vLLM" else "/server_info")
    try:
        async with http.get(url, timeout=_TIMEOUT) as answer:
            if answer.status != 200:
                raise NoSource(f"GET {url} answers {answer.status}: {_REMEDY}")
            return msgspec.json.decode(await answer.read())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NoSource(f"GET {url} fails: {error!r}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoSource(f"GET {url} answers no JSON ({error}): {_REMEDY}") from None
