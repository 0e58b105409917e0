"""The specification: every reduction over pairs in plain PyTorch, one tile of the cost matrix at a time.

A tile is a pair ``(rows, C)``: a slice of rows and their costs (B, r, m). A stream of tiles covers every row once, in
order, so that no reduction ever needs the whole n × m matrix.

Plans are given by their scaled logarithms: P_ij = exp(u_i + h_j − C_ij/ε) with u = log a + f/ε (B, n) and
h = log b + g/ε (B, m). ε is a tensor (B, 1): one regularisation for each problem of the batch.

A pair whose cost is +∞ is forbidden: its entry of the plan is 0, and 0·∞ is 0 here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sinkdiv.costs import Cost

Tile = tuple[slice, Tensor]

#: Entries of a tile over the whole batch: 2 MB in float32, near a core's cache (four times as many took twice as long).
TILE_ENTRIES = 2**19

#: The same on accelerators, where an operation on a tile is a launch of some 5 µs: on 128 MB in float32 its work takes
#: ten times as long, and a few copies of a tile still are a small part of the memory.
ACCELERATOR_TILE_ENTRIES = 2**25


class TiledReductions(ABC):
    """Reductions over a stream of tiles, which can be made again for each pass."""

    @abstractmethod
    def tiles(self) -> Iterator[Tile]:
        """All tiles, from the first row to the last."""

    def softmin(self, h: Tensor, eps: Tensor, near: Tensor | None = None) -> Tensor:
        """−ε log Σ_j exp(h_j − C_ij/ε), (B, n).

        A row all of whose pairs are forbidden, or lead to columns without weight, has the softmin 0, not ∞. Such a row
        has no weight itself (`sinkdiv.measures.check_matrix`), so its potential has no effect.

        ``near`` (B, n) is a guess of the result. Kernels may use it to save time; the specification does not.
        """
        return -eps * torch.cat([_logsumexp(_exponents(h, C, eps)) for _, C in self.tiles()], -1)

    def ctransform(self, g: Tensor) -> Tensor:
        """min_j C_ij − g_j, (B, n), the softmin of ε = 0, for g (B, m) < ∞; +∞ where all g_j are −∞."""
        return torch.cat([(C - g[:, None, :]).amin(-1) for _, C in self.tiles()], -1)

    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """P v, (B, n, k), for v (B, m, k)."""
        return self._map_plan(u, h, eps, lambda _, C, P: P @ v)

    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """(P∘C) v, (B, n, k), for v (B, m, k). Where ε is ∞, P_ij is exp(u_i + h_j)."""
        return self._map_costs(u, h, eps, lambda PC: PC @ v)

    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """<P, C>, (B,). Where ε is ∞, P_ij is exp(u_i + h_j)."""
        return self._map_costs(u, h, eps, lambda PC: PC.sum(-1)).sum(-1)

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P itself, (B, n, m)."""
        return self._map_plan(u, h, eps, lambda _, C, P: P)

    def weighted_plan(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """P_ij (s_i + t_j + log P_ij), (B, n, m), for s (B, n) and t (B, m); 0 where P_ij is.

        The logarithm is that of the very entry: both carry the same rounding of the exponent.
        """
        return self._map_plan(u, h, eps, lambda rows, C, P: _weighted(P, s[:, rows], t))

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """P 1, (B, n), and Pᵀ 1, (B, m)."""
        return self._both_sums(u, h, eps, lambda _, C, P: P)

    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The row sums, (B, n), and column sums, (B, m), of `weighted_plan`."""
        return self._both_sums(u, h, eps, lambda rows, C, P: _weighted(P, s[:, rows], t))

    def corrected_primal(
        self, a: Tensor, b: Tensor, log_u: Tensor, log_h: Tensor, eps: Tensor, p: Tensor, q: Tensor
    ) -> Tensor:
        """Σ_ij a_i b_j s_ij (C_ij + ε log s_ij), (B,), with s_ij = exp(log_u_i + log_h_j − C_ij/ε) + p_i q_j.

        s is the plan's density relative to a bᵀ, and p qᵀ the rank-one correction that makes a rounded plan feasible.
        The result is +∞ where the correction puts mass on a forbidden pair.
        """
        total = torch.zeros_like(eps[:, 0])
        for rows, C in self.tiles():
            density = _exp(log_u[:, rows, None] + _exponents(log_h, C, eps))
            density += p[:, rows, None] * q[:, None, :]
            integrand = _times(density, C) + eps[:, :, None] * torch.xlogy(density, density)
            total += (a[:, rows] * (integrand @ b[:, :, None]).squeeze(-1)).sum(-1)
        return total

    def costs(self) -> Tensor:
        """C itself, (B, n, m)."""
        return torch.cat([C for _, C in self.tiles()], 1)

    def _map_plan(self, u: Tensor, h: Tensor, eps: Tensor, reduce: Callable[[slice, Tensor, Tensor], Tensor]) -> Tensor:
        """Concatenate ``reduce(rows, C, P)`` over the tiles, along the rows."""
        # Inside an autocast region matrix products would run in half precision.
        with torch.autocast(u.device.type, enabled=False):
            parts = [reduce(rows, C, _exp(u[:, rows, None] + _exponents(h, C, eps))) for rows, C in self.tiles()]
        return torch.cat(parts, 1)

    def _map_costs(self, u: Tensor, h: Tensor, eps: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """Concatenate ``reduce(P∘C)`` over the tiles, along the rows."""
        infinite = eps.isinf()[:, :, None]

        def reduced(rows: slice, C: Tensor, P: Tensor) -> Tensor:
            # With ε = ∞ a forbidden pair has got the exponent ∞/∞.
            P = torch.where(infinite, _exp(u[:, rows, None] + h[:, None, :]), P)
            return reduce(_times(P, C))

        return self._map_plan(u, h, eps, reduced)

    def _both_sums(
        self, u: Tensor, h: Tensor, eps: Tensor, entries: Callable[[slice, Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The sums of ``entries(rows, C, P)`` over the columns, (B, n), and over the rows, (B, m)."""
        columns = torch.zeros_like(h)

        def reduce(rows: slice, C: Tensor, P: Tensor) -> Tensor:
            terms = entries(rows, C, P)
            columns.add_(terms.sum(1))
            return terms.sum(2)

        return self._map_plan(u, h, eps, reduce), columns


class MatrixReductions(TiledReductions):
    """Reductions over pairs whose costs are C (B, n, m)."""

    def __init__(self, C: Tensor) -> None:
        self._C = C

    def tiles(self) -> Iterator[Tile]:
        return matrix_tiles(self._C)


class PointReductions(TiledReductions):
    """Reductions over the pairs of x (B, n, d) and y (B, m, d) under a cost."""

    def __init__(self, x: Tensor, y: Tensor, cost: Cost) -> None:
        self._x, self._y, self._cost = x, y, cost

    def tiles(self) -> Iterator[Tile]:
        return cloud_tiles(self._x, self._y, self._cost)

    def swapped(self) -> PointReductions:
        """The reductions over the pairs of y and x."""
        return PointReductions(self._y, self._x, self._cost)

    def plan_gradient(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """Σ_j P_ij ∂c(x_i, y_j)/∂x_i, (B, n, d)."""
        return self._map_plan(u, h, eps, lambda rows, C, P: self._cost.gradient(P, self._x[:, rows], self._y))

    def weighted_gradient(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Σ_j P_ij (s_i + t_j + log P_ij) ∂c(x_i, y_j)/∂x_i, (B, n, d), for s (B, n) and t (B, m)."""

        def reduce(rows: slice, C: Tensor, P: Tensor) -> Tensor:
            return self._cost.gradient(_weighted(P, s[:, rows], t), self._x[:, rows], self._y)

        return self._map_plan(u, h, eps, reduce)

    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j P_ij Ċ_ij, (B, n), and Σ_i P_ij Ċ_ij, (B, m).

        Ċ_ij = ∂₁c(x_i, y_j)·dx_i + ∂₂c(x_i, y_j)·dy_j is how fast the cost changes as x moves along dx and y along dy.
        """

        def entries(rows: slice, C: Tensor, P: Tensor) -> Tensor:
            return P * self._cost.tangent(self._x[:, rows], self._y, dx[:, rows], dy)

        return self._both_sums(u, h, eps, entries)

    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor
    ) -> Tensor:
        """The derivative of `plan_gradient`, (B, n, d), as u, h, x and y move along s, t, dx and dy.

        Σ_j P_ij [(s_i + t_j − Ċ_ij/ε) ∂₁c(x_i, y_j) + the derivative of ∂₁c(x_i, y_j)], with Ċ as in
        `tangent_marginals`.
        """

        def reduce(rows: slice, C: Tensor, P: Tensor) -> Tensor:
            points = self._x[:, rows], self._y, dx[:, rows], dy
            weights = P * _factors(s[:, rows], t, -1 / eps, self._cost.tangent(*points))
            return self._cost.gradient(weights, *points[:2]).add_(self._cost.gradient_tangent(P, *points))

        return self._map_plan(u, h, eps, reduce)


def row_blocks(batch: int, rows: int, columns: int, device: torch.device) -> Iterator[slice]:
    """Slices of rows whose tiles hold at most as many entries as the device takes at once (but at least one row)."""
    entries = TILE_ENTRIES if device.type == "cpu" else ACCELERATOR_TILE_ENTRIES
    step = max(1, entries // (batch * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def matrix_tiles(C: Tensor) -> Iterator[Tile]:
    """The tiles of an explicit cost matrix (B, n, m)."""
    batch, n, m = C.shape
    for rows in row_blocks(batch, n, m, C.device):
        yield rows, C[:, rows]


def cloud_tiles(x: Tensor, y: Tensor, cost: Cost) -> Iterator[Tile]:
    """The tiles of c(x_i, y_j), formed on the fly, for x (B, n, d) and y (B, m, d)."""
    for rows in row_blocks(x.shape[0], x.shape[1], y.shape[1], x.device):
        yield rows, cost.matrix(x[:, rows], y)


def _factors(s: Tensor, t: Tensor, k: Tensor, C: Tensor) -> Tensor:
    """s_i + t_j + k C_ij, (B, r, m)."""
    return (s[:, :, None] + t[:, None, :]).addcmul_(C, k[:, :, None])


def _exponents(h: Tensor, C: Tensor, eps: Tensor) -> Tensor:
    """h_j − C_ij/ε, (B, r, m), in one sweep over C."""
    return torch.addcmul(h[:, None, :], C, 1 / eps[:, :, None], value=-1)


def _logsumexp(z: Tensor) -> Tensor:
    """log Σ_j exp(z_ij), (B, r), overwriting z; 0 where all z are −∞."""
    largest = z.amax(-1, keepdim=True)
    empty = largest == -torch.inf
    largest = largest.masked_fill(empty, 0.0)
    # The largest term is 1: the terms that the clamp raises to `tiny` stay far below its last place.
    result = _normal_exp(z.sub_(largest)).sum(-1).log_() + largest.squeeze(-1)
    return result.masked_fill_(empty.squeeze(-1), 0.0)


def _weighted(P: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """P_ij (s_i + t_j + log P_ij), (B, r, m)."""
    return _times(P, s[:, :, None] + t[:, None, :]) + torch.xlogy(P, P)


def _times(P: Tensor, C: Tensor) -> Tensor:
    """P∘C, and 0 where P is 0, whatever C."""
    return torch.where(P == 0, 0.0, P * C)


def _exp(z: Tensor) -> Tensor:
    """exp(z), overwriting z, with an exact 0 for what would be subnormal."""
    z = _normal_exp(z)
    return z.masked_fill_(z < 4 * torch.finfo(z.dtype).tiny, 0.0)


def _normal_exp(z: Tensor) -> Tensor:
    """exp(z), overwriting z, but never subnormal: processors compute with such numbers many times slower."""
    return z.clamp_(min=1 + math.log(torch.finfo(z.dtype).tiny)).exp_()
