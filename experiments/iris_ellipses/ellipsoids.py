"""Ellipsoids as a generator, and which points lie inside of them."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn


class Ellipsoids(nn.Module):
    """Equally likely ellipsoids {A_k u + w_k, |u| ≤ 1}, each with its uniform distribution.

    Args:
        centres: where they are at the start, (k, d).
        radius: they are balls of this size at the start.
    """

    def __init__(self, centres: Tensor, radius: float) -> None:
        super().__init__()
        count, dimension = centres.shape
        self.matrices = nn.Parameter(radius * torch.eye(dimension).to(centres).repeat(count, 1, 1))
        self.centres = nn.Parameter(centres.clone())

    def forward(self, which: Tensor, ball: Tensor) -> Tensor:
        """Points (n, d) of the ellipsoids `which` (n,) at the places `ball` (n, d) of the unit ball."""
        return torch.einsum("nij,nj->ni", self.matrices[which], ball) + self.centres[which]

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        number, dimension = self.centres.shape
        which = torch.randint(number, (count,), generator=generator)
        return self(which, uniform_in_ball(count, dimension, generator).to(self.centres))

    @torch.no_grad()
    def inside(self, points: Tensor) -> Tensor:
        """Which of points (n, d) lie in which ellipsoid: (n, k) of bool."""
        apart = points.double()[None] - self.centres.double()[:, None]  # (k, n, d)
        places = torch.linalg.solve(self.matrices.double(), apart.mT).mT
        return (places.square().sum(-1) <= 1).T


def uniform_in_ball(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    directions = nn.functional.normalize(torch.randn(count, dimension, generator=generator), dim=1)
    return directions * torch.rand(count, 1, generator=generator) ** (1 / dimension)


def counts_by_class(inside: Tensor, labels: Tensor) -> list[int]:
    """How many points of each class lie in the ellipsoid that is its own, under the best assignment.

    Args:
        inside: (n, k) of bool.
        labels: (n,), of k classes.
    """
    table = torch.stack([inside[labels == label].sum(0) for label in labels.unique()])
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return [int(table[row, column]) for row, column in zip(rows, columns, strict=True)]
