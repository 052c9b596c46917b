"""The data plane: Envoy asks this service about every inference request.

The files follow a request from top to bottom:

    server.py      gRPC streams in, bytes out (the only grpc server here)
    wire.py        Envoy's protobuf messages <-> our events and answers (the only importer of protobuf)
    exchange.py    one HTTP request as a state machine: events in, answers out; pure
    request.py     path, headers and body bytes -> InferenceRequest; pure
    decide.py      the story: request -> route -> placement -> reservation, or a rejection
    plan.py        a request understood: all that does not depend on the state of the engines
    control.py     what of a request would steer engines past kvoy, and the body without it; pure
    route.py       ModelRoute rules: which one matches, which ModelServer it draws; pure
    tokens/        the prompt's token ids, where a profile wants them, under a deadline
    fleet.py       what this worker knows of every engine: a pool of columns for each decision
    lookup.py      how much of one prompt each engine has cached, looked up when a plugin asks
    cache/         which engine holds which blocks of which prompts: two indexes in memory; pure
    schedule/      which endpoints of that ModelServer, in which order; pure
    turns.py       whose turn it is among equals
    reservations.py   requests in flight: counted when chosen, those of other workers (peers.py) added
    apart.py       what a decision has to see to where prefill and decode are apart; pure
    handoff/       has the prompt computed by one engine, and another one told where its KV cache is
    legs.py        the two legs of such a request, as they are counted
    splice.py      the body as the engine shall see it, edited by bytes; pure
    rejection.py   every error kvoy answers itself, in OpenAI's shape; pure
    accesslog.py   how each request ended: releases its reservation, feeds the metrics
    calibration.py what an answer teaches: belief in a cache, its size, the engine's speed; pure

What one worker knows, all know:

    share.py       states this worker's requests in flight
    teach.py       publishes what it learns of the engines' caches
    follow.py      applies what the others and the collectors publish; sequences.py finds what is missing
    recover.py     brings in snapshots of the caches, at the start and after a gap
    secret.py      the secret that seeds every hash of a prompt
    collect/       another process, the collector: engines' metrics and KV events, snapshots of the caches
    state/         records, statements, keys and the Redis operations (shared with the controller)

For people:

    explain.py, metrics.py, admin.py   what happened and why, for people and Prometheus
    witness.py     tells them what becomes of each hand-off
    http_server.py   serves what admin.py tells, and the collector's
    ask/           the verbs `kvoy explain` and `kvoy route`
    app.py         builds all of a worker once and runs it; settings.py its knobs
    supervise/     runs processes and keeps them running; cli.py the command line
    testing.py     builders for tests of kvoy and of its plugins

I/O lives in server, admin, http_server, app, share, teach, follow, recover, secret, ask/, collect/, handoff/,
supervise/, tokens/ and state/{store,replica}; everything else that a decision passes through is synchronous.
"""
