from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import BUNDLED_REPOSITORY, Settings
from tests.service.launch import ROOT, run_to_end


def read() -> Settings:
    """The settings of the environment."""
    no_arguments: dict[str, Any] = {}
    return Settings(**no_arguments)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FOVEA_{name.upper()}", raising=False)


def test_defaults() -> None:
    settings = read()
    assert (settings.host, settings.http_port, settings.grpc_port, settings.metrics_port) == (
        "127.0.0.1",
        8000,
        8001,
        8002,
    )
    assert settings.execution_provider == "cpu"


def test_the_bundled_repository_lies_in_the_checkout_whatever_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read().model_repository == BUNDLED_REPOSITORY == ROOT / "model_repository"


def test_another_repository_has_no_default_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path))
    assert read().default_model is None


def test_every_setting_has_a_default_and_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    given: dict[str, object] = {
        "host": "0.0.0.0",
        "grpc_transport": "native",
        "tls_certificate": Path("/somewhere/tls.crt"),
        "tls_key": Path("/somewhere/tls.key"),
        "tls_client_ca": Path("/somewhere/ca.crt"),
        "api_keys": Path("/somewhere/keys"),
        "cors_origins": "https://example.com",
        "model_repository": Path("/somewhere"),
        "model_control_mode": "poll",
        "load_models": "cats,dogs",
        "system_shared_memory": True,
        "cuda_shared_memory": True,
        "server_name": "triton",
        "backend": "triton",
        "triton_address": "127.0.0.1:8001",
        "triton_shared_memory": True,
        "default_model": "cats",
        "execution_provider": "cuda",
        "log_and_trace_changes": True,
        "trace_file": Path("/somewhere/trace.json"),
        "otlp_endpoint": "http://collector:4318",
        "otlp_sampling_ratio": 0.25,
        "log_format": "json",
        "log_level": "debug",
    }
    value = given.get(name, 7)
    assert str(getattr(read(), name)) != str(value)
    monkeypatch.setenv(f"FOVEA_{name.upper()}", str(value))
    assert getattr(read(), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http_port", "65536"),
        ("http_port", "-1"),
        ("grpc_port", "eighty"),
        ("grpc_transport", "http3"),
        ("metrics_port", ""),
        ("execution_provider", "tpu"),
        ("device_id", "-1"),
        ("max_queue_size", "0"),
        ("request_timeout_s", "0"),
        ("request_timeout_s", "nan"),
        ("grace_period_s", "-1"),
        ("max_request_bytes", "64M"),
        ("max_request_bytes", str(2**31)),
        ("max_images_per_request", "0"),
        ("max_image_bytes", "0"),
        ("max_image_pixels", "0"),
        ("max_image_frames", "0"),
        ("otlp_endpoint", "collector:4318"),
        ("otlp_sampling_ratio", "1.5"),
        ("log_format", "xml"),
        ("log_level", "loud"),
    ],
)
def test_a_wrong_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FOVEA_{name.upper()}", value)
    with pytest.raises(ValidationError) as raised:
        read()
    assert [problem["loc"] for problem in raised.value.errors()] == [(name,)]


@pytest.mark.parametrize(
    ("name", "value"), [("http_port", "eighty"), ("execution_provider", "tpu"), ("request_timeout_s", "0")]
)
def test_the_service_names_the_wrong_setting_and_ends(name: str, value: str) -> None:
    ended = run_to_end("serve", **{name: value})
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: FOVEA_{name.upper()}={value}: ")
    assert f"(default: {Settings.model_fields[name].default})" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_every_wrong_setting_is_named_at_once() -> None:
    ended = run_to_end("serve", http_port="eighty", grpc_port="-3")
    assert ended.returncode == 2
    assert "FOVEA_HTTP_PORT=eighty: " in ended.stderr
    assert "FOVEA_GRPC_PORT=-3: " in ended.stderr


def test_a_wrong_flag_is_named() -> None:
    wrong_value = run_to_end("serve", "--http-port", "eighty")
    assert wrong_value.returncode == 2
    assert "eighty" in wrong_value.stderr
    assert "HTTP_PORT" in wrong_value.stderr
    unknown = run_to_end("serve", "--htp-port", "80")
    assert unknown.returncode == 2
    assert "--htp-port" in unknown.stderr
    assert "Traceback" not in wrong_value.stderr + unknown.stderr


def test_help_shows_each_setting_with_its_default() -> None:
    ended = run_to_end("serve", "--help")
    assert ended.returncode == 0
    text = " ".join(ended.stdout.partition("settings (each also as")[2].split())
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')} "
        assert flag in text
        entry = text.partition(flag)[2].partition(" --")[0]
        if field.default is not None:
            assert str(field.default) in entry, name
        assert " ".join((field.description or "").split()) in text, name


def test_settings_are_plain_values() -> None:
    assert json.loads(read().model_dump_json())["http_port"] == 8000
