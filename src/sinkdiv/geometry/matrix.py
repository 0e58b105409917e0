"""A cost given as an explicit matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.geometry.protocol import Geometry
from sinkdiv.kernels import Pairs, native, of_matrix


class MatrixGeometry(Geometry):
    """An explicit batch of cost matrices C (B, n, m). The tensor its cost is made of is C."""

    def __init__(self, C: Tensor) -> None:
        self.C = C.detach()
        self.shape = (C.shape[0], C.shape[1], C.shape[2])
        self.dtype, self.device = C.dtype, C.device
        self._pairs: dict[int, Pairs] = {}

    def pairs(self, side: int) -> Pairs:
        if side not in self._pairs:
            self._pairs[side] = of_matrix(self.C if side == 0 else self.C.mT)
        return self._pairs[side]

    def native_pairs(self) -> native.AnyPairs | None:
        pairs = self.pairs(0)
        return pairs if isinstance(pairs, native.MatrixPairs) else None

    def spread(self) -> Tensor:
        return self.C.amax((1, 2)) - self.C.amin((1, 2))

    def gradients(self, u: Tensor, h: Tensor, eps: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        return (self.plan_matrix(u, h, eps) if wanted[0] else None,)

    def to(self, dtype: torch.dtype) -> MatrixGeometry:
        return MatrixGeometry(self.C.to(dtype))
