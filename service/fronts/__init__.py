"""Several front processes before one engine: each has listeners and adapters of its own, and none has a model.

The engine is the service's own process. A front sends it the tensors of a request through memory that both have mapped,
and gets the outputs back through a socket (docs/decisions/0009).
"""
