"""Runs other processes and keeps them running: used by `kvoy up`, `kvoy extproc` and the demo.

    plan.py       pure: children, what happened and the time in; spawn, signal, kill and report out
    run.py        does what the plan says (asyncio)
    probe.py      asks a child's addresses whether it is ready
    log.py        one log of whole lines, each with the name of its process; never blocks who writes
    plain_log.py  the log of one process
    tether.py     the command line that makes a child die with its parent
    worker.py, collector.py   the ext_proc workers and the collector as children
    address.py, group.py, ports.py, redis_url.py, socket_path.py
                  what is checked before anything starts; blaming.py makes it an error of the command line
    open_files.py how many sockets the children may have

A child runs in a session of its own, so a Ctrl-C at the terminal reaches only the supervisor, which then
stops the children in order.
"""

from extproc.supervise import open_files, redis_url
from extproc.supervise.address import Address, ip
from extproc.supervise.blaming import blaming
from extproc.supervise.collector import collector
from extproc.supervise.group import check_group
from extproc.supervise.log import Log
from extproc.supervise.plain_log import plain_logging
from extproc.supervise.plan import Child, Probe
from extproc.supervise.ports import PortTaken, claim, claim_addresses
from extproc.supervise.probe import why_not_ready
from extproc.supervise.run import Supervisor, keep_running, stop_on_signals
from extproc.supervise.socket_path import socket_path
from extproc.supervise.tether import python, tethered
from extproc.supervise.worker import worker_name, worker_socket, workers

__all__ = [
    "Address",
    "Child",
    "Log",
    "PortTaken",
    "Probe",
    "Supervisor",
    "blaming",
    "check_group",
    "claim",
    "claim_addresses",
    "collector",
    "ip",
    "keep_running",
    "open_files",
    "plain_logging",
    "python",
    "redis_url",
    "socket_path",
    "stop_on_signals",
    "tethered",
    "why_not_ready",
    "worker_name",
    "worker_socket",
    "workers",
]
