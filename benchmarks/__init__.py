"""What measures kvoy and what it is measured against.

engine/       an OpenAI-compatible fake vLLM: the backend of tests, the demo and the benchmarks
overhead/     what kvoy costs: Envoy alone against Envoy with kvoy
stack.py      `kvoy up` as a child process
processes.py  what runs below a process
"""
