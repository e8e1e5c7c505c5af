"""Overlays with components, as `kubectl kustomize` makes manifests of them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from tests.deploy.manifests import COMPONENTS, KUBERNETES, OVERLAYS

REPOSITORIES = [name for name in COMPONENTS if name.startswith("repository-")]
AUTOSCALERS = [name for name in COMPONENTS if name.startswith("autoscaling-")]
TOGETHER = [name for name in COMPONENTS if name not in REPOSITORIES + AUTOSCALERS]
"""Components that exclude no other."""

Combination = tuple[str, ...]
"""An overlay, and components."""


def missing() -> str:
    """Why nothing can be rendered; empty if it can."""
    return "" if shutil.which("kubectl") else "kubectl is not installed"


def combinations() -> list[Combination]:
    """Each overlay alone, with each component, and with as many as go together."""
    return [(overlay, *components) for overlay in OVERLAYS for components in _components(overlay)]


def fullest(overlay: str) -> list[Combination]:
    """With as many components as go together."""
    repositories = [()] if overlay == "triton" else [(name,) for name in REPOSITORIES]
    return [(overlay, *repository, autoscaler, *TOGETHER) for repository in repositories for autoscaler in AUTOSCALERS]


def _components(overlay: str) -> list[tuple[str, ...]]:
    # Triton's overlay has a repository.
    single = [name for name in COMPONENTS if overlay != "triton" or name not in REPOSITORIES]
    return [(), *((name,) for name in single), *(combination[1:] for combination in fullest(overlay))]


@functools.cache
def render(combination: Combination) -> str:
    """The manifests, as YAML."""
    overlay, *components = combination
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.path.relpath(KUBERNETES, Path(folder).resolve()))
        kustomization = {
            "resources": [str(root / "overlays" / overlay)],
            "components": [str(root / "components" / component) for component in components],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        command = ["kubectl", "kustomize", folder]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
