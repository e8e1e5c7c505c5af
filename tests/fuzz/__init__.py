"""Clients that mean harm, or cannot do better: what they send at random, and what must hold all the same."""
