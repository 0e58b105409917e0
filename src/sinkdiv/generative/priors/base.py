"""What a prior is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sinkdiv.generative.errors import InputError


class Prior(ABC):
    """A distribution on R^d that can be sampled, the map from R^d onto its support, and the support's geometry."""

    #: The only dimension that this prior can have, if there is one.
    own_dim: int | None = None
    #: What the number in `name:number` is, for a prior that is made of one.
    parameter: ClassVar[str | None] = None

    def check(self, dim: int) -> None:
        """Raise `InputError` if this prior cannot have `dim` dimensions."""
        require_dim(dim >= 1, dim, "at least 1")

    @abstractmethod
    def project(self, outputs: Tensor) -> Tensor:
        """Encoder outputs (n, d) to codes (n, d) on the support, differentiably."""

    @abstractmethod
    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        """`count` independent draws, (count, dim), float32 on the CPU."""

    @abstractmethod
    def mean_squared_distance(self, dim: int) -> float:
        """E|z − z'|² of two independent draws, twice the trace of the covariance: the scale of latent costs."""

    def geodesic(self, start: Tensor, end: Tensor, times: Tensor) -> Tensor:
        """Points (k, n, d) on the support at `times` (k,) in [0, 1], at constant speed from start to end (n, d).

        The straight segment, which lies in every convex support.
        """
        return torch.lerp(start, end, times[:, None, None].to(start))

    def landmarks(self, dim: int) -> Tensor:
        """Codes (k, d) that stand out and are worth looking at: vertices, means of modes. None by default: (0, d)."""
        return torch.empty(0, dim)

    def factors(self, dim: int) -> list[tuple[slice, Prior]]:
        """The independent blocks of coordinates and their priors; a latent loss is the sum over them."""
        return [(slice(0, dim), self)]


def require_dim(condition: bool, dim: int, expected: str) -> None:
    """Raise `InputError` about the latent dimension unless the condition holds."""
    if not condition:
        raise InputError(f"--latent-dim {dim}: expected {expected}")
