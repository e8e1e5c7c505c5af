"""The service, Prometheus and Grafana, as Compose is told to start them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "deploy" / "compose" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_every_port_is_of_the_loopback_interface(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_read_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _, options = volume.partition(":")
        if source in COMPOSE["volumes"]:
            continue
        assert options.endswith(":ro")
        assert (FILE.parent / source).exists(), source


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_foreign_images_are_of_one_version(name: str) -> None:
    assert SERVICES[name]["image"].rpartition(":")[2][-1].isdecimal()


def test_the_service_is_built_here() -> None:
    build = SERVICES["fovea"]["build"]
    assert (FILE.parent / build["context"]).resolve() == ROOT
    assert (FILE.parent / build["context"] / build["dockerfile"]).is_file()


def test_prometheus_is_where_grafana_looks_and_fovea_where_prometheus_looks() -> None:
    monitoring = ROOT / "deploy" / "monitoring"
    (scrape,) = yaml.safe_load((monitoring / "prometheus.yaml").read_text())["scrape_configs"]
    (target,) = scrape["static_configs"][0]["targets"]
    (source,) = yaml.safe_load((monitoring / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    provider = yaml.safe_load((monitoring / "grafana/provisioning/dashboards/fovea.yaml").read_text())["providers"][0]
    assert target.partition(":")[0] in SERVICES
    assert source["url"] == "http://prometheus:9090"
    mounted = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounted
