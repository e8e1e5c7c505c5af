"""Fovea beside other model servers: the same model, the same tensors, the same machine, in turns."""
