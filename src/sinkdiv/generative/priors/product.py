"""Independent blocks of coordinates, each with a prior of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.generative.priors.base import Prior, require_dim


class Product(Prior):
    """The product of priors: P19's probabilistic program has a digit's looks on a sphere and its place in R³.

    Args:
        parts: (prior, dimension) of each block, in the order of the coordinates.

    Raises:
        InputError: if a prior cannot have its dimension.
    """

    def __init__(self, *parts: tuple[Prior, int]) -> None:
        self.parts = parts
        self.own_dim = sum(dim for _, dim in parts)
        for prior, dim in parts:
            prior.check(dim)

    def check(self, dim: int) -> None:
        require_dim(dim == self.own_dim, dim, f"{self.own_dim}, the sum of the prior's factors")

    def project(self, outputs: Tensor) -> Tensor:
        return torch.cat([prior.project(block) for prior, block in self._blocks(outputs)], -1)

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return torch.cat([prior.sample(count, part, generator) for prior, part in self.parts], -1)

    def mean_squared_distance(self, dim: int) -> float:
        return sum(prior.mean_squared_distance(part) for prior, part in self.parts)

    def geodesic(self, start: Tensor, end: Tensor, times: Tensor) -> Tensor:
        both = zip(self._blocks(start), self._blocks(end), strict=True)
        return torch.cat([prior.geodesic(first, last, times) for (prior, first), (_, last) in both], -1)

    def factors(self, dim: int) -> list[tuple[slice, Prior]]:
        found: list[tuple[slice, Prior]] = []
        begin = 0
        for prior, part in self.parts:
            inner = prior.factors(part)
            found += [(slice(begin + block.start, begin + block.stop), factor) for block, factor in inner]
            begin += part
        return found

    def _blocks(self, points: Tensor) -> list[tuple[Prior, Tensor]]:
        blocks = points.split([part for _, part in self.parts], -1)
        return [(prior, block) for (prior, _), block in zip(self.parts, blocks, strict=True)]
