"""Maximum mean discrepancies: the limits of the Sinkhorn divergence as ε → ∞, and the classical kernel losses.

½‖α−β‖²_k = ½ Σ a_i a_i' k(x_i,x_i') + ½ Σ b_j b_j' k(y_j,y_j') − Σ a_i b_j k(x_i,y_j)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sinkdiv.costs import squared_distances
from sinkdiv.kernels.reference import row_blocks
from sinkdiv.measures import check_samples

Kernel = Callable[[Tensor, float], Tensor]


def _energy(squared: Tensor, _: float) -> Tensor:
    return -_distance(squared)


def _gaussian(squared: Tensor, blur: float) -> Tensor:
    return torch.exp(-squared / (2 * blur**2))


def _laplacian(squared: Tensor, blur: float) -> Tensor:
    return torch.exp(-_distance(squared) / blur)


#: k as a function of |x−y|² and of the blur.
KERNELS: dict[str, Kernel] = {"energy": _energy, "gaussian": _gaussian, "laplacian": _laplacian}


def mmd(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    kernel: str = "energy",
    blur: float | None = None,
) -> Tensor:
    """Half the squared maximum mean discrepancy, ½‖α−β‖²_k, between two weighted samples (diagonal terms included).

    Args:
        x: points (n, d) or (B, n, d).
        y: points (m, d) or (B, m, d), of x's dtype and device.
        a: weights of x, (n,) or (B, n); uniform of mass 1 if omitted.
        b: weights of y, (m,) or (B, m); uniform of mass 1 if omitted.
        kernel: "energy", −|x−y|, which gives half of 2E|x−y| − E|x−x'| − E|y−y'| and needs equal masses;
            "gaussian", exp(−|x−y|²/2σ²); "laplacian", exp(−|x−y|/σ).
        blur: the length σ of the last two kernels. The energy kernel has none.

    Returns:
        A 0-d tensor, or (B,) for a batch, differentiable in points and weights; memory O(n + m).

    Raises:
        ValueError: naming the argument that is wrong, before any work.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(map(repr, KERNELS))}, not {kernel!r}")
    if kernel == "energy":
        if blur is not None:
            raise ValueError("the energy kernel has no length: omit blur")
    elif isinstance(blur, bool) or not isinstance(blur, (int, float)) or not 0 < blur < float("inf"):
        raise ValueError(f"the {kernel} kernel needs blur, a positive length, not {blur!r}")
    s = check_samples(x, y, a, b, balanced=kernel == "energy")
    sigma = 1.0 if blur is None else float(blur)
    center = s.y.detach().mean(1, keepdim=True)
    points_x, points_y = s.x - center, s.y - center

    def product(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _bilinear(KERNELS[kernel], sigma, x, y, a, b)

    within = product(points_x, points_x, s.a, s.a) + product(points_y, points_y, s.b, s.b)
    value = within / 2 - product(points_x, points_y, s.a, s.b)
    return (value if s.batched else value.squeeze(0)).to(s.dtype)


def _bilinear(kernel: Kernel, blur: float, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ_ij a_i b_j k(x_i, y_j), (B,), a block of rows at a time, whose graph is rebuilt when it is differentiated."""

    def block(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        values = kernel(squared_distances(x, y), blur)
        return (a * (values * b[:, None, :]).sum(-1)).sum(-1)

    total = torch.zeros_like(a[:, 0])
    for rows in row_blocks(x.shape[0], x.shape[1], y.shape[1], x.device):
        total = total + checkpoint(block, x[:, rows], y, a[:, rows], b, use_reentrant=False, preserve_rng_state=False)
    return total


def _distance(squared: Tensor) -> Tensor:
    """√, with derivative 0 at 0 instead of the infinite one that turns gradients at coincident points into NaN."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)
