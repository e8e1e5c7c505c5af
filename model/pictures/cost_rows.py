"""What classifiers cost and how good they are: rows of a JSON file, or of a table in a Markdown file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.pictures.figure import PictureError

NEEDED = ("name", "accuracy", "mflops")


@dataclass(frozen=True)
class CostRow:
    """One classifier.

    Attributes:
        accuracy: 0 to 1.
        mflops: million multiply-adds an image.
        parameters: None where they are not told.
    """

    name: str
    accuracy: float
    mflops: float
    parameters: float | None


def read_cost_rows(file: Path) -> list[CostRow]:
    """Read a file; a row whose accuracy is no number (it was not trained) is left out.

    JSON: a list of objects. Markdown: the first table with these columns, their titles in capitals or not; an accuracy
    is a share or in percent. Keys and columns other than `name`, `accuracy`, `mflops` and `parameters` are passed over.

    Raises:
        PictureError: it is neither, lacks one of `name`, `accuracy` and `mflops`, or no row is left.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PictureError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    records = _json_records(file, text) if text.lstrip().startswith(("[", "{")) else _markdown_records(text)
    rows = [row for number, record in enumerate(records, 1) if (row := _row(file, number, record))]
    if not rows:
        raise PictureError(f"{file}: no row with {', '.join(NEEDED)}, in a JSON list or in a Markdown table")
    return rows


def _json_records(file: Path, text: str) -> list[dict[str, object]]:
    try:
        records = json.loads(text)
    except ValueError as error:
        raise PictureError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise PictureError(f"{file}: must be a list of objects with {', '.join(NEEDED)}")
    for number, record in enumerate(records, 1):
        missing = [key for key in NEEDED if key not in record]
        if missing:
            raise PictureError(f"{file}: row {number} has no {', '.join(missing)}")
    return records


def _markdown_records(text: str) -> list[dict[str, object]]:
    titles: list[str] = []
    records: list[dict[str, object]] = []
    for line in text.splitlines():
        cells = [cell.strip().strip("`*") for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            if records:
                break
            titles = []
        elif not titles:
            titles = [cell.lower() for cell in cells]
        elif set(NEEDED) <= set(titles) and not re.fullmatch(r"[\s:|-]+", line):
            records.append(dict(zip(titles, cells, strict=False)))
    return records


def _row(file: Path, number: int, record: Mapping[str, object]) -> CostRow | None:
    accuracy, mflops = (_number(record.get(key)) for key in ("accuracy", "mflops"))
    if accuracy is None or mflops is None:
        return None
    if accuracy > 1 or str(record["accuracy"]).rstrip().endswith("%"):
        accuracy /= 100
    if not 0 <= accuracy <= 1 or mflops <= 0:
        raise PictureError(
            f"{file}: row {number}: accuracy must be from 0 to 1, or in percent, and mflops more than 0: "
            f"not {accuracy:g} and {mflops:g}"
        )
    return CostRow(str(record["name"]), accuracy, mflops, _number(record.get("parameters")))


def _number(value: object) -> float | None:
    """`61,100,840`, `91.4 %` and `0.914` are numbers; what begins with no digit is none."""
    found = re.match(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", str(value).strip())
    return float(found[0].replace(",", "")) if found else None
