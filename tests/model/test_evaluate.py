from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.evaluate import Logits, calibration, predict, probabilities, report, table


def logits_of(probabilities: list[list[float]]) -> Logits:
    return np.log(np.array(probabilities, np.float32))


def test_expected_calibration_error_of_a_case_done_by_hand() -> None:
    """Bins are 1/15 wide: 0.9 and 0.92 share [13/15, 14/15); 0.61 and 0.7 have one each."""
    logits = logits_of([[0.9, 0.1], [0.08, 0.92], [0.61, 0.39], [0.3, 0.7]])
    labels = np.array([0, 0, 1, 1])
    shared = abs((1 - 0.9) + (0 - 0.92))
    expected = (shared + abs(0 - 0.61) + abs(1 - 0.7)) / 4
    assert calibration(logits, labels).error == pytest.approx(expected, abs=1e-6)


def test_the_bins_of_a_case_done_by_hand() -> None:
    logits = logits_of([[0.9, 0.1], [0.08, 0.92], [0.61, 0.39], [0.3, 0.7]])
    found = calibration(logits, np.array([0, 0, 1, 1]), bins=4)
    assert found.images.tolist() == [0, 0, 2, 2]
    assert found.confidence == pytest.approx([0, 0, 0.655, 0.91])
    assert found.accuracy == pytest.approx([0, 0, 0.5, 0.5])


def test_probabilities_are_those_that_the_logits_were_made_of() -> None:
    shares = np.array([[0.9, 0.1], [0.08, 0.92]], np.float32)
    assert probabilities(np.log(shares) + np.float32(500)) == pytest.approx(shares, abs=1e-4)


def test_certainty_that_is_right_is_calibrated() -> None:
    logits = np.array([[100, 0], [0, 100]], np.float32)
    assert calibration(logits, np.array([0, 1])).error == 0
    assert calibration(logits, np.array([1, 0])).error == pytest.approx(1)


def test_report_counts_true_classes_in_rows() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]]
    found = report(logits, np.array([0, 0, 0, 1]), ("a", "b", "c"))
    assert found.confusion == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert found.images == 4
    assert found.accuracy == 0.5
    assert found.class_accuracy == {"a": pytest.approx(1 / 3), "b": 1.0, "c": None}
    json.dumps(asdict(found), allow_nan=False)


def test_table_shows_the_matrix() -> None:
    lines = table(report(np.eye(3, dtype=np.float32)[[0, 1, 1, 1]], np.array([0, 0, 0, 1]), ("a", "b", "c"))).split(
        "\n"
    )
    assert lines[0].split() == ["accuracy", "0.5000", "(4", "images)"]
    assert [line.split() for line in lines[-3:]] == [
        ["0", "a", "3", "0.3333", "1", "2", "0"],
        ["1", "b", "1", "1.0000", "0", "1", "0"],
        ["2", "c", "0", "-", "0", "0", "0"],
    ]
    assert len({len(line) for line in lines[3:]}) == 1


def test_table_of_many_classes_lists_confusions() -> None:
    labels = np.arange(30)
    predicted = np.where(labels == 7, 8, labels)
    text = table(report(np.eye(30, dtype=np.float32)[predicted], labels, tuple(f"c{i}" for i in range(30))))
    assert "predicted as" not in text
    assert text.endswith("1  c7 taken for c8")


def test_large_images_come_a_few_at_a_time() -> None:
    sizes: list[int] = []

    class Counting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return images.flatten(1)[:, :2].float()

    images = np.zeros((25, 224, 224, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(25)
    logits = predict(Counting(), nn.Identity(), images, torch.device("cpu"))
    assert logits[:, 0].tolist() == list(range(25))
    assert sizes == [10, 10, 5]
    predict(Counting(), nn.Identity(), images, torch.device("cpu"), batch_size=25)
    assert sizes[3:] == [25]
