from __future__ import annotations

from pathlib import Path

import pytest

from model.pictures.cost_rows import CostRow, read_cost_rows
from model.pictures.figure import PictureError

MARKDOWN = """
# Costs

| something | else |
|---|---|
| 1 | 2 |

| Name | Accuracy | Parameters | MFLOPs | images/s |
|---|---:|---:|---:|---:|
| `linear` | 39.5 % | 30,730 | 0.03 | 9,000 |
| **vgg16** | not trained here | 33,638,218 | 333 | 12 |
| fast | 0.914 | | 1,200.5 | – |

| Name | Accuracy | MFLOPs |
|---|---|---|
| later | 0.5 | 1 |
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "costs"


def test_a_markdown_table(file: Path) -> None:
    file.write_text(MARKDOWN)
    assert read_cost_rows(file) == [
        CostRow("linear", 0.395, 0.03, 30_730),
        CostRow("fast", 0.914, 1200.5, None),
    ]


def test_percent_are_read_as_such_however_few(file: Path) -> None:
    file.write_text(
        "| name | accuracy | mflops |\n|---|---|---|\n| a | 0.8 % | 1 |\n| b | 1.0 % | 1 |\n| c | 1.0 | 1 |"
    )
    assert [row.accuracy for row in read_cost_rows(file)] == pytest.approx([0.008, 0.01, 1.0])


def test_a_json_list(file: Path) -> None:
    file.write_text(
        '[{"name": "a", "accuracy": 0.5, "mflops": 2, "parameters": 3, "images_per_s": 9},'
        ' {"name": "b", "accuracy": null, "mflops": 2}]'
    )
    assert read_cost_rows(file) == [CostRow("a", 0.5, 2, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row with name, accuracy, mflops, in a JSON list or in a Markdown table"),
        ("| name | accuracy |\n|---|---|\n| a | 0.5 |", "no row with"),
        ("[", "cannot be read as JSON"),
        ('{"name": "a"}', "must be a list of objects"),
        ("[1]", "must be a list of objects"),
        ("[]", "no row with"),
        ('[{"name": "a", "mflops": 1}]', "row 1 has no accuracy"),
        ('[{"name": "a", "accuracy": 0.5, "mflops": 0}]', "row 1: .* mflops more than 0: not 0.5 and 0"),
        (
            '[{"name": "a", "accuracy": 101, "mflops": 1}]',
            "row 1: accuracy must be from 0 to 1, .* not 1.01 and 1",
        ),
    ],
)
def test_refusals(text: str, message: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(PictureError, match=message):
        read_cost_rows(file)


def test_a_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(PictureError, match="cannot be read: No such file"):
        read_cost_rows(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(PictureError, match="cannot be read: 'utf-8'"):
        read_cost_rows(file)
