"""Runs other processes and keeps them running: used by `kvoy up`, `kvoy extproc` and the demo.

    plan.py       pure: children, what happened and the time in; spawn, signal, kill and report out
    run.py        does what the plan says (asyncio)
    probe.py      asks a child's addresses whether it is ready
    log.py        one log of whole lines, each with the name of its process; never blocks who writes
    tether.py     the command line that makes a child die with its parent
    worker.py     the ext_proc workers as children
    ports.py, redis_url.py   what is checked before anything starts
    open_files.py            how many sockets the children may have

A child runs in a session of its own, so a Ctrl-C at the terminal reaches only the supervisor, which then
stops the children in order.
"""

from extproc.supervise import open_files, redis_url
from extproc.supervise.log import Log
from extproc.supervise.plan import Child, Probe
from extproc.supervise.ports import PortTaken, claim, claim_addresses
from extproc.supervise.probe import why_not_ready
from extproc.supervise.run import Supervisor, keep_running, stop_on_signals
from extproc.supervise.tether import python, tethered
from extproc.supervise.worker import worker_name, worker_socket, workers

__all__ = [
    "Child",
    "Log",
    "PortTaken",
    "Probe",
    "Supervisor",
    "claim",
    "claim_addresses",
    "keep_running",
    "open_files",
    "python",
    "redis_url",
    "stop_on_signals",
    "tethered",
    "why_not_ready",
    "worker_name",
    "worker_socket",
    "workers",
]
