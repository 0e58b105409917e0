"""Iris in its first three principal components."""

from __future__ import annotations

import torch
from sklearn.datasets import load_iris
from torch import Tensor


def flowers() -> tuple[Tensor, Tensor]:
    """The 150 flowers in their first three principal components (150, 3), and their species (150,)."""
    data = load_iris()
    points = torch.tensor(data.data, dtype=torch.float64)
    points = points - points.mean(0)
    directions = torch.linalg.svd(points, full_matrices=False)[2][:3]
    # A singular vector has no sign of its own; its largest entry is made positive.
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    return points @ (signs * directions).T, torch.tensor(data.target)
