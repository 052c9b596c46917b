"""The data plane: Envoy asks this service about every inference request.

The files follow a request from top to bottom:

    server.py      gRPC streams in, bytes out (the only grpc server here)
    wire.py        Envoy's protobuf messages <-> our events and answers (the only importer of protobuf)
    exchange.py    one HTTP request as a state machine: events in, answers out; pure
    request.py     path, headers and body bytes -> InferenceRequest; pure
    decide.py      the story: request -> route -> placement -> reservation, or a rejection
    route.py       ModelRoute rules: which one matches, which ModelServer it draws; pure
    schedule/      which endpoints of that ModelServer, in which order; pure
    splice.py      the body as the engine shall see it, edited by bytes; pure
    rejection.py   every error kvoy answers itself, in OpenAI's shape; pure
    reservations.py, share.py   requests in flight: counted when chosen, stated to Redis
    accesslog.py   how each request ended: releases its reservation, feeds the metrics
    explain.py, metrics.py, admin.py   what happened and why, for people and Prometheus
    state/         the replica of the shared state (shared with the controller)
    app.py         builds all of it once and runs it; settings.py its knobs
    supervise/     runs processes and keeps them running; cli.py the command line
    testing.py     builders for tests of kvoy and of its plugins

I/O lives in server, share, admin, app, supervise/ and state/{store,replica}; everything that a decision
passes through is synchronous.
"""
