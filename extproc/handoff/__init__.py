"""Prefill and decode apart: one engine computes the prompt, another one the answer.

    handoff.py     the value that a decision leaves to be carried out: both legs and what to do if one fails
    connector.py   what a connector is: pure functions from a transfer to what each leg's request carries
    connectors/    one file per protocol by which KV caches travel between engines
    body.py        the bodies of both legs, edited by bytes; pure
    reply.py       what a prefill engine answered; pure
    engines.py     HTTP to prefill engines: pooled, bounded in time, cancelled when nobody waits any more
    prefill.py     asks one prefill engine once; what its failures mean
    ledger.py      the prefill endpoint's reservation, given back exactly once
    course.py      how a hand-off goes: one leg after the other, or both at once
    driver.py      begins the courses of a worker, and ends them with it

`extproc.schedule.pair` chooses the two endpoints. The answer's leg is Envoy's; only the prompt's leg is ours.
"""
