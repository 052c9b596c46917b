"""Do many workers decide like one? The same trace through 1, 2, 4 and 8 real workers over one real Valkey.

trace.py     conversations with shared beginnings, as arrivals in time (pure)
pods.py      how an engine would serve them: a prefix cache, a queue of prefills (pure)
workers.py   real `python -m extproc` processes; speaks to them as Envoy does
play.py      plays a trace: each arrival asks a worker, each end is reported to it
report.py    what came of it -> rows, table, JSON
__main__.py  the command: `make bench-replicas`

Engines are modelled, not run: times to first token follow from which pod gets which request when, so that a
noisy machine disturbs only what is measured here, the decisions.
"""
