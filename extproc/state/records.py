"""What is stored: the compiled configuration and the pods, as frozen msgspec Structs.

The controller compiles manifests into these records; `snapshot.Snapshot` is what a worker runs. Records are
tagged by kind and encoded as msgpack. A record key is ``kind/namespace/name``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from extproc.state.envoy import cluster_name


def server_key(namespace: str, name: str) -> str:
    """Record key of a ModelServer."""
    return f"server/{namespace}/{name}"


def label(key: str) -> str:
    """A record key as people write it: ``namespace/name``."""
    return key.partition("/")[2]


class StringMatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A condition on a header value or on the path: the first of the three that is set decides.

    `regex` has RE2 syntax and is unanchored. With none set, everything matches.
    """

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ModelServer of the route's namespace and its relative weight (0 to 100)."""

    server: str
    weight: int = 100


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule of a ModelRoute: every given condition must hold; rules are tried in order."""

    targets: tuple[Target, ...]
    name: str = ""
    headers: dict[str, StringMatch] = {}
    """Lower-case header name to condition; an absent header reads as the empty string."""
    uri: StringMatch | None = None
    model: str | None = None
    """Exact value of the body's ``model``."""


class ModelRoute(msgspec.Struct, frozen=True, omit_defaults=True, tag="route"):
    """Which requests go to which ModelServers."""

    namespace: str
    name: str
    rules: tuple[Rule, ...]
    model: str = ""
    """``spec.modelName``; empty for a route that serves adapters only."""
    adapters: tuple[str, ...] = ()
    """LoRA adapter names; they reach the engine unchanged."""
    created: float = 0.0
    """creationTimestamp in seconds since 1970: among routes of one model the oldest wins."""

    @property
    def key(self) -> str:
        return f"route/{self.namespace}/{self.name}"


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often Envoy tries further endpoints, and its base interval in seconds."""

    attempts: int = 2
    interval_s: float = 0.025


class Tls(msgspec.Struct, frozen=True, omit_defaults=True):
    """How Envoy speaks https to the pods of a ModelServer."""

    server_name: str
    """SNI, and the name the pods' certificate must carry."""
    ca_file: str | None = None
    """PEM bundle on Envoy's file system; None means the system's."""
    verify: bool = True


class Plugin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A scheduling plugin by its name in `extproc.schedule.catalogue`, with its checked arguments."""

    name: str
    args: dict[str, Any] = {}
    """Argument name, as the configuration file spells it, to value; absent ones have their defaults."""
    weight: float = 1.0
    """Share of a scorer in the total; screens have none."""

    def __hash__(self) -> int:
        """Arguments may be of any type, so they are left out."""
        return hash((self.name, self.weight))


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """How endpoints are chosen: the screens drop some, the weighed scorers rank the rest."""

    screens: tuple[Plugin, ...] = ()
    scorers: tuple[Plugin, ...] = (Plugin("lmetric"),)


class Scheduler(msgspec.Struct, frozen=True, tag="scheduler"):
    """The profile of every ModelServer that has none of its own."""

    profile: Profile

    @property
    def key(self) -> str:
        return "scheduler/default"


class KvEvents(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an engine publishes its KV events, where it cannot be asked.

    Addresses are ZeroMQ's, ``tcp://*:5557``: the host ``*`` stands for the pod's IP, and data-parallel rank r
    listens on the port plus r.
    """

    endpoint: str
    replay: str | None = None


Role = Literal["prefill", "decode"]
"""What a pod does of a request where not every pod does all of it."""

ConnectorName = Literal["http", "lmcache", "nixl", "nixl-push", "mooncake", "sglang", "sidecar"]
"""How a prompt's KV cache gets from a prefill engine to a decode engine; see `extproc.handoff.connectors`."""

KV_PORTS: Mapping[ConnectorName, int] = {"nixl-push": 5600, "mooncake": 8998, "sglang": 8998}
"""Connector to the port on which decode engines ask prefill engines for KV caches, unless the manifests name
another; connectors that do not need to know it are absent."""


class Disaggregation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some pods of a ModelServer compute prompts, others the answers."""

    connector: ConnectorName
    threshold: int = 256
    """Prompt tokens that a decode endpoint lacks, below which it computes them itself."""
    prefill_timeout_s: float = 30.0
    """Longest wait for one prefill endpoint; two are tried at most."""
    decode_alone: bool = True
    """A request whose prefill fails is computed by its decode endpoint alone; False makes it an error."""
    tensor_parallel: int = 1
    """Tensor-parallel size of the prefill engines, which the connector nixl-push has to name."""


class ModelServer(msgspec.Struct, frozen=True, omit_defaults=True, tag="server"):
    """A pool of pods that serve one model."""

    namespace: str
    name: str
    engine: Literal["vLLM", "SGLang"]
    port: int
    model: str | None = None
    """``spec.model``: replaces the body's ``model`` (LoRA names excepted); None leaves it."""
    timeout_s: float | None = None
    """Longest wait for response headers, per attempt; None means no limit."""
    retry: Retry = Retry()
    tls: Tls | None = None
    report_usage: bool = True
    """Ask the engine for token usage in streamed answers even where the client did not."""
    ranks: int = 1
    """Data-parallel ranks of each pod; more than one makes every rank an endpoint of its own."""
    profile: Profile | None = None
    """How its endpoints are chosen; None means as `Scheduler` says."""
    tokenizer: str | None = None
    """Directory of the model's tokeniser below the workers' ``--tokenizers``; None means the model's name."""
    kv_events: KvEvents | Literal["off"] | None = None
    """None: the collector asks the engine where its events are."""
    disaggregation: Disaggregation | None = None
    """None: every pod does prefill and decode."""
    client_control: bool = False
    """Whether clients may set the fields and headers that steer engines (`extproc.control`)."""

    @property
    def key(self) -> str:
        return server_key(self.namespace, self.name)

    @property
    def cluster(self) -> str:
        """Envoy's cluster of this pool."""
        return cluster_name(self.namespace, self.name)


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pod's part in a ModelServer with disaggregation."""

    role: Role
    group: str
    """Prefill and decode endpoints work together only within a group."""
    kv_port: int = 0
    """Of a prefill pod: where decode engines ask for its KV cache, by the connector's protocol."""


class Pod(msgspec.Struct, frozen=True, omit_defaults=True, tag="pod"):
    """One ready engine and the ModelServers (names in its namespace) that select it."""

    namespace: str
    name: str
    ip: str
    servers: tuple[str, ...]
    port: int | None = None
    """Overrides the ModelServer's port."""
    members: dict[str, Member] = {}
    """Its part in each of `servers` that has disaggregation; without one it would not be in `servers`."""
    kv_engine: str | None = None
    """Its engine's id towards decode engines; None means the pod's name."""

    @property
    def key(self) -> str:
        return f"pod/{self.namespace}/{self.name}"

    def address(self, server: ModelServer) -> str:
        """``ip:port`` under which Envoy knows this pod in the server's cluster; IPv6 in brackets."""
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{ip}:{self.port or server.port}"

    def places(self, records: "Mapping[str, Record]") -> "Iterator[tuple[ModelServer, str]]":
        """Each ModelServer among the records that selects this pod, and the pod's address there."""
        for name in self.servers:
            server = records.get(server_key(self.namespace, name))
            if isinstance(server, ModelServer):
                yield server, self.address(server)

    def answers(self, server: ModelServer) -> bool:
        """Whether it answers requests of the server's clients: prefill pods do not."""
        member = self.members.get(server.name)
        return member is None or member.role == "decode"


Record = ModelRoute | ModelServer | Pod | Scheduler


class Put(msgspec.Struct, frozen=True, tag="put"):
    """A record that is new or changed."""

    record: Record


class Delete(msgspec.Struct, frozen=True, tag="delete"):
    """A record, by key, that is gone."""

    key: str


Change = Put | Delete


class Publication(msgspec.Struct, frozen=True):
    """One atomic step of the configuration: applied whole or not at all.

    `generation` grows by one per publication. `epoch` is drawn anew each time the store is written from
    nothing; a publication of another epoch does not continue what a reader holds.
    """

    epoch: str
    generation: int
    changes: tuple[Change, ...]
    whole: bool = False
    """The changes are the entire configuration: it begins `epoch` and replaces whatever is stored."""


_record: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_publication = msgspec.msgpack.Decoder(Publication)
_encoder = msgspec.msgpack.Encoder()


def encode(value: Record | Publication) -> bytes:
    """Msgpack bytes of a record or a publication."""
    return _encoder.encode(value)


def decode_record(raw: bytes) -> Record:
    """A record from its msgpack bytes; raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
    return _record.decode(raw)


def decode_publication(raw: bytes) -> Publication:
    """A publication from its msgpack bytes; raises as `decode_record` does."""
    return _publication.decode(raw)
