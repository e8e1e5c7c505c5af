"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.launch import ROOT

CORE = {"batching", "catalogue", "classifier", "errors", "image_contract", "images", "inference", "loading"}
ADAPTER = CORE | {
    "class_strings",
    "known_requests",
    "lifecycle",
    "model_config",
    "protocol",
    "telemetry",
    "tensors",
    "trace_context",
}
SERVER = ADAPTER | {
    *("api_keys", "control", "listening", "log_settings", "settings", "shared_memory", "tls", "trace_settings"),
}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "lifecycle": set(),
    "settings": set(),
    "pb": {"pb"},
    "trace_context": set(),
    "batching": {"errors", "trace_context"},
    "images": {"errors"},
    "golden": {"errors", "images"},
    "tensors": {"errors"},
    "model_config": {"errors", "tensors"},
    "image_contract": {"errors", "images", "model_config", "tensors"},
    "statistics": {"batching", "errors"},
    "triton_metrics": {"catalogue", "loading", "statistics"},
    "model_states": {"catalogue", "lifecycle"},
    "gpu_metrics": set(),
    "request_durations": set(),
    "tegra_metrics": set(),
    "class_strings": {"errors", "tensors"},
    "protocol": {"catalogue", "errors", "loading", "statistics", "tensors"},
    "backends": {"backends", "batching", "errors", "tensors", "trace_context"},
    "loading": {
        "backends",
        "batching",
        "errors",
        "golden",
        "image_contract",
        "images",
        "model_config",
        "statistics",
        "tensors",
        "trace_context",
    },
    "model_folder": {"errors"},
    "share": set(),
    "rollout": {"errors", "share"},
    "config_text": set(),
    "rollout_command": {"config_text", "errors", "model_config", "model_folder", "rollout", "share"},
    "trial": {"batching", "errors", "image_contract", "loading", "tensors"},
    "trial_metrics": {"trial"},
    "traffic": {"loading", "rollout", "share", "trial"},
    "catalogue": {"errors", "loading", "model_folder", "traffic"},
    "repository": {
        "backends",
        "batching",
        "catalogue",
        "errors",
        "loading",
        "model_config",
        "model_folder",
        "rollout",
        "statistics",
        "tensors",
        "traffic",
        "trial",
    },
    "decoding": {"errors", "image_contract", "images", "tensors"},
    "inference": {
        "batching",
        "decoding",
        "errors",
        "image_contract",
        "loading",
        "model_config",
        "catalogue",
        "tensors",
        "traffic",
        "trial",
    },
    "classifier": {"catalogue", "decoding", "errors", "image_contract", "inference", "loading", "tensors", "trial"},
    "control": {"errors"},
    "cuda_memory": {"errors"},
    "shared_memory": {"cuda_memory", "errors"},
    "tracing": {"errors", "inference"},
    "trace_settings": {"catalogue", "errors", "tracing"},
    "spans": {"inference", "trace_context"},
    "telemetry": {
        "batching",
        "classifier",
        "errors",
        "inference",
        "loading",
        "spans",
        "trace_context",
        "tracing",
        "request_durations",
    },
    "known_requests": {
        "batching",
        "errors",
        "inference",
        "lifecycle",
        "loading",
        "telemetry",
        "tensors",
        "trace_context",
        "trial",
    },
    "log_settings": {"errors", "telemetry", "trace_context"},
    "listening": {"errors"},
    "api_keys": {"errors"},
    "key_command": {"api_keys"},
    "tls": {"errors"},
    "file_changes": {"errors"},
    "rest": SERVER | {"rest"},
    "rpc": SERVER | {"rpc", "pb"},
    "client": {"pb"},
    "compare": {"client", "pb"},
    "listeners": SERVER | {"backends", "decoding", "file_changes", "rest", "rpc", "spans"},
    "fronts": CORE
    | {"fronts", "lifecycle", "listeners", "listening", "log_settings", "model_config", "repository", "rollout"}
    | {"settings", "shared_memory", "statistics", "telemetry", "tensors", "trace_context", "trace_settings", "tracing"}
    | {"traffic", "trial", "trial_metrics"},
    "app": CORE
    | {"backends", "cuda_memory", "fronts", "gpu_metrics", "lifecycle", "listeners", "listening", "log_settings"}
    | {"model_states", "protocol", "repository", "rest", "settings", "shared_memory", "tegra_metrics", "telemetry"}
    | {"trace_settings", "tracing", "trial_metrics", "triton_metrics"},
    "announcement": {"app", "image_contract", "loading", "settings"},
    "__main__": {"announcement", "app", "client", "compare", "errors", "key_command", "rollout_command", "settings"},
    "__init__": set(),
}
"""For each module or package of the service, those of the service that it may import."""

ONLY_IN: dict[str, set[str]] = {
    "onnxruntime": {"backends"},
    "PIL": {"images"},
    "simplejpeg": {"images"},
    "starlette": {"rest"},
    "uvicorn": {"rest"},
    "uvloop": {"__main__", "fronts"},
    "grpc": {"backends", "rpc", "client", "compare", "errors", "pb"},
    "pygrpc_native": {"rpc"},
    "opentelemetry": {"spans"},
    "prometheus_client": {
        "fronts",
        "gpu_metrics",
        "model_states",
        "request_durations",
        "tegra_metrics",
        "telemetry",
        "trial_metrics",
        "triton_metrics",
    },
    "pydantic": {"settings", "rest", "__main__"},
    "pydantic_settings": {"settings", "__main__"},
    "tritonclient": {
        *(
            "app",
            "backends",
            "config_text",
            "fronts",
            "image_contract",
            "inference",
            "listeners",
            "loading",
            "model_config",
            "protocol",
            "repository",
            "rest",
            "rollout",
            "rpc",
        ),
    },
    "tqdm": {"client"},
}
"""Libraries that have one place, or few."""


def python_files(package: str) -> list[Path]:
    return sorted(ROOT.joinpath(package).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module
            yield node.module
            # `from service import app` imports service.app.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(file: Path) -> str:
    """`service/rest/body.py` is in the place `rest`, `service/app.py` is `app`."""
    return file.relative_to(ROOT / "service").parts[0].removesuffix(".py")


def service_places() -> set[str]:
    return {place(file) for file in python_files("service")}


@pytest.mark.parametrize("file", python_files("service"), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_what_it_may(file: Path) -> None:
    here = place(file)
    assert here in MAY_IMPORT, f"service/{here} is new: say in this table what it may import"
    for name in imported(file):
        top, _, rest = name.partition(".")
        if top == "service":
            there = rest.split(".")[0]
            if there in service_places():
                assert there in MAY_IMPORT[here], f"{file} imports service.{there}"
        assert top not in ("torch", "torchvision", "model", "loadtests", "tests", "onnx"), f"{file} imports {top}"
        assert here in ONLY_IN.get(top, {here}), f"{file} imports {top}"


def test_the_tables_name_what_is_there() -> None:
    assert MAY_IMPORT.keys() == service_places()
    everything = {name.partition(".")[0] for file in python_files("service") for name in imported(file)}
    assert ONLY_IN.keys() <= everything


def test_batching_knows_nothing_but_the_errors() -> None:
    names = {name.partition(".")[0] for name in imported(ROOT / "service" / "batching.py")}
    assert names - {"service"} <= set(sys.stdlib_module_names)


def test_the_training_side_never_imports_the_service() -> None:
    files = python_files("model")
    assert files
    for file in files:
        assert not {name.partition(".")[0] for name in imported(file)} & {"service", "loadtests", "tests"}, file


def test_the_load_tests_import_the_contract_only() -> None:
    files = python_files("loadtests")
    if not files:
        pytest.skip("no load tests in this checkout")
    for file in files:
        for name in imported(file):
            assert name.partition(".")[0] != "model", file
            assert not name.startswith("service") or name == "service.pb" or name.startswith("service.pb."), (
                file,
                name,
            )


@pytest.mark.parametrize("folder", ["proto", "deploy", "docs"])
def test_papers_hold_no_python(folder: str) -> None:
    assert python_files(folder) == []


def test_the_service_loads_no_torch() -> None:
    code = "import sys, service.app, service.__main__, service.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert "onnxruntime" in modules
    assert not modules & {"torch", "onnx", "model", "loadtests"}


def test_help_does_not_wait_for_the_engine() -> None:
    code = "import sys; sys.argv[1:] = ['serve', '--help']\nfrom service.__main__ import main\ntry: main()\n"
    code += "except SystemExit: pass\nprint('modules:', *sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = loaded.stdout.partition("modules: ")[2].split()
    assert modules
    assert not {"onnxruntime", "numpy", "uvicorn"} & set(modules)
