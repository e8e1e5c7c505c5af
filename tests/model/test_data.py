from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.data import DataError, augment, cutmix, hold_out, load, synthetic

CIFAR_CLASSES = ["cat", "dog", "ship"]


def test_an_image_folder_is_read_by_class(photos: Path) -> None:
    train, test = load(str(photos), "train", image_size=12), load(str(photos), "test", image_size=12)
    assert train.images.shape == (24, 12, 12, 3)
    assert train.images.dtype == np.uint8
    assert train.classes == test.classes == ("bright", "dark")
    assert train.labels.tolist() == [0] * 12 + [1] * 12
    assert train.images[train.labels == 0].mean() > 150
    assert train.images[train.labels == 1].mean() < 90
    assert len(test) == 8


def test_other_names_of_the_splits_are_known(photos: Path) -> None:
    (photos / "train").rename(photos / "training")
    (photos / "test").rename(photos / "val")
    assert len(load(str(photos), "test", image_size=12)) == 8


def test_a_test_split_may_lack_a_class_of_the_training(photos: Path) -> None:
    for path in (photos / "test" / "bright").iterdir():
        path.unlink()
    (photos / "test" / "bright").rmdir()
    test = load(str(photos), "test", image_size=12)
    assert test.classes == ("bright", "dark")
    assert set(test.labels.tolist()) == {1}


def test_training_needs_no_test_split(write_classes: Callable[..., None], tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 90}, 2)
    assert len(load(str(tmp_path), "train")) == 2
    with pytest.raises(DataError, match="has no folder test or val"):
        load(str(tmp_path), "test")


def test_a_broken_file_is_named(photos: Path) -> None:
    broken = photos / "train" / "dark" / "broken.jpg"
    broken.write_bytes((photos / "train" / "dark" / "0.jpg").read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be read as an image"):
        load(str(photos), "train")


def test_broken_files_are_left_out_on_request(photos: Path) -> None:
    (photos / "train" / "dark" / "empty.png").touch()
    (photos / "train" / "bright" / "note.jpg").write_text("not a picture")
    (photos / "train" / "bright" / "README.txt").write_text("no image, not counted")
    dataset = load(str(photos), "train", skip_broken=True)
    assert dataset.skipped == 2
    assert len(dataset) == 24


def test_only_broken_files_are_too_few(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "empty.png").touch()
    with pytest.raises(DataError, match="none of its 1 files could be read"):
        load(str(tmp_path), "train", skip_broken=True)


def test_a_class_that_training_lacks_is_named(photos: Path) -> None:
    (photos / "test" / "green").mkdir()
    with pytest.raises(DataError, match="class 'green' is not among the training classes"):
        load(str(photos), "test")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "has no folder train or training"),
        (["train"], "has no class folders"),
        (["train/a"], "no images"),
        (["train/.hidden"], "has no class folders"),
    ],
)
def test_an_empty_folder_is_explained(folders: list[str], message: str, tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path), "train")


def test_a_missing_folder_and_an_unknown_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load(str(tmp_path / "nowhere"), "train")
    with pytest.raises(DataError, match="must be one of train, test"):
        load("synthetic", "holdout")


def cifar_batch(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"data": rng.integers(0, 256, (4, 3072), np.uint8), "labels": [int(i) for i in rng.integers(0, 3, 4)]}


@pytest.fixture
def cifar_python(tmp_path: Path) -> Path:
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    contents = {name: cifar_batch(seed) for seed, name in enumerate(names)}
    for name, content in {**contents, "batches.meta": {"label_names": CIFAR_CLASSES}}.items():
        (tmp_path / name).write_bytes(pickle.dumps(content, 4))
    return tmp_path


@pytest.fixture
def cifar_binary(tmp_path: Path) -> Path:
    for seed, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        batch = cifar_batch(seed)
        labels = np.array(batch["labels"], np.uint8)[:, None]
        (tmp_path / name).write_bytes(np.concatenate([labels, batch["data"]], 1).tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(CIFAR_CLASSES) + "\n\n")
    return tmp_path


@pytest.mark.parametrize("fixture", ["cifar_python", "cifar_binary"])
def test_cifar_files_are_read(fixture: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(fixture)
    train, test = load(str(root), "train"), load(str(root), "test")
    assert train.images.shape == (20, 32, 32, 3)
    assert train.classes == test.classes == tuple(CIFAR_CLASSES)
    last = cifar_batch(5)
    assert test.labels.tolist() == last["labels"]
    # A row holds all of red, then green, then blue.
    assert test.images[1, 2, 3].tolist() == [int(last["data"][1, c * 1024 + 2 * 32 + 3]) for c in range(3)]
    torch.from_numpy(train.images)


def test_cifar_comes_in_one_size(cifar_binary: Path) -> None:
    with pytest.raises(DataError, match="32x32 images, not 64x64"):
        load(str(cifar_binary), "train", image_size=64)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("content", [Evil(), {"data": Evil()}], ids=["bare", "nested"])
def test_a_pickle_of_anything_but_arrays_is_refused(
    content: object, cifar_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cifar_python)
    (cifar_python / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"test_batch: cannot be read .*: it names posix\.mkdir"):
        load(str(cifar_python), "test")
    assert not (cifar_python / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_batch", b"garbage", "test_batch: cannot be read"),
        ("test_batch", b"", "test_batch: cannot be read"),
        ("test_batch", pickle.dumps({"data": []}), "not CIFAR-10's python files"),
        ("test_batch", pickle.dumps({**cifar_batch(0), "labels": [0]}), "4 images, but 1 labels"),
        ("test_batch", pickle.dumps({**cifar_batch(0), "labels": [0, 1, 2, 3]}), "labels 0 to 3, but 3 class names"),
        ("batches.meta", b"garbage", "batches.meta: cannot be read"),
    ],
)
def test_a_damaged_python_file_is_named(name: str, content: bytes, message: str, cifar_python: Path) -> None:
    (cifar_python / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(str(cifar_python), "test")


def test_a_damaged_binary_file_is_named(cifar_binary: Path) -> None:
    (cifar_binary / "test_batch.bin").write_bytes(bytes(3000))
    with pytest.raises(DataError, match=r"test_batch\.bin: 3000 bytes are no whole number of 3073-byte records"):
        load(str(cifar_binary), "test")
    (cifar_binary / "batches.meta.txt").unlink()
    with pytest.raises(DataError, match=r"batches\.meta\.txt: No such file"):
        load(str(cifar_binary), "train")


def test_holding_out_loses_no_image() -> None:
    dataset = synthetic("train", image_size=8, count=30)
    rest, held_out = hold_out(dataset, 10, seed=3)
    assert (len(rest), len(held_out)) == (20, 10)
    together = np.concatenate([rest.images, held_out.images]).reshape(30, -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, dataset.images.reshape(30, -1)))
    for count in (0, 30):
        with pytest.raises(DataError, match=f"cannot hold out {count} of 30"):
            hold_out(dataset, count, seed=3)


def coordinates(count: int, size: int) -> torch.Tensor:
    """(N, H, W, 3) images whose pixels tell their own row and column; N in the third channel."""
    n, y, x = torch.meshgrid(torch.arange(count), torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([y, x, n], 3).to(torch.uint8)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_augment_flips_the_chosen_images() -> None:
    images = coordinates(2, 8)
    flipped = augment(images, torch.tensor([True, False]), shift=0, cutout=0, generator=generator())
    assert torch.equal(flipped[0], images[0].flip(1))
    assert torch.equal(flipped[1], images[1])


def test_augment_shifts_by_up_to_the_limit_and_reflects_the_border() -> None:
    images = coordinates(300, 8)
    shifted = augment(images, torch.zeros(300, dtype=torch.bool), shift=2, cutout=0, generator=generator())
    offsets = shifted[:, 4, 4, :2].int() - 4
    assert {tuple(pair) for pair in offsets.tolist()} == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    assert torch.equal(shifted[..., 2], images[..., 2])
    for image, (y, x) in zip(shifted[:40], offsets.tolist(), strict=False):
        padded = np.pad(images[0, :, :, :2].numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")
        assert np.array_equal(image[:, :, :2].numpy(), padded[2 + y : 10 + y, 2 + x : 10 + x])


@pytest.mark.parametrize("side", [1, 2, 4])
def test_augment_shifts_small_images_by_less_than_their_side(side: int) -> None:
    images = coordinates(300, side)
    shifted = augment(images, torch.zeros(300, dtype=torch.bool), shift=4, cutout=0, generator=generator())
    most = side - 1
    padded = np.pad(images[0, :, :, :2].numpy(), ((most, most), (most, most), (0, 0)), mode="reflect")
    expected = {padded[y : y + side, x : x + side].tobytes() for y in range(2 * most + 1) for x in range(2 * most + 1)}
    assert {image.numpy().tobytes() for image in shifted[..., :2].contiguous()} == expected


@pytest.mark.parametrize("side", [4, 5])
def test_augment_cuts_out_a_grey_square(side: int) -> None:
    images = torch.zeros(200, 16, 16, 3, dtype=torch.uint8)
    cut = augment(images, torch.zeros(200, dtype=torch.bool), shift=0, cutout=side, generator=generator())
    grey = (cut == 128).all(3)
    assert torch.equal(grey, (cut != 0).any(3))
    heights, widths = grey.any(2).sum(1), grey.any(1).sum(1)
    assert torch.equal(grey.sum((1, 2)), heights * widths)
    # Centred anywhere, so up to half of it may lie outside.
    assert heights.max() == widths.max() == side
    assert min(heights.min(), widths.min()) >= side // 2


def test_augment_is_drawn_from_its_generator() -> None:
    images, flip = coordinates(4, 8), torch.zeros(4, dtype=torch.bool)
    first, second = (augment(images, flip, shift=2, cutout=3, generator=generator()) for _ in range(2))
    assert torch.equal(first, second)


def test_cutmix_pastes_a_rectangle_of_the_partner() -> None:
    images = coordinates(400, 16)
    mixed, partner, own = cutmix(images, 0.5, generator=generator())
    pasted = mixed[..., 2] != images[..., 2]
    expected = torch.where(pasted[..., None], images[partner], images)
    assert torch.equal(mixed, expected)
    heights, widths = pasted.any(2).sum(1), pasted.any(1).sum(1)
    assert torch.equal(pasted.sum((1, 2)), heights * widths)
    other = partner != torch.arange(400)
    torch.testing.assert_close(own[other], 1 - pasted[other].float().mean((1, 2)))
    assert 0.4 < (own < 1).float().mean() < 0.6
    assert own.min() < 0.1


def test_cutmix_of_none_leaves_the_images() -> None:
    images = coordinates(20, 8)
    mixed, _, own = cutmix(images, 0.0, generator=generator())
    assert torch.equal(mixed, images)
    assert torch.equal(own, torch.ones(20))
