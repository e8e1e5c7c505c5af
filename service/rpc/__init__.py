"""gRPC adapters: they translate types and errors, and do nothing else."""
