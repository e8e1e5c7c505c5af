"""A model repository's folder on disk: which models and versions it holds, and what stands for their content."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from service.errors import InvalidInputError, ModelError, StartError

MAX_SHOWN_LENGTH = 100
MAX_NAME_BYTES = 200
CONFIG_FILE = "config.pbtxt"


def shown(name: str) -> str:
    """A caller's word, fit for a message: on one line, and short enough for gRPC's metadata."""
    return repr(name if len(name) <= MAX_SHOWN_LENGTH else name[:MAX_SHOWN_LENGTH] + "…")


def model_names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise StartError(f"FOVEA_MODEL_REPOSITORY={folder}: {error.strerror}") from error


def is_folder_name(name: str) -> bool:
    fits = name.isprintable() and 0 < len(name.encode()) <= MAX_NAME_BYTES
    return fits and "/" not in name and not name.startswith(".")


def check_files(name: str, files: Mapping[str, bytes], override: str | None) -> None:
    """Raises:
    InvalidInputError: these files make no model of that name.
    """
    if not is_folder_name(name):
        raise InvalidInputError(f"failed to load {shown(name)}: must be the name of a folder")
    if override is None:
        raise InvalidInputError(f"failed to load {shown(name)}: files need a config beside them")
    for path in files:
        if not all(is_folder_name(part) for part in path.split("/")):
            raise InvalidInputError(f"failed to load '{name}': {shown(path)} is not a path in the model's folder")


@contextmanager
def files_folder(name: str, files: Mapping[str, bytes]) -> Iterator[Path | None]:
    """A model's folder made of these files, for as long as it takes to load it; None where there are none."""
    if not files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="fovea-") as scratch:
        folder = Path(scratch, name)
        for path, content in files.items():
            target = folder / path
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            except OSError as error:
                raise ModelError(f"{path}: {error.strerror}") from error
        yield folder


def version_numbers(folder: Path, filename: str) -> list[int]:
    names = [path.name for path in folder.iterdir() if (path / filename).is_file()]
    return [int(name) for name in names if name.isdecimal() and name == str(int(name))]


def content_of(folder: Path, version: str) -> str:
    """What stands for the content of a version's files, and of the model's own but for its config."""
    digest = hashlib.sha256()
    # Hidden ones are an editor's, or a config that is being written.
    for path in sorted([*folder.glob("[!.]*"), *folder.joinpath(version).rglob("*")]):
        # Files come and go while a model is being copied here.
        with suppress(FileNotFoundError):
            status = path.stat()
            if S_ISREG(status.st_mode) and path != folder / CONFIG_FILE:
                digest.update(f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
