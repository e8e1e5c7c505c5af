"""What kustomize makes of the overlays and components is what Kubernetes takes, without a cluster to ask."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest

from tests.checkov.install import ENVIRONMENT as CHECKOV
from tests.deploy.manifests import KSERVE, OVERLAYS, Manifest, containers, documents
from tests.deploy.rendering import Combination, combinations, fullest, missing, render
from tests.tool_environment import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

NEWEST = kubernetes_validate.latest_version()
OLDEST = "1.33"
"""Version of Kubernetes that has all of it."""
CUSTOM = {
    ("cert-manager.io/v1", "Certificate"): ("spec.secretName", "spec.issuerRef.name", "spec.dnsNames"),
    ("keda.sh/v1alpha1", "ScaledObject"): ("spec.scaleTargetRef.name", "spec.triggers"),
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): ("spec.containers", "spec.supportedModelFormats"),
    ("serving.kserve.io/v1beta1", "InferenceService"): ("spec.predictor.model.modelFormat.name",),
}
"""Kinds whose schemas are not at hand, and the fields that they cannot be without: that is all that is looked at."""
MADE_ELSEWHERE = {"fovea-tls", "fovea-api-keys"}
"""Secrets: cert-manager's, and the operator's."""
SKIPPED = ROOT / "tests" / "checkov" / "skipped.yaml"


@pytest.fixture(autouse=True)
def _kubectl() -> None:
    if reason := missing():
        pytest.skip(reason)


def named(combination: Combination) -> str:
    return "+".join(combination)


@functools.cache
def validate(document: str, version: str = NEWEST) -> None:
    """Hold a manifest, as JSON, against the schemas; a field that they do not have is an error too."""
    manifest = json.loads(document)
    if required := CUSTOM.get((manifest["apiVersion"], manifest["kind"])):
        for field in required:
            assert at(manifest, field), f"{manifest['kind']} has no {field}"
        return
    kubernetes_validate.validate(manifest, version, strict=True)


def at(manifest: Manifest, field: str) -> object:
    found: object = manifest
    for key in field.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


@pytest.mark.parametrize("combination", combinations(), ids=named)
def test_the_schemas_are_met(combination: Combination) -> None:
    for manifest in documents(render(combination)):
        validate(json.dumps(manifest))


@pytest.mark.parametrize("combination", [each for overlay in OVERLAYS for each in fullest(overlay)], ids=named)
def test_the_oldest_schemas_are_met(combination: Combination) -> None:
    for manifest in documents(render(combination)):
        validate(json.dumps(manifest), OLDEST)


@pytest.mark.parametrize("path", sorted(KSERVE.iterdir()), ids=lambda path: path.name)
def test_kserves_schemas_are_met(path: Path) -> None:
    for manifest in documents(path.read_text()):
        validate(json.dumps(manifest))


def test_a_field_that_is_not_there_is_found() -> None:
    (manifest,) = of_kind(documents(render(("cpu",))), "Deployment").values()
    manifest["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        validate(json.dumps(manifest))


@pytest.mark.parametrize("combination", combinations(), ids=named)
def test_all_that_is_named_is_there(combination: Combination) -> None:
    manifests = documents(render(combination))
    (deployment,) = of_kind(manifests, "Deployment").values()
    template = deployment["spec"]["template"]
    pod = template["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert len(volumes) == len(pod["volumes"])
    # One source each: of two, kustomize makes one that is neither.
    assert all(len(volume) == 2 for volume in volumes.values()), volumes
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in of_kind(manifests, "PersistentVolumeClaim")
        if "configMap" in volume:
            assert volume["configMap"]["name"] in of_kind(manifests, "ConfigMap")
        if "secret" in volume:
            assert volume["secret"]["secretName"] in MADE_ELSEWHERE
    for each in containers(pod):
        assert ":" in each["image"].rpartition("/")[2], each["image"]
        assert {mount["name"] for mount in each.get("volumeMounts", [])} <= volumes.keys()
        for source in each.get("envFrom", []):
            if "configMapRef" in source:
                assert source["configMapRef"]["name"] in of_kind(manifests, "ConfigMap")
    assert pod["serviceAccountName"] in of_kind(manifests, "ServiceAccount")

    labels = template["metadata"]["labels"].items()
    selectors = [service["spec"]["selector"] for service in of_kind(manifests, "Service").values()]
    for kind in ("PodDisruptionBudget", "Deployment"):
        selectors += [manifest["spec"]["selector"]["matchLabels"] for manifest in of_kind(manifests, kind).values()]
    selectors += [
        policy["spec"]["podSelector"]["matchLabels"] for policy in of_kind(manifests, "NetworkPolicy").values()
    ]
    assert all(selector.items() <= labels for selector in selectors)


@pytest.mark.parametrize("combination", combinations(), ids=named)
def test_one_says_how_many_replicas_there_are(combination: Combination) -> None:
    manifests = documents(render(combination))
    (deployment,) = of_kind(manifests, "Deployment").values()
    autoscalers = [
        *of_kind(manifests, "HorizontalPodAutoscaler").values(),
        *of_kind(manifests, "ScaledObject").values(),
    ]
    assert len(autoscalers) + ("replicas" in deployment["spec"]) == 1
    for autoscaler in autoscalers:
        target = autoscaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def failures(answer: dict[str, object] | list[dict[str, object]]) -> Iterator[str]:
    for report in answer if isinstance(answer, list) else [answer]:
        results = report.get("results")
        assert isinstance(results, dict), report
        for failed in results["failed_checks"]:
            yield f"{failed['check_id']} {failed['check_name']}: {failed['resource']} in {failed['file_path']}"


def test_checkov_finds_nothing_that_is_not_explained(tmp_path: Path) -> None:
    if reason := CHECKOV.missing():
        pytest.skip(reason)
    for combination in [combination for overlay in OVERLAYS for combination in fullest(overlay)]:
        (tmp_path / f"{named(combination)}.yaml").write_text(render(combination))
    command = [str(CHECKOV.program("python")), "-m", "checkov.main", "--framework", "kubernetes", "--skip-download"]
    command += ["--config-file", str(SKIPPED), "--output", "json", "--compact", "--directory", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode in (0, 1), run.stderr
    answer = json.loads(run.stdout)
    assert not sorted(set(failures(answer)))
    assert answer["summary"]["passed"] > 100
