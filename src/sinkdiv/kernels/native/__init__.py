"""Passes over pairs in C++ for CPUs: the operations of `sinkdiv.kernels.reference`, several times faster.

Only this file passes addresses of tensors to C++. It makes sure that each is contiguous memory of one dtype on the CPU,
which stays alive until the call returns. The extension may be missing (it was not built); then
`available` is False and the reference serves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sinkdiv.costs import Cost, Euclidean, SquaredEuclidean

_native: Any
try:
    from sinkdiv.kernels.native import _native
except ImportError:  # installed without a compiler
    _native = None

available = _native is not None

DTYPES = (torch.float32, torch.float64)


def serves(tensor: Tensor) -> bool:
    """Whether these kernels can reduce data of this dtype on this device."""
    return available and tensor.device.type == "cpu" and tensor.dtype in DTYPES


def knows(cost: Cost) -> bool:
    """Whether these kernels can form this cost between points."""
    return isinstance(cost, (SquaredEuclidean, Euclidean))


def instruction_set() -> str:
    """The instruction set in use: "avx512", "avx2" or "portable"."""
    return str(_native.instruction_set())


class _Reductions:
    """What points and matrices share. Shapes as in the reference; ``eps`` is (B, 1)."""

    _batch: Any
    _shape: tuple[int, int, int]
    _dtype: torch.dtype

    def softmin(self, h: Tensor, eps: Tensor, near: Tensor | None = None) -> Tensor:
        """−ε log Σ_j exp(h_j − C_ij/ε), (B, n). A guess ``near`` of it saves nothing here."""
        out = self._empty(*self._shape[:2])
        self._call(_native.softmin, (h, eps), (out,))
        return out

    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """P v, (B, n, k), for v (B, m, k)."""
        out = self._empty(*self._shape[:2], v.shape[2])
        self._call(_native.plan_product, (u, h, eps, v), (out,), v.shape[2])
        return out

    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """(P∘C) v, (B, n, k), for v (B, m, k); ε may be ∞."""
        out = self._empty(*self._shape[:2], v.shape[2])
        self._call(_native.cost_product, (u, h, eps, v), (out,), v.shape[2])
        return out

    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """<P, C>, (B,); ε may be ∞."""
        out = self._empty(self._shape[0])
        self._call(_native.plan_cost, (u, h, eps), (out,))
        return out

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P itself, (B, n, m)."""
        out = self._empty(*self._shape)
        self._call(_native.plan_matrix, (u, h, eps), (out,))
        return out

    def weighted_plan(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """P_ij (s_i + t_j + log P_ij), (B, n, m)."""
        out = self._empty(*self._shape)
        self._call(_native.weighted_plan, (u, h, eps, s, t), (out,))
        return out

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """P 1 (B, n) and Pᵀ 1 (B, m), from one exponential for each pair."""
        return self._both_sums(_native.marginals, (u, h, eps))

    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The row and column sums of `weighted_plan`, likewise."""
        return self._both_sums(_native.weighted_marginals, (u, h, eps, s, t))

    def corrected_primal(
        self, a: Tensor, b: Tensor, log_u: Tensor, log_h: Tensor, eps: Tensor, p: Tensor, q: Tensor
    ) -> Tensor:
        """See `reference.TiledReductions.corrected_primal`."""
        out = self._empty(self._shape[0])
        self._call(_native.corrected_primal, (a, b, log_u, log_h, eps, p, q), (out,))
        return out

    def ctransform(self, g: Tensor) -> Tensor:
        """min_j C_ij − g_j, (B, n)."""
        out = self._empty(*self._shape[:2])
        self._call(_native.ctransform, (g,), (out,))
        return out

    def costs(self) -> Tensor:
        """C, (B, n, m)."""
        out = self._empty(*self._shape)
        self._call(_native.costs, (), (out,))
        return out

    def _both_sums(self, operation: Any, inputs: tuple[Tensor, ...], *more: object) -> tuple[Tensor, Tensor]:
        batch, n, m = self._shape
        rows, columns = self._empty(batch, n), self._empty(batch, m)
        self._call(operation, inputs, (rows, columns), *more)
        return rows, columns

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._dtype)

    def _call(self, operation: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], *more: object) -> None:
        inputs = tuple(tensor.contiguous() for tensor in inputs)  # keeps copies alive during the call
        operation(
            self._dtype == torch.float64,
            self._batch,
            *(tensor.data_ptr() for tensor in inputs),
            *more,
            *(tensor.data_ptr() for tensor in outputs),
        )


class PointReductions(_Reductions):
    """Reductions over the pairs of x (B, n, d) and y (B, m, d) under a cost that this module `knows`."""

    def __init__(self, x: Tensor, y: Tensor, cost: Cost) -> None:
        self.x, self._y, self._cost = x.contiguous(), y.contiguous(), cost
        self._shape, self._dtype = (x.shape[0], x.shape[1], y.shape[1]), x.dtype
        self._batch = _native.Batch(
            self.x.data_ptr(), self._y.data_ptr(), *self._shape, x.shape[2], isinstance(cost, Euclidean),
            torch.get_num_threads(),
        )  # fmt: skip

    def swapped(self) -> PointReductions:
        """The reductions over the pairs of y and x."""
        return PointReductions(self._y, self.x, self._cost)

    def plan_gradient(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """Σ_j P_ij ∂c(x_i, y_j)/∂x_i, (B, n, d)."""
        out = self._empty(*self.x.shape)
        self._call(_native.plan_gradient, (u, h, eps), (out,))
        return out

    def weighted_gradient(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Σ_j P_ij (s_i + t_j + log P_ij) ∂c(x_i, y_j)/∂x_i, (B, n, d)."""
        out = self._empty(*self.x.shape)
        self._call(_native.weighted_gradient, (u, h, eps, s, t), (out,))
        return out

    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j P_ij Ċ_ij (B, n) and Σ_i P_ij Ċ_ij (B, m) of the cost's tangent Ċ along dx (B, n, d) and dy (B, m, d)."""
        return self._both_sums(_native.tangent_marginals, (u, h, eps, dx, dy))

    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor
    ) -> Tensor:
        """See `reference.PointReductions.gradient_tangent`."""
        out = self._empty(*self.x.shape)
        self._call(_native.gradient_tangent, (u, h, eps, s, t, dx, dy), (out,))
        return out


class MatrixReductions(_Reductions):
    """Reductions over pairs whose costs are C (B, n, m)."""

    def __init__(self, C: Tensor) -> None:
        self._C = C.contiguous()
        self._shape, self._dtype = (C.shape[0], C.shape[1], C.shape[2]), C.dtype
        self._batch = _native.Batch(self._C.data_ptr(), 0, *self._shape, C.shape[2], False, torch.get_num_threads())

    def costs(self) -> Tensor:
        return self._C


AnyReductions = PointReductions | MatrixReductions

#: Up to this dimension costs and gradients of points far from the origin are as precise as those of centred ones.
EXACT_DIMENSION = int(_native.NARROW) if available else 0

#: Most rows or columns of a problem that `solve_small` takes.
SMALL_SIDE = int(_native.SMALL_SIDE) if available else 0


def small_batch(
    pairs: AnyReductions,
    eps: Tensor,
    rho: tuple[float, float],
    symmetric: bool,
    weights: tuple[Tensor, Tensor],
    start: Tensor | None,
    outputs: tuple[Tensor, Tensor, Tensor],
    gradient: Tensor | None,
) -> Any:
    """A batch of problems for `solve_small`; the caller keeps all tensors alive and contiguous.

    ``eps`` (B,), float64, holds the regularisation of each problem. ``weights`` are a (B, n) and b (B, m), ``start`` is
    a potential g (B, m). ``outputs``: the results (B, k), of each problem f (n), raw_f (n), g (m), raw_g (m), the
    marginal error, the dual value and the spread of the cost, where g and raw_g are left out if the problem is
    symmetric; then the passes (B,), int64, and the history (B, checks), float32.
    ``gradient`` (B, n, d), if it is wanted, receives Σ_j P_ij ∂c(x_i, y_j)/∂x_i.
    """
    results, passes, history = outputs
    return _native.SmallBatch(
        pairs._batch, eps.data_ptr(), *rho, symmetric, weights[0].data_ptr(), weights[1].data_ptr(),
        0 if start is None else start.data_ptr(),
        results.data_ptr(), passes.data_ptr(), history.data_ptr(),
        0 if gradient is None else gradient.data_ptr(), history.shape[1],
    )  # fmt: skip


def solve_small(batches: list[Any], dtype: torch.dtype, tol: float, max_passes: int) -> None:
    """Solve all problems of all batches, each as its algorithm in `sinkdiv.solvers` would, on the threads there are."""
    _native.solve_small(dtype == torch.float64, batches, tol, max_passes)
