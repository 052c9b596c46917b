"""The collector as a child: ``python -m extproc.collect``."""

from extproc.supervise import redis_url
from extproc.supervise.plan import Child, Probe
from extproc.supervise.tether import python


def collector(
    admin: str,
    *,
    redis: str,
    group: str,
    interval_s: float = 1.0,
    needs: tuple[str, ...] = (),
    hint: str,
) -> Child:
    """A collector with its admin endpoint at `admin` (``host:port``)."""
    return Child(
        name="collector",
        argv=python(
            *("-m", "extproc.collect", "--group", group, "--admin", admin, "--interval", f"{interval_s:g}"),
        ),
        env=((redis_url.VARIABLE, redis),),
        ready=(Probe(admin, "/readyz"),),
        needs=needs,
        hint=hint,
    )
