"""A cost given as an explicit matrix, whose entries +∞ are forbidden pairs: the plan is zero there."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.geometry.protocol import Geometry
from sinkdiv.kernels import Reductions, native, of_matrix


class MatrixGeometry(Geometry):
    """An explicit batch of cost matrices C (B, n, m). The tensor its cost is made of is C.

    Keeps a copy: the caller may change C in place before somebody asks for a bound or the plan. It takes as much memory
    as C does, and about half the time of one pass.
    """

    def __init__(self, C: Tensor, *, copy: bool = True, forbids: bool | None = None) -> None:
        """``forbids`` tells whether entries may be +∞; if omitted it is read from the device."""
        self.C = C.detach().clone(memory_format=torch.contiguous_format) if copy else C.detach()
        self.shape = (C.shape[0], C.shape[1], C.shape[2])
        self.dtype, self.device = C.dtype, C.device
        self._known_to_forbid = forbids
        self._pairs: dict[int, Reductions] = {}

    @property
    def matrix(self) -> Tensor:
        return self.C

    def pairs(self, side: int) -> Reductions:
        if side not in self._pairs:
            self._pairs[side] = of_matrix(self.C if side == 0 else self.C.mT, forbids=self.forbids)
        return self._pairs[side]

    def native_reductions(self) -> native.AnyReductions | None:
        pairs = self.pairs(0)
        return pairs if isinstance(pairs, native.MatrixReductions) else None

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

    def softmin_by_marginal(self, h: Tensor, near: Tensor, eps: Tensor) -> Tensor:
        """With a good guess it is read off the columns' sums, which need no transposed copy of C."""
        _, columns = self.marginals(h, near / eps, eps)
        far = 1 / torch.finfo(self.dtype).tiny ** 0.5
        if bool(((columns > 1 / far) & (columns < far)).all()):
            return near - eps * columns.log()
        return self.softmin(h, eps, 1)

    def gradients(self, u: Tensor, h: Tensor, eps: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        return (self.plan_matrix(u, h, eps) if wanted[0] else None,)

    def to(self, dtype: torch.dtype) -> MatrixGeometry:
        return (
            self if dtype == self.dtype else MatrixGeometry(self.C.to(dtype), copy=False, forbids=self._known_to_forbid)
        )
