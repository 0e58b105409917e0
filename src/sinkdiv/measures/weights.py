"""Weights, and whether the numbers of a problem are good: one read from the device tells for all that are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sinkdiv.checks import check_finite, check_floating, shape_text
from sinkdiv.measures.normalisation import mass

#: Largest relative difference of the two masses that a balanced problem accepts, by dtype of the computation.
MASS_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}


def weights_of(name: str, weights: Tensor | None, owner: str, points: Tensor, batched: bool) -> Tensor:
    """Weights (B, n) in the dtype of ``points`` (B, n, ·), uniform where none are given."""
    batch, count = points.shape[:2]
    if weights is None:
        return points.new_full((batch, count), 1.0 / count)
    expected = f"({batch}, {count})" if batched else f"({count},)"
    check_floating(name, weights, f" of shape {expected}")
    if weights.shape != points.shape[:2][not batched :]:
        raise ValueError(
            f"{name} must have shape {expected}, one weight for each of {owner}, not {shape_text(weights)}"
        )
    if weights.device != points.device:
        raise ValueError(f"{name} must be on the device {points.device} of {owner}, not {weights.device}")
    weights = weights.to(points.dtype)  # before the checks: a float64 weight may overflow in float32
    return weights if batched else weights.unsqueeze(0)


def are_positive(a: Tensor, b: Tensor) -> Tensor:
    """Whether all weights are positive, 0-d."""
    return _least(a, b) > 0


def are_good(costs: Sequence[Tensor], a: Tensor, b: Tensor, *, unit_masses: bool, balanced: bool) -> Tensor:
    """Whether the numbers are beyond doubt, 0-d: where they are in doubt, which is rare, each is looked at alone.

    A finite sum has finite terms, and is all that a good input costs; finite terms may overflow in their sum.

    Args:
        costs: points, or a cost matrix.
        a: weights (B, n).
        b: weights (B, m).
        unit_masses: whether no weights were given, so that there is nothing to look at.
        balanced: whether the two masses must agree.
    """
    good = torch.stack([cost.detach().sum() for cost in costs]).abs().amax() < torch.inf
    if unit_masses:
        return good
    mass_a, mass_b = mass(a.detach()), mass(b.detach())
    larger, smaller = torch.maximum(mass_a, mass_b), torch.minimum(mass_a, mass_b)
    good = good & (_least(a, b) >= 0) & ((smaller > 0) & (larger < torch.inf)).all()
    return good & (larger - smaller <= MASS_TOLERANCE[a.dtype] * larger).all() if balanced else good


def read(flags: list[Tensor]) -> list[bool]:
    """Flags (0-d), in one transfer from their device."""
    values: list[bool] = torch.stack(flags).tolist()
    return values


def check_weights(a: Tensor, b: Tensor, *, batched: bool, equal_masses: bool) -> None:
    """Refuse weights (B, n) and (B, m) that are no measures, or of masses that differ where they must not."""
    for name, weights in (("a", a), ("b", b)):
        _check_measure(name, weights if batched else weights.squeeze(0))
    if equal_masses:
        _check_masses(a, b)


def _check_measure(name: str, weights: Tensor) -> None:
    """Refuse weights (n,) or (B, n) that are no measures."""
    check_finite(name, weights)
    if bool((weights.detach() < 0).any()):
        raise ValueError(f"{name} holds negative weights (the least is {weights.min().item():.3g})")
    if bool((mass(weights.detach()) <= 0).any()):
        raise ValueError(f"{name} has no mass: all its weights are zero")


def _check_masses(a: Tensor, b: Tensor) -> None:
    mass_a, mass_b = mass(a.detach()), mass(b.detach())
    if bool(((mass_a - mass_b).abs() > MASS_TOLERANCE[a.dtype] * torch.maximum(mass_a, mass_b)).any()):
        worst = int(((mass_a - mass_b).abs() / mass_a).argmax())
        raise ValueError(
            f"a and b must have equal masses in a balanced problem, but a sums to {mass_a[worst].item():.12g} and b to "
            f"{mass_b[worst].item():.12g}: normalise them, or relax the marginals with reach or rho"
        )


def _least(a: Tensor, b: Tensor) -> Tensor:
    """The least weight, 0-d; NaN if one is."""
    return torch.minimum(a.detach().amin(), b.detach().amin())
