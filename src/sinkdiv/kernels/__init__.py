"""Inner loops over pairs of points, and the table that picks them. This room knows tensors; it knows no solver."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.kernels import native, reference

__all__ = ["Pairs", "PointPairs", "describe", "native", "of_matrix", "of_points", "reference"]


class Pairs(Protocol):
    """Reductions over the pairs of each problem of a batch; `reference` defines them."""

    def softmin(self, h: Tensor, eps: Tensor) -> Tensor: ...
    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor: ...
    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor: ...
    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor: ...
    def weighted_plan(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor: ...
    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]: ...
    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]: ...
    def corrected_primal(
        self, a: Tensor, b: Tensor, log_u: Tensor, log_h: Tensor, eps: Tensor, p: Tensor, q: Tensor
    ) -> Tensor: ...
    def ctransform(self, g: Tensor) -> Tensor: ...
    def costs(self) -> Tensor: ...


class PointPairs(Pairs, Protocol):
    """Those of points have derivatives in the points besides."""

    def plan_gradient(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor: ...
    def weighted_gradient(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor: ...
    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]: ...
    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor
    ) -> Tensor: ...


def of_points(x: Tensor, y: Tensor, cost: Cost) -> PointPairs:
    """The pairs of x (B, n, d) and y (B, m, d)."""
    return native.Pairs(x, y, cost) if native.serves(x) and native.knows(cost) else reference.Pairs(x, y, cost)


def of_matrix(C: Tensor, *, forbids: bool = False) -> Pairs:
    """The pairs whose costs are C (B, n, m); ``forbids`` tells whether some are +∞."""
    if forbids:
        return reference.ForbiddingPairs(C)
    return native.MatrixPairs(C) if native.serves(C) else reference.MatrixPairs(C)


def describe() -> list[tuple[str, str]]:
    """Which kernels serve which device on this machine: pairs (device, kernels)."""
    plain = "reference (PyTorch, tiled)"
    if native.available:
        cpu = f"native (C++, {native.instruction_set()}, {torch.get_num_threads()} threads)"
    else:
        cpu = plain + ": the native extension was not built"
    devices = [("cpu", cpu)]
    if torch.cuda.is_available():
        devices += [(f"cuda:{i} ({torch.cuda.get_device_name(i)})", plain) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(("mps", plain))
    return devices
