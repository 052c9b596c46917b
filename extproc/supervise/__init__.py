"""Runs other processes and keeps them running: used by `kvoy up`, `kvoy extproc` and the demo.

    plan.py    pure: children, what happened and the time in; spawn, signal, kill and report out
    probe.py   asks a child's addresses whether it is ready
    log.py     one log of whole lines, each with the name of its process; never blocks who writes
    tether.py  the command line that makes a child die with its parent
    run.py     does what the plan says (asyncio)

A child runs in a session of its own, so a Ctrl-C at the terminal reaches only the supervisor, which then
stops the children in order.
"""

from extproc.supervise.log import Log
from extproc.supervise.plan import Child, Probe
from extproc.supervise.run import Supervisor, stop_on_signals
from extproc.supervise.tether import python, tethered

__all__ = ["Child", "Log", "Probe", "Supervisor", "python", "stop_on_signals", "tethered"]
