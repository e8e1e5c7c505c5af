"""The service: a model repository in, answers over gRPC and HTTP out. Never imports torch or model."""
