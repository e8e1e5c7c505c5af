"""Train a network: `python -m model train DATA`.

Everything random is drawn from the seed and the step number alone, so a run that was stopped and
resumed goes through the same batches, and (on a CPU) ends with the same weights, as one that was not.
Several workers draw the same whole batch, too, and then take each their share of it.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import time
import zlib
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from model.batches import images_at_once
from model.data import Dataset, augment, cutmix
from model.evaluate import accuracy, predict
from model.losses import LOSSES, l1_penalty
from model.nets import build
from model.nets.fastcnn import FastCNN
from model.nets.features import OnFeatures
from model.nets.preprocess import Preprocess
from model.optimizers import optimizers_for
from model.recipe import Recipe, RecipeError
from model.run import Run, RunError, load_run, restore, save
from model.schedules import SCHEDULES
from model.workers import ALONE, WorkerError, Workers, program

COMPILED_ON = frozenset({"cuda"})
"""Types of devices for which the network is compiled, which takes the first step of a run longer."""

AVERAGED_LR = 0.25
"""The learning rate while weights are averaged, relative to the highest."""

PIXELS = ([0.0] * 3, [1 / 255] * 3)
"""Mean and standard deviation, on the scale 0 to 1, that leave pixels the whole numbers from 0 to 255."""


def train(
    dataset: Dataset,
    held_out: Dataset | None,
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    origin: dict[str, Any],
    tensorboard: bool = False,
    workers: Workers = ALONE,
) -> Run:
    """Train, continuing from the folder's checkpoint where it has one.

    The learning rate follows the schedule over `recipe.epochs`. Over the `recipe.averaged_epochs` after those it is
    constant, and the result is the mean of the weights after each step of them (Izmailov et al. 2018).

    SIGINT or SIGTERM stops the run at the end of the step it arrives in, whatever that step is doing. The loss and
    accuracy of an epoch that was interrupted cover only the part of it after the resumption.

    Several workers share each batch and its gradient: a run has the same batches, and the same steps but for rounding,
    with any number of them. Only dropped units and the statistics of batch normalisation are each worker's own.

    Args:
        dataset: the training images; (N, H, W, 3) uint8.
        held_out: images to report the accuracy on after each epoch.
        folder: receives `checkpoint.pt`, `run.json` and `metrics.jsonl`.
        origin: how the run was started (command, data), kept in `run.json`.
        workers: those that train it, all by calling this with the same arguments; the first one writes.

    Raises:
        KeyboardInterrupt: after the checkpoint was written; the message says how to resume.
        RunError: the loss is no longer finite, or the folder's checkpoint belongs to other data.
        NetError: the network cannot be built for images of this size.
        OptimizerError: the recipe's optimizer is not for this network.
        RecipeError: it changes images whose features are fixed.
        WorkerError: there are too many workers for the batches.
    """
    images, labels = torch.from_numpy(dataset.images).to(device), torch.from_numpy(dataset.labels).to(device)
    batch_size = min(recipe.batch_size, len(dataset))
    if workers.count > 1 and batch_size < 2 * workers.count:
        raise WorkerError(f"batches of {batch_size} images are too small for {workers.count} workers: each needs 2")
    steps_per_epoch = len(dataset) // batch_size
    decay_steps = recipe.epochs * steps_per_epoch
    epochs = recipe.epochs + recipe.averaged_epochs
    total_steps = epochs * steps_per_epoch

    torch.manual_seed(recipe.seed)
    _, height, width, channels = dataset.images.shape
    net = build(recipe.net, len(dataset.classes), (channels, height, width)).to(device)
    if isinstance(net, OnFeatures) and (recipe.flip or recipe.shift or recipe.cutout or recipe.cutmix):
        raise RecipeError(f"{recipe.net}: its features are those of whole images: leave cutout and cutmix at 0")
    mean, std = PIXELS if isinstance(net, OnFeatures) else _channel_statistics(images)
    preprocess = Preprocess(mean, std).to(device)
    folder.mkdir(parents=True, exist_ok=True)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from its stub
    step, seconds, start = 0, 0.0, time.perf_counter()
    resumed = (folder / "checkpoint.pt").is_file()
    if isinstance(net, FastCNN | OnFeatures) and not resumed:
        sample = torch.randperm(len(images), generator=_generator(recipe.seed, "whitening"))[:5000]
        net.prepare(images[sample.to(device)], preprocess)
        # Sums are not rounded alike on every machine, and not twice alike on a GPU.
        workers.take_the_firsts(net)
    optimizers = optimizers_for(
        net,
        recipe.optimizer,
        lr=recipe.lr,
        muon_lr=recipe.muon_lr,
        momentum=recipe.momentum,
        l2=recipe.l2,
        batch_size=batch_size,
    )
    loss_of, schedule = LOSSES[recipe.loss], SCHEDULES[recipe.schedule]
    # Where the processor multiplies in bfloat16; elsewhere it would be emulated, slowly.
    mixed_precision = device.type == "cuda" or has_bfloat16()
    learning_rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    average = AveragedModel(net)
    first_flip = (torch.rand(len(dataset), generator=_generator(recipe.seed, "first flip")) < 0.5).to(device)
    info = {
        "recipe": asdict(recipe),
        "classes": list(dataset.classes),
        "image_size": int(dataset.images.shape[1]),
        "mean": mean,
        "std": std,
        "training_images": len(dataset),
        "held_out_images": len(held_out) if held_out else 0,
        **origin,
    }
    if resumed:
        info, step, seconds = restore(folder, info, net, average, optimizers, device)
    # Fixed features are computed once, and one layer is trained on them.
    features = _features(net, preprocess, images) if isinstance(net, OnFeatures) else None
    trained = net.head if isinstance(net, OnFeatures) else net
    seconds += time.perf_counter() - start
    # Only now: loading an optimizer's state gives it new groups.
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parallel = workers.parallel(trained)
    forward = torch.compile(parallel) if device.type in COMPILED_ON else parallel
    mine = workers.share(batch_size)
    # What makes a mean over this worker's images its part of the mean over the workers.
    weight = len(range(batch_size)[mine]) * workers.count / batch_size

    with (
        MetricsLog(folder, step // steps_per_epoch, tensorboard) if workers.first else nullcontext() as log,
        _Interruption() as interruption,
    ):
        while step < total_steps:
            epoch, epoch_start = step // steps_per_epoch, time.perf_counter()
            first_step, last_step = step, (epoch + 1) * steps_per_epoch
            totals = torch.zeros(2, device=device)
            order = torch.randperm(len(dataset), generator=_generator(recipe.seed, "order", epoch)).to(device)
            net.train()
            with tqdm(
                total=steps_per_epoch * batch_size,
                initial=(step % steps_per_epoch) * batch_size,
                desc=f"epoch {epoch + 1}/{epochs}",
                unit="images",
                unit_scale=True,
                disable=not workers.first,
            ) as bar:
                while step < last_step and not workers.agree(interruption.asked):
                    at = (step % steps_per_epoch) * batch_size
                    chosen = order[at : at + batch_size]
                    # An image is mirrored in every other epoch rather than by a coin each time.
                    flip = (first_flip[chosen] ^ bool(epoch % 2)) & recipe.flip
                    pixels = augment(
                        images[chosen],
                        flip,
                        shift=recipe.shift,
                        cutout=recipe.cutout,
                        generator=_generator(recipe.seed, "augmentation", step),
                    )
                    target = labels[chosen]
                    pixels, partner, own = cutmix(
                        pixels, recipe.cutmix, generator=_generator(recipe.seed, "cutmix", step)
                    )
                    for group, lr in zip(groups, learning_rates, strict=True):
                        group["lr"] = lr * (schedule(step, decay_steps) if step < decay_steps else AVERAGED_LR)
                    # For dropout, which draws from this generator: a resumed run drops the same units.
                    torch.manual_seed(_seed(recipe.seed, "dropout", step * workers.count + workers.rank))
                    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed_precision):
                        inputs = preprocess(pixels[mine]) if features is None else features[chosen[mine]]
                        logits = forward(inputs).to(torch.get_default_dtype())
                        losses = [
                            loss_of(logits, label[mine], recipe.label_smoothing) for label in (target, target[partner])
                        ]
                        loss = weight * (own[mine] * losses[0] + (1 - own[mine]) * losses[1]).mean()
                        if recipe.l1:
                            loss = loss + recipe.l1 * l1_penalty(net)
                    net.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    for optimizer in optimizers:
                        optimizer.step()
                    if step >= decay_steps:
                        average.update_parameters(net)
                    step += 1

                    correct = weight * (logits.detach().argmax(1) == target[mine]).float().mean()
                    totals += torch.stack([loss.detach(), correct])
                    bar.update(batch_size)
                    # Reading a number makes a GPU wait, so there it is read once an epoch.
                    if device.type == "cpu" or step == last_step:
                        mean_loss, mean_correct = (workers.mean(totals) / (step - first_step)).tolist()
                        bar.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{mean_correct:.3f}")
                        if not math.isfinite(mean_loss):
                            raise RunError(f"the loss is {mean_loss} at step {step}: the learning rate is too high")

            epoch_seconds = time.perf_counter() - epoch_start
            if step == total_steps and recipe.averaged_epochs:
                # The averaged weights have statistics of their own, which no step has seen. Every batch counts the
                # same for them, and a single image may have no variance: whole batches alone.
                whole = max(1, min(len(images), 10_000) // batch_size) * batch_size
                sample = torch.randperm(len(images), generator=_generator(recipe.seed, "statistics"))[:whole]
                batches = (preprocess(images[batch.to(device)]) for batch in torch.split(sample, batch_size))
                update_bn(batches, average.module)
                net.load_state_dict(average.module.state_dict())
            seconds += time.perf_counter() - epoch_start
            if log and step == last_step:
                metrics = {
                    "epoch": epoch + 1,
                    "step": step,
                    "loss": round(mean_loss, 4),
                    "train_accuracy": round(mean_correct, 4),
                    "images_per_s": round((step - first_step) * batch_size / epoch_seconds, 1),
                    "seconds": round(seconds, 1),
                }
                if held_out:
                    logits_held_out = predict(net, preprocess, held_out.images, device)
                    metrics["held_out_accuracy"] = round(accuracy(logits_held_out, held_out.labels), 4)
                log.write(metrics)
                info["results"] = metrics
            if log:
                save(folder, info, step, seconds, net, average, optimizers)
            # Nor does any of them go on before the checkpoint is written.
            if workers.agree(interruption.asked) and step < total_steps:
                again = shlex.join([*program(), "train", "--resume", "--run", str(folder)])
                raise KeyboardInterrupt(f"interrupted after step {step} of {total_steps}; to continue: {again}")
    return load_run(folder)


class _Interruption:
    """SIGINT and SIGTERM noted instead of raised, so that they can stop neither half a step nor half a save."""

    asked = False

    def __enter__(self) -> _Interruption:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        # Not print: the signal may have come while the progress bar was being written.
        os.write(2, b"\nstopping after this step\n")


class MetricsLog:
    """One JSON line an epoch in `metrics.jsonl`; TensorBoard's event files beside it on request."""

    def __init__(self, folder: Path, epochs_done: int, tensorboard: bool) -> None:
        path = folder / "metrics.jsonl"
        kept = path.read_text().splitlines(keepends=True)[:epochs_done] if path.is_file() else []
        path.write_text("".join(kept))
        self._file = path.open("a")
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"))

    def write(self, metrics: dict[str, float]) -> None:
        self._file.write(json.dumps(metrics) + "\n")
        self._file.flush()
        if self._events:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, metrics["step"])
            self._events.flush()
        tqdm.write("  ".join(f"{name} {value:g}" for name, value in metrics.items()))

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


@torch.no_grad()
def _features(net: OnFeatures, preprocess: Preprocess, images: Tensor) -> Tensor:
    """What the linear layer gets of each of the images, (N, D) float32."""
    found = torch.empty(len(images), net.head.in_features, device=images.device)
    at_once = images_at_once(*images.shape[1:3])
    for at in tqdm(range(0, len(images), at_once), desc="features", unit="batches"):
        batch = slice(at, at + at_once)
        found[batch] = net.describe(preprocess(images[batch]))
    return found


def _generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(seed, purpose, index))


def _seed(seed: int, purpose: str, index: int) -> int:
    return zlib.crc32(f"{seed} {purpose} {index}".encode())


def _channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over (N, H, W, 3) uint8, on the scale 0 to 1."""
    counts = torch.stack([torch.bincount(images[..., c].reshape(-1), minlength=256) for c in range(3)]).double().cpu()
    levels = torch.arange(256, dtype=torch.float64) / 255
    weights = counts / counts.sum(1, keepdim=True)
    mean = (weights * levels).sum(1)
    std = (weights * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    return [round(m, 4) for m in mean.tolist()], [max(round(s, 4), 1e-4) for s in std.tolist()]
