"""Pure: the processes of `kvoy up`, in the order in which they start.

Valkey → controller, workers and collector, which all only need the state → Envoy, which needs the first two:
workers place requests without a collector too, only not as well.
"""

from controller.up.place import Place
from controller.up.settings import Settings
from extproc.supervise import Child, Probe, collector, python, redis_url, worker_name, worker_socket, workers

VALKEY, CONTROLLER, ENVOY = "valkey", "controller", "envoy"
NODE_ID = "kvoy-up"
"""What Envoy calls itself towards the controller."""


def children(
    settings: Settings, place: Place, *, envoy: str, valkey: str | None, cpus: int
) -> tuple[Child, ...]:
    """All processes; `valkey` is None exactly if `settings` names a Redis."""
    url = settings.redis_url or f"unix://{place.valkey_socket}"
    store = () if valkey is None else (_valkey(place, valkey),)
    needs = tuple(child.name for child in store)
    deciders = workers(
        place.root,
        settings.admin,
        redis=url,
        group=settings.group,
        needs=needs,
        hint=_hint(settings),
        tokenizers=settings.tokenizers,
    )
    control = _controller(settings, place, url, needs)
    proxy = _envoy(settings, place, envoy, cpus, tuple(child.name for child in (control, *deciders)))
    eyes = collector(settings.collector, redis=url, group=settings.group, needs=needs, hint=_hint(settings))
    return (*store, control, *deciders, eyes, proxy)


def bootstrap_command(place: Place) -> tuple[str, ...]:
    """Prints Envoy's bootstrap."""
    return _kvoy(
        *("bootstrap", "--node-id", NODE_ID, "--xds-socket", str(place.xds_socket)),
        *("--admin", f"unix:{place.envoy_admin_socket}"),
    )


def _kvoy(*args: str) -> tuple[str, ...]:
    return python("-m", "extproc.cli", *args)


def _hint(settings: Settings) -> str:
    state = f"Redis at {redis_url.shown(settings.redis_url)} and " if settings.redis_url else ""
    return (
        f"it needs {state}valid manifests in {settings.manifests}: the controller reports errors in them, "
        "and takes a corrected file at once"
    )


def _valkey(place: Place, binary: str) -> Child:
    """A store without files. It is silent: its only words would ask for kernel settings that matter to
    snapshots on disk, which it never writes."""
    return Child(
        VALKEY,
        (
            *(binary, "--port", "0", "--unixsocket", str(place.valkey_socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--dir", str(place.root), "--loglevel", "nothing"),
        ),
        ready=(Probe(f"unix:{place.valkey_socket}"),),
    )


def _controller(settings: Settings, place: Place, url: str, needs: tuple[str, ...]) -> Child:
    named_workers = (
        ("--extproc", f"{worker_name(at)}={worker_socket(place.root, at)}")
        for at in range(len(settings.admin))
    )
    return Child(
        CONTROLLER,
        _kvoy(
            *("controller", "-f", str(settings.manifests), "--group", settings.group),
            *("--xds-socket", str(place.xds_socket), "--listen", settings.listen),
            *(part for option in named_workers for part in option),
            *(("--decision-header",) if settings.decision_header else ()),
        ),
        env=((redis_url.VARIABLE, url),),
        ready=(Probe(f"unix:{place.xds_socket}"),),
        needs=needs,
    )


def _envoy(settings: Settings, place: Place, binary: str, cpus: int, needs: tuple[str, ...]) -> Child:
    """One Envoy thread per worker, if there are cores for them: a request costs Envoy less than a worker.

    Hot restart would leave files in /dev/shm. The log component `misc` warns only that filters we chose are
    work in progress, at each start and for each field.
    """
    threads = max(1, min(len(settings.admin), cpus))
    return Child(
        ENVOY,
        (
            *(binary, "-c", str(place.bootstrap), "--disable-hot-restart", "--concurrency", str(threads)),
            *("--log-level", "warning", "--component-log-level", "misc:error", "--log-format", "%l %n %v"),
        ),
        ready=(Probe(f"unix:{place.envoy_admin_socket}", "/ready"), Probe(settings.listen)),
        needs=needs,
    )
