"""One file per connector: what it asks of a body, and what happens to a wrong one.

nixl.py       the decode engine pulls, after the prefill (vLLM's NixlConnector)
nixl_push.py  the prefill engine pushes; both legs at once (NixlPushConnector)
mooncake.py   both legs at once, met by way of a bootstrap server (MooncakeConnector)
shared.py     a store that all engines share: LMCache, and anything behind "http"
sglang.py     both legs at once in a room; no vLLM, but its API is near enough
"""
