"""The training package: labelled images in, a model repository out. Never imported by the service."""
