"""What the container images are built of, read and not built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "docker"
DOCKERFILES = [FOLDER / f"{name}.Dockerfile" for name in ("cpu", "cuda", "jetson")]
EXTRAS = {"cpu.txt": "cpu", "cuda.txt": "gpu", "jetson.txt": None, "build.txt": None}
REMEDY = "make image-requirements"


def pins(path: Path) -> dict[str, set[str]]:
    """The versions of each distribution; more than one where they differ by marker."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def wanted(extra: str | None) -> set[str]:
    """The names of what the service depends on itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
    return {re.split(r"[\[=]", line)[0] for line in lines}


@pytest.mark.parametrize("name", EXTRAS)
def test_the_hashed_requirements_agree_with_the_constraints(name: str) -> None:
    constraints, hashed = pins(ROOT / "constraints.txt"), pins(FOLDER / name)
    differing = {package: versions for package, versions in hashed.items() if versions != constraints.get(package)}
    if name == "build.txt":  # What an image is built with is no dependency, but for what it shares with one.
        differing = {package: versions for package, versions in differing.items() if package in constraints}
    assert differing == {}, REMEDY


@pytest.mark.parametrize("name", ["cpu.txt", "cuda.txt", "jetson.txt"])
def test_the_images_have_what_the_service_depends_on_and_no_torch(name: str) -> None:
    packages = pins(FOLDER / name).keys()
    assert wanted(EXTRAS[name]) <= packages, REMEDY
    assert not packages & {"torch", "pytest", "triton"}
    assert ("onnxruntime" in packages, "onnxruntime-gpu" in packages) == (name == "cpu.txt", name == "cuda.txt")


@pytest.mark.parametrize("name", EXTRAS)
def test_every_requirement_has_a_hash_and_no_address(name: str) -> None:
    text = (FOLDER / name).read_text()
    for requirement in re.split(r"\n(?=\S)", text.strip()):
        assert re.fullmatch(r"[\w.-]+==\S+( ; [^\n]+?)?( \\\n    --hash=sha256:[0-9a-f]{64})+", requirement), (
            requirement
        )
    assert "://" not in text


def test_the_build_requirements_are_those_that_are_asked_for() -> None:
    build = pins(FOLDER / "build.txt")
    assert pins(FOLDER / "build.in").items() <= build.items(), REMEDY
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert backend == [f"hatchling=={version}" for version in build["hatchling"]]


def test_the_images_are_run_alike() -> None:
    """Whoever, ports, health and command: in the last stage of each, the same."""
    lasts = [path.read_text().rpartition("\nFROM ")[2] for path in DOCKERFILES]
    instructions = ("USER", "EXPOSE", "HEALTHCHECK", "    CMD", "ENTRYPOINT", "CMD")
    run = [[line for line in last.splitlines() if line.startswith(instructions)] for last in lasts]
    assert run[0] == run[1] == run[2]
    assert len(run[0]) == len(instructions)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_what_is_copied_is_there_and_let_through(path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).match(rule.removeprefix("!")) for rule in ignored if rule.startswith("!")), source
