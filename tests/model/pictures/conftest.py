from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from matplotlib.figure import Figure

from model.data import Dataset
from model.recipe import recipe_for
from model.run import Run
from model.train import train
from tests.model.conftest import CPU


@pytest.fixture(scope="session")
def run_of(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A network's run of one epoch."""

    @cache
    def trained(net: str) -> Run:
        recipe = replace(recipe_for(net), epochs=1, averaged_epochs=0, batch_size=16)
        origin = {"command": "python -m model train synthetic", "data": "synthetic"}
        return train(shapes, None, recipe, tmp_path_factory.mktemp("runs") / "run", device=CPU, origin=origin)

    return trained


@pytest.fixture
def figure() -> Figure:
    return Figure(layout="constrained")
