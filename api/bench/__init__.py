"""Comparing engines: workloads, a check of the tokens, the machine's roof, rounds in turns, and how it is all shown.

`isotoken bench` and `pytest benchmarks` both measure with this.
"""
