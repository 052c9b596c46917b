"""What of a client's request would steer an engine past kvoy, and the body without it.

A client that names another pod's KV cache reads what others wrote there, or brings a decode engine down; one
that names a rank undoes the decision. So all of it is taken out, unless a ModelServer lets clients keep it.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

from extproc import splice
from extproc.rejection import Rejection
from extproc.request import UNREADABLE, unreadable
from extproc.splice import Edit, Intricate

_SGLANG = {
    "bootstrap_host": "SGLang: the prefill engine to fetch the KV cache from.",
    "bootstrap_port": "SGLang: its port.",
    "bootstrap_room": "SGLang: which of its transfers to take.",
    "bootstrap_pair_key": "SGLang: which prefill and decode requests belong together.",
    "decode_tp_size": "SGLang: how the decode engine splits its KV cache.",
    "routed_dp_rank": "SGLang: the data-parallel rank that computes.",
    "disagg_prefill_dp_rank": "SGLang: the data-parallel rank that computed the prompt.",
    "data_parallel_rank": "SGLang: an older name of `routed_dp_rank`.",
}

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "kv_transfer_params": "vLLM: where the KV cache of the prompt is, and who may fetch it.",
        "ec_transfer_params": "vLLM: where the encoder's cache of images and sound is.",
        **_SGLANG,
        "vllm_xargs.kv_transfer_params": "vLLM: the same as `kv_transfer_params`.",
        "vllm_xargs.ec_transfer_params": "vLLM: the same as `ec_transfer_params`.",
        "sampling_params.extra_args.kv_transfer_params": "vLLM: the same, of requests by token ids.",
        "sampling_params.extra_args.ec_transfer_params": "vLLM: the same, of requests by token ids.",
        **{
            f"parameters.{name}": f"{meaning[:-1]}, of `/vertex_generate`."
            for name, meaning in _SGLANG.items()
        },
    }
)
"""Members of a JSON body, with dots before those of inner objects, and their meaning."""

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "x-override-*": "SGLang: what the fields above say, the request's id and its priority.",
        "x-data-parallel-rank": "vLLM and SGLang: the data-parallel rank that computes.",
        "x-vllm-priority": "vLLM: the place in the queue.",
        "x-prefiller-host-port": "Routing sidecars: the pod that computes the prompt.",
        "x-encoder-hosts-ports": "Routing sidecars: the pods that encode images and sound.",
        "x-data-parallel-host-port": "Routing sidecars: the data-parallel rank that computes.",
        "x-kv-cache-source-host-port": "Routing sidecars: the pod to fetch the KV cache from.",
    }
)
"""Names of request headers, and their meaning; a star stands for anything."""

HEADER_PREFIX = "x-override-"
HEADER_NAMES = frozenset(HEADERS) - {f"{HEADER_PREFIX}*"}
"""Headers of these names steer, and those that begin with HEADER_PREFIX."""

_PATHS = frozenset(tuple(name.split(".")) for name in FIELDS)
_AROUND = frozenset(path[:depth] for path in _PATHS for depth in range(len(path)))
"""Paths of the objects that may hold such members."""
_OUTER = frozenset(path[0] for path in _PATHS)
_SPACE = b" \t\n\r"

_decode = msgspec.json.Decoder(msgspec.Raw).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def strip(body: bytes) -> bytes | Rejection:
    """A JSON body without FIELDS; all other bytes stay, but for a comma and the space around each.

    A body that is no JSON for us is refused: an engine may read more than we do (NaN, UTF-16). An empty body
    and one that is no object pass.
    """
    if not body:
        return body
    is_object = body.lstrip(_SPACE).startswith(b"{")
    try:
        body.decode()
        names = _decode_members(body) if is_object else _decode(body)
    except UNREADABLE as error:
        return unreadable(error)
    if not is_object or _OUTER.isdisjoint(names):
        return body
    try:
        edits = list(_edits(body, 0, len(body), ()))
    except Intricate as error:
        return Rejection("invalid-json", f"The body can not be read: {error}.")
    return splice.apply(body, edits) if edits else body


def _edits(body: bytes, start: int, end: int, path: tuple[str, ...]) -> Iterator[Edit]:
    """What to cut of the object that is there."""
    members = list(splice.members(body, start, end))
    gone = {at for at, member in enumerate(members) if (*path, member.name) in _PATHS}
    yield from splice.removals(members, gone)
    for member in members:
        inner = (*path, member.name)
        if inner in _AROUND and body.startswith(b"{", member.value):
            yield from _edits(body, member.value, member.end, inner)
