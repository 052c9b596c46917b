"""Kubernetes manifests, read strictly: every field is used, or refused by name.

    text.py         bytes of one file -> plain documents (YAML or JSON), bounded against hostile input
    shape.py        a plain document -> a typed view, every fault with its field path
    unsupported.py  fields of the API that are refused until they have an effect
    metadata.py     names, labels, timestamps
    annotations.py  the kvoy.io/* annotations
    duration.py     Go's "1m30s"
    modelroute.py   modelserver.py   pod.py   the kinds: a typed view, its own faults, its record
    kv_events.py    where engines publish their KV events
    disaggregation.py  which pods compute prompts and which the answers, and how KV caches travel between them
    scheduler.py    Kthena's scheduler configuration, checked against the catalogue of plugins
    kinds.py        which kind is read by which view
    reader.py       files -> objects and problems
    problem.py      a fault, and where it is

Nothing here does I/O, and no input makes it raise.
"""
