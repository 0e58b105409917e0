"""A cost given as an explicit matrix, whose entries +∞ are forbidden pairs: the plan is zero there."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.geometry.differentiable import DifferentiableReductions, OfMatrix
from sinkdiv.geometry.pairwise import PairwiseGeometry
from sinkdiv.geometry.whole import Operand
from sinkdiv.kernels import Reductions, native, of_matrix


class MatrixGeometry(PairwiseGeometry):
    """An explicit batch of cost matrices C (B, n, m). The tensor its cost is made of is C.

    Keeps a copy: the caller may change C in place before somebody asks for a bound or the plan. It takes as much memory
    as C does, and about half the time of one pass.
    """

    def __init__(self, C: Tensor, *, copy: bool = True, forbids: bool | None = None) -> None:
        """``forbids`` tells whether entries may be +∞; if omitted it is read from the device."""
        self.C = C.detach().clone(memory_format=torch.contiguous_format) if copy else C.detach()
        self._like = self.C
        self.shape = (C.shape[0], C.shape[1], C.shape[2])
        self.dtype, self.device = C.dtype, C.device
        self._known_to_forbid = forbids
        self._reductions: dict[int, Reductions] = {}

    def reductions(self, side: int) -> Reductions:
        if side not in self._reductions:
            self._reductions[side] = of_matrix(self.C if side == 0 else self.C.mT, forbids=self.forbids)
        return self._reductions[side]

    def native_operand(self) -> Operand | None:
        reductions = self.reductions(0)
        return reductions if isinstance(reductions, native.MatrixReductions) else None

    @cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        """The least and the largest cost (B,) of each problem."""
        return self.C.amin((1, 2)), self.C.amax((1, 2))

    @property
    def forbids(self) -> bool:
        return self._forbids

    @cached_property
    def _forbids(self) -> bool:
        known = self._known_to_forbid
        return bool((self._range[1] == torch.inf).any()) if known is None else known

    def spread(self) -> Tensor:
        return self._spread

    @cached_property
    def _spread(self) -> Tensor:
        """Of the pairs that are allowed."""
        least, largest = self._range
        if self.forbids:
            largest = torch.where(torch.isposinf(self.C), -torch.inf, self.C).amax((1, 2))
        return largest - least

    def gradients(self, u: Tensor, h: Tensor, eps: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        return (self.plan_matrix(u, h, eps) if wanted[0] else None,)

    def weighted_gradients(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        return (self.reductions(0).weighted_plan(u, h, eps, s, t) if wanted[0] else None,)

    def differentiable(self, eps: Tensor) -> DifferentiableReductions:
        return OfMatrix(eps)

    def costs(self) -> Tensor:
        return self.C

    def exact(self) -> MatrixGeometry:
        wide = self.C.double()
        return self if wide is self.C else MatrixGeometry(wide, copy=False, forbids=self._known_to_forbid)

    def part(self, which: Tensor) -> MatrixGeometry:
        return MatrixGeometry(self.C[which], copy=False, forbids=self._known_to_forbid)
