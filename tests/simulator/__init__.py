"""A deterministic test of the engine: one thread, a movable clock, and every choice drawn from a seed.

Simulated clients, servers and workers drive the real use cases through the real store. Between them
lies a network that loses, repeats, delays and merges calls (network.py). After every commit the
oracle compares the whole store with what the rules allow (oracle.py, rules.py); at the end faults
stop and everything must drain (drain.py). `python -m simulator --seed N` replays one seed.
"""
