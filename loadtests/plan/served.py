"""A model as a running service serves it: its configuration, completed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from loadtests.fetch import fetch
from loadtests.images import SIZES, draw
from loadtests.target import Target, model_repository

MAX_QUEUE_SIZE = 1024
"""The service's own, where neither the model's configuration nor FOVEA_MAX_QUEUE_SIZE says otherwise."""


@dataclass(frozen=True)
class Served:
    """Attributes:
    path: of its graph.
    max_batch_size: most rows that requests share a batch of, which the model's configuration may have more of; 1 where
        they do not share.
    """

    model: str
    version: str
    path: Path
    execution_provider: str
    instances: int
    max_batch_size: int
    max_queue_size: int
    max_queue_delay_ms: float


def read_served(target: Target, model: str) -> Served:
    """The highest version of the model that is ready. Ends the program where there is none.

    Args:
        model: empty: the one that answers a request which names none.
    """
    models = json.loads(fetch(f"{target.http}/v1/models"))["models"]
    names = [found["name"] for found in models]
    if not model:
        model = json.loads(fetch(f"{target.http}/v1/classify", draw(0, SIZES[0]), "image/jpeg"))["model"]
    if model not in names:
        raise SystemExit(f"error: --model {model}: must be one of {', '.join(names)}")
    versions = [version for version in models[names.index(model)]["versions"] if version["state"] == "READY"]
    if not versions:
        raise SystemExit(f"error: no version of {model} is ready")
    served = max(versions, key=lambda version: int(version["version"]))
    version = served["version"]
    config = json.loads(fetch(f"{target.http}/v2/models/{model}/versions/{version}/config"))
    batching = config.get("dynamic_batching")
    policy = (batching or {}).get("default_queue_policy", {})
    return Served(
        model=model,
        version=version,
        path=model_repository() / model / version / config["default_model_filename"],
        execution_provider=served["execution_provider"],
        instances=served["instances"],
        max_batch_size=served["largest_batch"],
        max_queue_size=policy.get("max_queue_size") or int(os.environ.get("FOVEA_MAX_QUEUE_SIZE", MAX_QUEUE_SIZE)),
        max_queue_delay_ms=(batching or {}).get("max_queue_delay_microseconds", 0) / 1e3,
    )
