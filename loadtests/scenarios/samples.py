"""The images that LoadGen chooses from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loadtests.images import encoded_images


@dataclass(frozen=True)
class Sample:
    """One encoded image.

    Attributes:
        source: the image, or the file that holds it.
        label: its class; empty where that is not known.
    """

    source: bytes | Path
    label: str = ""

    def read(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def find_samples(folder: Path | None) -> list[Sample]:
    """The images of a folder, `<class>/<image>`, in the order of their names; None: those of every load test.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    if folder is None:
        return [Sample(image) for image in encoded_images()]
    samples = [Sample(path, path.parent.name) for path in sorted(folder.glob("*/*")) if path.is_file()]
    if not samples:
        raise FileNotFoundError(f"{folder}: holds no images (layout: <class>/<image>)")
    return samples
