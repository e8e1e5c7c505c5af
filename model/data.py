"""Labelled images as uint8 arrays, read once into memory; and the augmentation of a batch.

Three sources: an image folder (`<root>/<split>/<class>/*.jpg`), CIFAR-10's own files (the folder
`cifar-10-batches-py` or `cifar-10-batches-bin`), and `synthetic`, coloured shapes made on the spot.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.images import Pixels, read_pixels

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
SPLITS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


class DataError(Exception):
    """The data cannot be trained on; the message names the file or folder and what would be right."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        labels: (N,) int64, an index into `classes`.
        classes: the label of each index.
        skipped: broken files that were left out (only when asked for).
    """

    images: Pixels
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: npt.NDArray[np.int64]) -> Dataset:
        return Dataset(self.images[indices], self.labels[indices], self.classes, self.skipped)


def load(source: str, split: str, *, image_size: int = 32, skip_broken: bool = False) -> Dataset:
    """Load one split (`train` or `test`) of a source, every image at (image_size, image_size).

    Raises:
        DataError: no such source or split, an empty folder, a broken file, a class in `test` that
            `train` lacks.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}: must be one of {', '.join(SPLITS)}")
    if source == "synthetic":
        return synthetic(split, image_size=image_size)
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"{source}: no such folder (give an image folder, CIFAR-10's files or 'synthetic')")
    if (root / "data_batch_1").is_file() or (root / "data_batch_1.bin").is_file():
        if image_size != 32:
            raise DataError(f"{source}: CIFAR-10's own files hold 32x32 images, not {image_size}x{image_size}")
        return _cifar10_python(root, split) if (root / "data_batch_1").is_file() else _cifar10_binary(root, split)
    return _image_folder(root, split, image_size, skip_broken)


def load_classes(source: str, split: str, classes: tuple[str, ...], *, image_size: int) -> Dataset:
    """The same for a model that has these classes.

    Raises:
        DataError: also where the source has others.
    """
    dataset = load(source, split, image_size=image_size)
    if dataset.classes != classes:
        raise DataError(f"{source}: its classes are {', '.join(dataset.classes)}; the model's are {', '.join(classes)}")
    return dataset


def hold_out(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Split off `count` images, drawn by `seed`: (the rest, the held-out)."""
    if not 0 < count < len(dataset):
        raise DataError(f"cannot hold out {count} of {len(dataset)} training images")
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.subset(order[count:]), dataset.subset(order[:count])


def synthetic(split: str, *, image_size: int = 32, count: int | None = None) -> Dataset:
    """Disc, square and cross in random colours on noise: quick to learn, nothing to download."""
    count = count or {"train": 1536, "test": 384}[split]
    rng = np.random.default_rng(0 if split == "train" else 1)
    labels = np.arange(count, dtype=np.int64) % 3
    images = rng.integers(0, 96, (count, image_size, image_size, 3), dtype=np.uint8)
    y, x = np.mgrid[:image_size, :image_size]
    for image, label in zip(images, labels, strict=True):
        centre_y, centre_x = rng.uniform(0.35, 0.65, 2) * image_size
        radius = rng.uniform(0.15, 0.3) * image_size
        dy, dx = np.abs(y - centre_y), np.abs(x - centre_x)
        shape = (
            dy**2 + dx**2 < radius**2,
            np.maximum(dy, dx) < radius,
            (np.minimum(dy, dx) < radius / 4) & (np.maximum(dy, dx) < radius),
        )[label]
        image[shape] = rng.integers(128, 256, 3)
    return Dataset(images, labels, ("disc", "square", "cross"))


def _image_folder(root: Path, split: str, image_size: int, skip_broken: bool) -> Dataset:
    train_classes = _classes(_split_folder(root, "train"))
    folder = _split_folder(root, split)
    for name in _classes(folder):
        if name not in train_classes:
            raise DataError(f"{folder / name}: class {name!r} is not among the training classes {train_classes}")

    files = [(path, label) for label, name in enumerate(train_classes) for path in _image_files(folder / name)]
    if not files:
        raise DataError(f"{folder}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in its class folders")

    def read(path: Path) -> Pixels | None:
        try:
            return read_pixels(str(path), image_size)
        # A damaged file may make a decoder raise anything; whatever it is, the file must be named.
        except Exception as error:
            if skip_broken:
                return None
            raise DataError(f"{path}: cannot be read as an image: {error}") from error

    with ThreadPoolExecutor() as threads:
        pixels = list(threads.map(read, (path for path, _ in files)))
    kept = [(image, label) for image, (_, label) in zip(pixels, files, strict=True) if image is not None]
    if not kept:
        raise DataError(f"{folder}: none of its {len(files)} files could be read as an image")
    images, labels = zip(*kept, strict=True)
    return Dataset(np.stack(images), np.array(labels, np.int64), tuple(train_classes), skipped=len(files) - len(kept))


def _split_folder(root: Path, split: str) -> Path:
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"{root}: has no folder {' or '.join(SPLITS[split])} (layout: <split>/<class>/<image>)")


def _classes(folder: Path) -> list[str]:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: has no class folders (layout: <split>/<class>/<image>)")
    return classes


def _image_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


ARRAY_PICKLE_NAMES = frozenset(
    {"numpy.ndarray", "numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the arrays of CIFAR-10's files and refuses every other object a pickle could name."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in ARRAY_PICKLE_NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _cifar10_python(root: Path, split: str) -> Dataset:
    def read(name: str) -> dict[str, Any]:
        path = root / name
        try:
            with path.open("rb") as file:
                return dict(_ArrayUnpickler(file, encoding="latin1").load())
        # A damaged pickle may raise anything.
        except Exception as error:
            raise DataError(f"{path}: cannot be read as a CIFAR-10 python file: {error}") from error

    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    batches = [read(name) for name in names]
    try:
        images = np.concatenate([np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32) for batch in batches])
        labels = np.concatenate([np.asarray(batch["labels"], np.int64) for batch in batches])
        classes = tuple(str(name) for name in read("batches.meta")["label_names"])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{root}: not CIFAR-10's python files (data, labels, label_names): {error!r}") from error
    return _cifar10(root, images, labels, classes)


def _cifar10_binary(root: Path, split: str) -> Dataset:
    def read(name: str) -> bytes:
        try:
            return (root / name).read_bytes()
        except OSError as error:
            raise DataError(f"{root / name}: {error.strerror}") from error

    record_bytes = 1 + 3 * 32 * 32
    records = []
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]:
        content = np.frombuffer(read(name), np.uint8)
        if content.size == 0 or content.size % record_bytes:
            raise DataError(f"{root / name}: {content.size} bytes are no whole number of {record_bytes}-byte records")
        records.append(content.reshape(-1, record_bytes))
    rows = np.concatenate(records)
    classes = tuple(read("batches.meta.txt").decode(errors="replace").split())
    return _cifar10(root, rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64), classes)


def _cifar10(root: Path, images: Pixels, labels: npt.NDArray[np.int64], classes: tuple[str, ...]) -> Dataset:
    if len(images) != len(labels):
        raise DataError(f"{root}: {len(images)} images, but {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(f"{root}: labels {labels.min()} to {labels.max()}, but {len(classes)} class names")
    return Dataset(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels, classes)


def augment(images: Tensor, flip: Tensor, *, shift: int, cutout: int, generator: torch.Generator) -> Tensor:
    """Flip, shift and cut out, each image by its own draw.

    Args:
        images: (N, H, W, C) uint8.
        flip: (N,) bool, which images to mirror.
        shift: largest shift in pixels, either way on either axis, of small images one less than their side; the border
            is reflected.
        cutout: side in pixels of a grey square at a random place (DeVries & Taylor 2017); 0 for none.
        generator: a CPU generator, so that a seed gives the same batch on every device.

    Returns:
        (N, H, W, C) uint8.
    """
    count, height, width, _ = images.shape
    device = images.device

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (2, count, 1), generator=generator).to(device, non_blocking=True)

    images = torch.where(flip.to(device)[:, None, None, None], images.flip(2), images)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    # Reflected, an image has no more on either side.
    shift = min(shift, height - 1, width - 1)
    if shift:
        offset_y, offset_x = draw(-shift, shift + 1)
        y = _reflect(rows + offset_y, height)
        x = _reflect(columns + offset_x, width)
        images = images[torch.arange(count, device=device)[:, None, None], y[:, :, None], x[:, None, :]]
    if cutout:
        top, left = draw(-cutout // 2, height - cutout // 2)
        inside_y = (rows >= top) & (rows < top + cutout)
        inside_x = (columns >= left) & (columns < left + cutout)
        images = images.masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[..., None], 128)
    return images


def cutmix(images: Tensor, probability: float, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a rectangle of another image of the batch into each one, with some probability (Yun et al. 2019).

    Args:
        images: (N, H, W, C) uint8.
        generator: a CPU generator, so that a seed gives the same batch on every device.

    Returns:
        (N, H, W, C) uint8; the (N,) indices of the images that were pasted from; the (N,) shares, 0 to 1, of each image
        that are still its own, which its label counts for, where the other's counts for the rest.
    """
    count, height, width, _ = images.shape
    device = images.device
    partner = torch.randperm(count, generator=generator).to(device, non_blocking=True)
    area, chance, middle_y, middle_x = torch.rand(4, count, 1, generator=generator).to(device, non_blocking=True)
    half = area.sqrt() / 2 * (chance < probability)
    rows = (torch.arange(height, device=device) + 0.5) / height
    columns = (torch.arange(width, device=device) + 0.5) / width
    inside_y, inside_x = (rows - middle_y).abs() < half, (columns - middle_x).abs() < half
    pasted = inside_y[:, :, None] & inside_x[:, None, :]
    return torch.where(pasted[..., None], images[partner], images), partner, 1 - pasted.float().mean((1, 2))


def _reflect(index: Tensor, length: int) -> Tensor:
    return (length - 1) - ((length - 1) - index.abs()).abs()
