"""The HTTP API: what bodies ask for and what answers look like, as vLLM 0.32 spells them.

errors.py      vLLM's error bodies
parse.py       body bytes to a typed request, or the error that vLLM gives
prompts.py     messages and prompts to tokens
ask.py         a generation request reduced to what the engine needs (pure)
sse.py         server-sent events
chat.py completions.py responses.py messages.py   one generation dialect each (pure)
usage.py       token counts as chat and completions report them
context.py     what the handlers of one engine share
pooling.py     embeddings and rerank
catalogue.py   models, LoRA adapters, tokenize, detokenize, version
generate.py    runs a dialect: plain or streamed, with the fault that hits the request
operations.py  sleep, pause, the prefix cache and where KV events are published
control.py     ``/_engine``: what was received, and faults
app.py         routes and what every request passes through
"""
