"""Which endpoints of a ModelServer serve a request, and in which order.

    pool.py         the candidates of one decision: what is known of each, column by column
    plugin.py       what a screen and a scorer are
    plugins/        one plugin per file
    matched.py      how much of a prompt is cached, as a score; neutral.py what stands in for the unknown
    catalogue.py    the plugins by name: one line each
    scheduler.py    a profile at work: screen, score, weigh, pick
    pair.py         prefill and decode apart: which two endpoints, or whether one will do
    placement.py    the result: endpoints, best first, and the evidence that explains it

Pure and synchronous. The controller checks what users write against the catalogue.
"""
