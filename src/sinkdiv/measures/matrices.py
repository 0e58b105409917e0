"""A cost matrix with weights, checked once at the door.

Everything behind this file may assume what `sinkdiv.measures.samples` says; only that entries may also be +∞, which are
forbidden pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sinkdiv import checks
from sinkdiv.checks import check_array, shape_text
from sinkdiv.measures.forms import batched_form
from sinkdiv.measures.weights import are_good, check_weights, read, weights_of
from sinkdiv.transforms import check_transforms


@dataclass(frozen=True)
class CostMatrix:
    """An explicit cost ``C`` (B, n, m) with weights ``a`` (B, n) and ``b`` (B, m); otherwise as `Samples`.

    ``forbids`` tells whether entries may be +∞.
    """

    C: Tensor
    a: Tensor
    b: Tensor
    batched: bool
    dtype: torch.dtype
    unit_masses: bool
    forbids: bool

    @property
    def costs(self) -> tuple[Tensor, ...]:
        """What the costs are made of: the matrix itself."""
        return (self.C,)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """(a, b, *costs): all that a value may be differentiated in."""
        return self.a, self.b, *self.costs

    def detached(self) -> CostMatrix:
        """The same without a graph."""
        return replace(self, C=self.C.detach(), a=self.a.detach(), b=self.b.detach())


def check_matrix(C: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, balanced: bool = True) -> CostMatrix:
    """Check a cost matrix (n, m) or (B, n, m) and its weights; see `check_samples`. Costs of +∞ forbid a pair.

    Raises:
        ValueError: naming the argument; also if weight lies where all pairs with weight are forbidden.
    """
    check_array("C", C, dims=(2, 3), layout="(n, m) or (B, n, m)")
    check_transforms(C, a, b)
    batched = C.ndim == 3
    cost = batched_form(C, batched)
    weights_a = weights_of("a", a, "the rows of C", cost, batched)
    weights_b = weights_of("b", b, "the columns of C", cost.mT, batched)
    unit_masses = a is None and b is None
    given = CostMatrix(cost, weights_a, weights_b, batched, C.dtype, unit_masses, forbids=False)
    if checks.is_captured(C):  # its numbers cannot be read
        return replace(given, forbids=True)
    if all(read([are_good(given.costs, given.a, given.b, unit_masses=unit_masses, balanced=balanced)])):
        return given
    forbids = _check_costs(C)
    check_weights(given.a, given.b, batched=batched, equal_masses=balanced and not unit_masses)
    if forbids:
        _check_reachable(cost.detach(), weights_a.detach(), weights_b.detach())
    return replace(given, forbids=forbids)


def _check_costs(C: Tensor) -> bool:
    """Refuse NaN and −∞; tells whether there are entries +∞."""
    C = C.detach()
    if math.isfinite(float(C.sum())):
        return False
    if bool((torch.isnan(C) | torch.isneginf(C)).any()):
        raise ValueError(
            f"C holds NaN or infinite entries other than +inf, a forbidden pair (its shape is {shape_text(C)})"
        )
    return bool(torch.isposinf(C).any())


def _check_reachable(C: Tensor, a: Tensor, b: Tensor) -> None:
    """Every row and column with weight needs a pair with weight that is not forbidden."""
    allowed = ~torch.isposinf(C) & (a > 0)[:, :, None] & (b > 0)[:, None, :]
    for name, weights, axis in (("row", a, 2), ("column", b, 1)):
        lost = (weights > 0) & ~allowed.any(axis)
        if bool(lost.any()):
            problem, index = lost.nonzero()[0].tolist()
            where = f" of problem {problem}" if len(C) > 1 else ""
            raise ValueError(
                f"C forbids (+inf) all pairs with weight in {name} {index}{where}, whose own weight is "
                f"{weights[problem, index].item():.3g}: there is nowhere for it to go"
            )
