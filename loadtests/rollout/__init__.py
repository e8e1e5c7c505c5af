"""A rollout under load: what a canary gets, what a shadow sees and costs, and that no step fails a request."""
