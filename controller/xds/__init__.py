"""Envoy's configuration: typed resources compiled from the records, served over ADS.

    plane.py       the data plane's own facts and names
    resources.py   (records, plane) -> Resources: everything Envoy shall run
      listener.py    the HTTP connection manager and its filters:
        stripping.py     client copies of steering headers go
        deciders.py      ext_proc, and a second chance when a worker is lost
        usage.py         token usage from answers to metadata
        access_log.py    one log per worker
        local_replies.py Envoy's own errors in OpenAI shape
      routes.py      one route per ModelServer: timeout, retries
      clusters.py    one cluster per ModelServer: endpoint list, breakers
        tls.py           https to pods
        transfers.py     a KV cache's transfer is told only to whom it is made for
      endpoints.py   the pods of a ModelServer
      workers.py     the clusters of the ext_proc workers
      grpc_service.py, address.py, extension.py   pieces that several of them share
    session.py     one ADS stream as a state machine
    outbox.py      what a stream still has to send
    server.py      the ADS server around it
    bootstrap.py   what Envoy is started with

The only importer of envoy_data_plane.
"""
