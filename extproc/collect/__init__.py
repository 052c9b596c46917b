"""The collector: reads every engine, and tells all workers what it saw.

    sites.py       the pods that some route leads to, and how each is reached; pure
    ownership.py   which of them are ours: each pod has one collector, by a lease
    watches.py, watch.py   one loop per pod that is ours
    connection.py, scrape.py   HTTP to a pod: one look at its metrics, adapters and sleep
    metrics.py, latency.py     what it exposes, as observations; pure
    observer.py    observations over time -> statements about its engines; pure
    statements.py  publishes those on the live stream
    kv/, feeds.py  follow the engines' KV events, one feed per life of an engine
    changes.py     publishes what the feeds tell on the cache stream
    prefixes.py    folds what the workers say on the cache stream about our engines
    snapshots.py   writes both as cache snapshots, from which starting workers continue
    counters.py, condition.py, admin.py   what it shows of itself
    app.py         builds all of it once and runs it; settings.py its knobs; cli.py the verb

A collector publishes only while its leases run, by its own clock. What it says is repeated or stored, so
one that is killed is replaced without loss: the next one continues from the snapshots.
"""
