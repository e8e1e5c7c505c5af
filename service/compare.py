"""`fovea compare`: ask every model of a running service about the same pictures, and show which are right."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from service.client import TIMEOUT_S, Outcome, Server, classify_file, image_files
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc


@dataclass
class Column:
    """A model, and how it has done so far.

    Attributes:
        labels: what it tells apart.
        judged: pictures whose folder's name is one of those.
        right: how many of them it put there.
    """

    model: str
    labels: tuple[str, ...]
    judged: int = 0
    right: int = 0

    @property
    def width(self) -> int:
        return max(len(self.model), len("100.0 %"), *(len("- " + label) for label in self.labels))

    def take(self, file: Path, outcome: Outcome) -> dict[str, object]:
        """Count one answer; returns what there is to show of it."""
        known = file.absolute().parent.name in self.labels
        self.judged += known
        if isinstance(outcome, str):
            return {"error": outcome}
        best = outcome.results[0].classification.predictions[0]
        right = best.label == file.absolute().parent.name if known else None
        self.right += bool(right)
        return {"label": best.label, "probability": round(best.probability, 6), "right": right}


def compare_paths(paths: Sequence[Path], *, server: Server, as_json: bool) -> int:
    """Compare on files, and on the image files below folders; 1 when a model failed on any of them."""
    files = list(image_files(paths))
    if not files:
        print(f"error: no image files in {', '.join(map(str, paths))}", file=sys.stderr)
        return 1
    try:
        return asyncio.run(_compare(files, server, as_json))
    except grpc.aio.AioRpcError as error:
        print(f"error: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1


async def _compare(files: list[Path], server: Server, as_json: bool) -> int:
    failed = False
    width = max(len("right"), *(len(str(file)) for file in files))
    async with server.connect() as channel:
        stub = classifier_pb2_grpc.ClassifierStub(channel)
        columns = await _columns(stub)
        if not columns:
            print("error: the service has no image classifier that is ready", file=sys.stderr)
            return 1
        if not as_json:
            print(_line("", width, columns, [column.model for column in columns]))
        for file in files:
            outcomes = await asyncio.gather(
                *(classify_file(file, stub, pb.ClassifyRequest(model=column.model, top_k=1)) for column in columns)
            )
            answers = [column.take(file, outcome) for column, outcome in zip(columns, outcomes, strict=True)]
            failed |= any("error" in answer for answer in answers)
            if as_json:
                models = {column.model: answer for column, answer in zip(columns, answers, strict=True)}
                print(json.dumps({"file": str(file), "models": models}), flush=True)
            else:
                print(_line(str(file), width, columns, [_cell(answer) for answer in answers]), flush=True)
    if as_json:
        print(json.dumps({"right": {c.model: {"judged": c.judged, "right": c.right} for c in columns}}))
    elif any(column.judged for column in columns):
        shares = [f"{100 * column.right / column.judged:.1f} %" if column.judged else "" for column in columns]
        print(_line("right", width, columns, shares))
    return 1 if failed else 0


async def _columns(stub: classifier_pb2_grpc.ClassifierStub) -> list[Column]:
    """Every model that takes images and is ready, by name; with the labels of its highest version."""
    listed: pb.ListModelsResponse = await stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S)
    columns = []
    for model in sorted(listed.models, key=lambda model: model.name):
        ready = [version for version in model.versions if version.state == pb.MODEL_STATE_READY and version.labels]
        if ready:
            newest = max(ready, key=lambda version: int(version.version))
            columns.append(Column(model.name, tuple(newest.labels)))
    return columns


def _cell(answer: dict[str, object]) -> str:
    """A label, marked + where it is right and - where it is not."""
    if "error" in answer:
        return "error"
    mark = {True: "+ ", False: "- ", None: "  "}[answer["right"]]  # type: ignore[index]
    return f"{mark}{answer['label']}"


def _line(head: str, width: int, columns: Sequence[Column], cells: Sequence[str]) -> str:
    padded = [f"{cell:<{column.width}}" for column, cell in zip(columns, cells, strict=True)]
    return "  ".join([f"{head:<{width}}", *padded]).rstrip()
