"""Capacity on paper: how many replicas hold a rate and a latency, simulated by the batcher's own rules, and checked."""
