"""Inner loops over pairs of points, and the table that picks them. This room knows tensors; it knows no solver."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sinkdiv.costs import LOW_DIMENSION, Cost
from sinkdiv.kernels import native, reference, triton

__all__ = [
    "PRECISIONS", "PointReductions", "Reductions",
    "describe", "forms_fast", "native", "of_matrix", "of_points", "reference", "triton",
]  # fmt: skip


#: How precisely GPUs multiply coordinates in more than a few dimensions (`sinkdiv.kernels.triton.operands`): about as
#: float32 does, or as TF32.
PRECISIONS = ("high", "tf32")


class Reductions(Protocol):
    """Reductions over the pairs of each problem of a batch; `reference` defines them."""

    def softmin(self, h: Tensor, eps: Tensor, near: Tensor | None = None) -> Tensor: ...
    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor: ...
    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor: ...
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


class PointReductions(Reductions, Protocol):
    """Reductions over pairs of points, which have derivatives in the points besides."""

    def swapped(self) -> PointReductions: ...
    def plan_gradient(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor: ...
    def weighted_gradient(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor: ...
    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]: ...
    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor
    ) -> Tensor: ...


def of_points(
    x: Tensor, y: Tensor, cost: Cost, *, precision: str = "high", counts: tuple[Tensor, Tensor] | None = None
) -> PointReductions:
    """The reductions over the pairs of x (B, n, d) and y (B, m, d).

    ``precision`` is that of matrix products on GPUs (`sinkdiv.kernels.triton.operands`). ``counts`` (B,) tell how many
    rows and columns of each problem are real; the others have no weight, and kernels may pass over them.
    """
    if native.serves(x) and native.knows(cost):
        return native.PointReductions(x, y, cost)
    if triton.serves(x):
        return triton.of_points(x, y, cost, precision=precision, counts=counts)
    return reference.PointReductions(x, y, cost)


def of_matrix(C: Tensor, *, forbids: bool = False) -> Reductions:
    """The reductions over pairs whose costs are C (B, n, m); ``forbids`` tells whether some are +∞."""
    if forbids:
        return reference.MatrixReductions(C)
    if triton.serves(C):
        return triton.of_matrix(C)
    return native.MatrixReductions(C) if native.serves(C) else reference.MatrixReductions(C)


def forms_fast(points: Tensor, cost: Cost) -> bool:
    """Whether costs between such points are formed about as fast as they are loaded."""
    served = (native.serves(points) and native.knows(cost)) or triton.serves(points)
    return served and points.shape[-1] <= LOW_DIMENSION


def describe() -> list[tuple[str, str]]:
    """Which kernels serve which device on this machine: pairs (device, kernels)."""
    plain = "reference (PyTorch, tiled)"
    if native.available:
        cpu = f"native (C++, {native.instruction_set()}, {torch.get_num_threads()} threads)"
    else:
        cpu = plain + ": the native extension was not built"
    devices = [("cpu", cpu)]
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        missing = triton.missing(torch.device("cuda", index))
        devices.append((name, f"{plain}: {missing}" if missing else f"fused (Triton {triton.version()})"))
    for kind in ("mps", "xpu"):
        if getattr(torch, kind).is_available():
            devices.append((kind, plain))
    return devices
