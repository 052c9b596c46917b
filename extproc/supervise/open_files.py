"""How many files and sockets a process may have open."""

import resource


def allow_many() -> None:
    """Raise the limit of this process, and of those it starts, as far as the system lets us.

    Systems start programs with 1024; a thousand streams through Envoy need more than two each.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
