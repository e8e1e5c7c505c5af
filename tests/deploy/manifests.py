"""The files of `deploy/kubernetes` and `deploy/kserve`, as YAML has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.service.launch import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
KSERVE = ROOT / "deploy" / "kserve"
OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (KUBERNETES / "components").iterdir())

Manifest = dict[str, Any]


def files() -> list[Path]:
    return sorted(path for folder in (KUBERNETES, KSERVE) for path in folder.rglob("*.yaml"))


def documents(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def read(path: Path) -> Manifest:
    """A file of one document."""
    (document,) = documents(path.read_text())
    return document


def literals(folder: Path, name: str = "fovea") -> dict[str, str]:
    """What a kustomization puts into a ConfigMap."""
    return dict(
        literal.split("=", 1)
        for generator in read(folder / "kustomization.yaml").get("configMapGenerator", [])
        if generator["name"] == name
        for literal in generator["literals"]
    )


def pod_of(deployment: Path) -> Manifest:
    """The pod of a Deployment, or of a patch of one."""
    pod: Manifest = read(deployment)["spec"]["template"]["spec"]
    return pod


def containers(pod: Manifest) -> Iterator[Manifest]:
    """A pod's containers, those before it and beside it too."""
    yield from pod.get("initContainers", [])
    yield from pod.get("containers", [])


def container(pod: Manifest, name: str) -> Manifest:
    (found,) = (each for each in containers(pod) if each["name"] == name)
    return found
