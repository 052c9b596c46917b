"""What a hand-off costs, and what it is good for: prefill and decode apart against one engine for both.

__main__.py  the command: `make bench-handoff`
pods.py      engines -> the manifests of a ModelServer of each kind
backend.py   engines that take a told time for any prompt and transfer nothing
added.py     what the hand-off adds to a request, connector by connector
fleets.py    simulated GPUs, together and apart, in a process of their own
loads.py     long prompts, long answers: what is asked for, and when
play.py      a load against a fleet: when each token came
report.py    measurements -> rows, tables, JSON
"""
