"""Maximum mean discrepancies: the limits of the Sinkhorn divergence as ε → ∞, and the classical kernel losses.

½‖α−β‖²_k = ½ Σ a_i a_i' k(x_i,x_i') + ½ Σ b_j b_j' k(y_j,y_j') − Σ a_i b_j k(x_i,y_j)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, Unpack

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sinkdiv.costs import squared_distances
from sinkdiv.declarations import Option, given_options, shows_options, with_text
from sinkdiv.kernels.reference import row_blocks
from sinkdiv.measures import SAMPLES, Clouds, Samples, center_of, check_any, given_form, is_list_of_clouds


def _energy(squared: Tensor, _: float) -> Tensor:
    return -_distance(squared)


def _gaussian(squared: Tensor, blur: float) -> Tensor:
    return torch.exp(-squared / (2 * blur**2))


def _laplacian(squared: Tensor, blur: float) -> Tensor:
    return torch.exp(-_distance(squared) / blur)


#: k as a function of |x−y|² and of the blur.
KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "energy": _energy,
    "gaussian": _gaussian,
    "laplacian": _laplacian,
}


@dataclass(frozen=True)
class Kernel:
    """A kernel of that name and length."""

    name: str
    blur: float

    def __call__(self, squared: Tensor) -> Tensor:
        """k of squared distances |x−y|²."""
        return KERNELS[self.name](squared, self.blur)


def _checked_name(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in KERNELS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, KERNELS))}, not {value!r}")
    return value


def _any(_: str, value: Any) -> Any:
    """What a length may be depends on the kernel."""
    return value


class KernelOptions(TypedDict, total=False):
    """The options of a maximum mean discrepancy."""

    kernel: Annotated[
        str,
        Option(
            "energy",
            "the kernel k: \"energy\", −|x−y|, which gives half of 2E|x−y| − E|x−x'| − E|y−y'| and needs equal masses; "
            '"gaussian", exp(−|x−y|²/2σ²); "laplacian", exp(−|x−y|/σ).',
            _checked_name,
        ),
    ]
    blur: Annotated[
        float | None,
        Option(
            None, "the length σ of the last two kernels, in the units of the points. The energy kernel has none.", _any
        ),
    ]


@with_text(samples=SAMPLES)
@shows_options
def mmd(
    x: Clouds, y: Clouds, a: Clouds | None = None, b: Clouds | None = None, **options: Unpack[KernelOptions]
) -> Tensor:
    """Half the squared maximum mean discrepancy, ½‖α−β‖²_k, between two weighted samples (diagonal terms included).

    Args:
        {samples}
        {options}

    Returns:
        A 0-d tensor, or (B,) for a batch or for lists, differentiable in points and weights; memory O(n + m).

    Raises:
        ValueError: naming the argument that is wrong, before any work.

    Example:
        >>> x, y = torch.randn(500, 3, requires_grad=True), torch.randn(400, 3) + 1
        >>> sinkdiv.mmd(x, y).backward()
        >>> x.grad.shape
        torch.Size([500, 3])
    """
    return mmd_values(x, y, a, b, kernel_of("mmd", options))


def kernel_of(function: str, given: KernelOptions) -> Kernel:
    """The kernel that a function's options mean.

    Raises:
        TypeError: if the function has no such option.
        ValueError: naming the option that is wrong.
    """
    options = given_options(function, KernelOptions, given)
    name, blur = options["kernel"], options["blur"]
    if name == "energy" and blur is not None:
        raise ValueError("the energy kernel has no length: omit blur")
    if name != "energy" and (isinstance(blur, bool) or not isinstance(blur, (int, float)) or not 0 < blur < math.inf):
        raise ValueError(f"the {name} kernel needs blur, a positive length, not {blur!r}")
    return Kernel(name, 1.0 if blur is None else float(blur))


def mmd_values(x: Any, y: Any, a: Any, b: Any, kernel: Kernel) -> Tensor:
    """The values in the caller's form, 0-d or (B,)."""
    samples = check_any(x, y, a, b, balanced=kernel.name == "energy")
    values = [given_form(_value(one, kernel), one) for one in samples]
    return torch.stack(values) if is_list_of_clouds(x) else values[0]


def _value(s: Samples, kernel: Kernel) -> Tensor:
    """½‖α−β‖²_k, (B,)."""
    center = center_of(s.y)
    x, y = s.x - center, s.y - center
    within = _bilinear(kernel, x, x, s.a, s.a) + _bilinear(kernel, y, y, s.b, s.b)
    return within / 2 - _bilinear(kernel, x, y, s.a, s.b)


def _bilinear(kernel: Kernel, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ_ij a_i b_j k(x_i, y_j), (B,), a block of rows at a time, whose graph is rebuilt when it is differentiated."""

    def block(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        values = kernel(squared_distances(x, y))
        return (a * (values * b[:, None, :]).sum(-1)).sum(-1)

    total = torch.zeros_like(a[:, 0])
    for rows in row_blocks(x.shape[0], x.shape[1], y.shape[1], x.device):
        total = total + checkpoint(block, x[:, rows], y, a[:, rows], b, use_reentrant=False, preserve_rng_state=False)
    return total


def _distance(squared: Tensor) -> Tensor:
    """√, with derivative 0 at 0 instead of the infinite one that turns gradients at coincident points into NaN."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)
