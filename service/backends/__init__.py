"""Engines that run a model's graph."""
