"""Which endpoints of a ModelServer serve a request, and in which order.

    pool.py         the candidates of one decision: what is known of each, column by column
    plugin.py       what a screen and a scorer are
    plugins/        one plugin per file
    catalogue.py    the plugins by name: one line each
    profile.py      Kthena's scheduler configuration -> a checked profile, or what is wrong with it
    scheduler.py    a profile at work: screen, score, weigh, pick
    placement.py    the result: endpoints, best first, and the evidence that explains it

Pure and synchronous. The controller imports it too, to check what users write.
"""
