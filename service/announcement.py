"""What `fovea serve` prints once it has started."""

from __future__ import annotations

import shlex
from importlib.metadata import version

from service.app import OPEN_TO_EVERYONE, Running
from service.image_contract import ImageContract
from service.loading import ServedVersion
from service.settings import Settings


def announcement(running: Running, settings: Settings) -> str:
    """What is served, on which execution provider, where, and a `curl` line that works as it stands."""
    served_versions = running.repository.catalogue.served()
    http = f"{'https' if settings.tls_certificate else 'http'}://{running.http_address}"
    lines = [f"Fovea {version('fovea')} serves {settings.model_repository}"]
    lines += [
        f"  {served.name} version {served.version}: {_takes(served)}, "
        f"{served.execution_provider}, {len(served.instances)} instances, "
        f"max batch size {served.config.max_batch_size}"
        for served in served_versions
    ]
    lines += [f"  NOT READY: {problem}" for problem in running.repository.catalogue.problems()]
    if running.open_to_everyone:
        lines.append(f"  OPEN     {OPEN_TO_EVERYONE}")
    lines += [
        f"  HTTP     {http}  (try it: {http}/docs)",
        f"  gRPC     {running.grpc_address}",
        f"  metrics  http://{running.metrics_address}/metrics",
    ]
    proven = [served for served in served_versions if served.proven and not served.gives_features]
    if proven:
        shown = next((served for served in proven if served.name == settings.default_model), proven[0])
        picture = settings.model_repository.resolve() / shown.name / shown.version / "golden.jpg"
        key = '-H "authorization: Bearer $FOVEA_API_KEY" ' if settings.api_keys else ""
        lines += [
            "Classify a picture:",
            f"  curl {key}-H 'content-type: image/jpeg' --data-binary @{shlex.quote(str(picture))} "
            f"'{http}/v1/classify?model={shown.name}'",
        ]
    return "\n".join(lines)


def _takes(served: ServedVersion) -> str:
    if not isinstance(served.images, ImageContract):
        return "tensors only"
    return f"{served.images.features} features" if served.gives_features else f"{len(served.images.labels)} classes"
