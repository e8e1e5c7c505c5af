"""The highest rate of random arrivals that a service holds within a bound on its p99 latency."""
