"""Points in unions of ellipsoids, and how they are counted."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]


def cloud(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def ellipsoids(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the experiment."""
    monkeypatch.syspath_prepend(str(ROOT))
    yield importlib.import_module("experiments.iris_ellipses.ellipsoids")
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        del sys.modules[name]


def test_points_inside_of_an_ellipsoid_are_those_of_its_ball(ellipsoids: Any) -> None:
    """Up to 1e-9 of its edge, in float64."""
    model = ellipsoids.Ellipsoids(cloud(3, 3, 0), radius=1.0)
    with torch.no_grad():
        model.matrices.copy_(torch.stack([cloud(3, 3, seed) for seed in (1, 2, 3)]))
    directions = nn.functional.normalize(cloud(300, 3, 4), dim=1)
    for which in range(3):
        component = torch.full((300,), which)
        for radius, expected in ((0.0, True), (1 - 1e-9, True), (1 + 1e-9, False), (3.0, False)):
            points = model(component, radius * directions).detach()
            assert (model.inside(points)[:, which] == expected).all()


def test_draws_fill_the_ellipsoid_evenly(ellipsoids: Any) -> None:
    """Half the radius holds 1/8 of the volume: within five standard errors."""
    ball = ellipsoids.uniform_in_ball(20_000, 3, torch.Generator().manual_seed(0))
    assert float(ball.norm(dim=1).max()) <= 1 + 1e-6
    inner = float((ball.norm(dim=1) <= 0.5).float().mean())
    assert inner == pytest.approx(1 / 8, abs=5 * (1 / 8 * 7 / 8 / 20_000) ** 0.5)


def test_classes_are_counted_under_the_best_assignment(ellipsoids: Any) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    inside = torch.tensor([[0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=torch.bool)
    assert ellipsoids.counts_by_class(inside, labels) == [2, 2, 1]
