"""Manifests to start from, and demos that run them with simulated engines.

quickstart/      two models, who gets which, and prefix reuse: `make demo`
prefill-decode/  one engine computes the prompt, another one the answer
scheduler/       how endpoints are chosen: manifests only
stage.py         what the demos have in common
"""
