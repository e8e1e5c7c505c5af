from __future__ import annotations

import pytest
import torch

from model.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix, steps=5))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonalise_is_blind_to_scale() -> None:
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalise(1000 * matrix), orthogonalise(matrix), rtol=1e-4, atol=1e-5)


def test_muon_finds_the_direction_of_a_filter_bank() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 2, 2, generator=generator, requires_grad=True)
    target = orthogonalise(torch.randn(4, 12, generator=generator), steps=8)
    optimizer = Muon([weight], lr=0.05, momentum=0.6)
    losses = []
    for _ in range(60):
        loss = ((weight.flatten(1) - target) ** 2).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < losses[0] / 10


def test_muon_keeps_rows_at_unit_norm_before_its_step() -> None:
    weight = torch.full((4, 3, 2, 2), 5.0, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1, momentum=0.6).step()
    torch.testing.assert_close(weight.norm(), torch.tensor(2.0))
