"""Four distributions in the plane that a toy generator should learn (Q23's experiment).

All are a few units wide and their modes have a standard deviation of .1, so that ε = .5 under |x−y|², a blur of .5,
is between the width of a mode and the distance to the next one (at least 1.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from sklearn.datasets import make_moons
from torch import Tensor

NOISE = 0.1


def grid(side: int) -> Callable[[int, int], Tensor]:
    """A square grid of Gaussians, two units apart and centred at the origin."""
    ticks = 2.0 * torch.arange(side) - (side - 1)
    return mixture(torch.cartesian_prod(ticks, ticks))


def circle(modes: int) -> Callable[[int, int], Tensor]:
    """Gaussians on a circle of radius 2."""
    angles = 2 * math.pi * torch.arange(modes) / modes
    return mixture(2 * torch.stack([angles.cos(), angles.sin()], 1))


def mixture(centres: Tensor) -> Callable[[int, int], Tensor]:
    """Equally likely Gaussians at ``centres`` (k, 2)."""

    def sample(n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        modes = torch.randint(len(centres), (n,), generator=generator)
        return centres[modes] + NOISE * torch.randn(n, 2, generator=generator)

    return sample


def moons(n: int, seed: int) -> Tensor:
    """Two interleaved half circles of radius 2."""
    points, _ = make_moons(n, noise=NOISE / 2, random_state=seed)
    return 2 * torch.tensor(points, dtype=torch.float32)


#: (n, seed) -> points (n, 2).
TARGETS: dict[str, Callable[[int, int], Tensor]] = {
    "grid9": grid(3),
    "grid25": grid(5),
    "circle8": circle(8),
    "moons": moons,
}
