"""What kvoy costs: the same load through Envoy alone and through Envoy with kvoy, in one run.

__main__.py  the command: `make bench-overhead`
load.py      closed-loop and fixed-rate HTTP/1.1 load over raw sockets
backend.py   an engine that answers at once, so that only the path to it is measured
cpu.py       CPU time of processes, read from /proc
targets.py   what is measured: Envoy alone, and `kvoy up`
report.py    measurements -> rows, table, JSON
"""
