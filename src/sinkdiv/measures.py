"""Weighted samples, checked once at the door.

Everything behind this file may assume: batched shapes, one floating dtype (float32 or float64), one device, finite
entries (a cost matrix may also hold +∞, forbidden pairs), nonnegative weights of positive mass, and, for balanced
problems, equal masses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkdiv.transforms import check_transforms

#: Largest relative difference of the two masses that a balanced problem accepts, by dtype of the computation.
MASS_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}


@dataclass(frozen=True)
class Samples:
    """Two weighted point clouds, one pair for each problem of the batch.

    ``x`` (B, n, d), ``y`` (B, m, d), ``a`` (B, n), ``b`` (B, m), all in the dtype of the computation and still attached
    to the caller's graph. ``batched`` tells whether the caller gave a batch; ``dtype`` is the caller's own dtype;
    ``unit_masses`` whether all masses are 1 because no weights were given; ``positive`` whether it is known that all
    weights are.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    batched: bool
    dtype: torch.dtype
    unit_masses: bool
    positive: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """(a, b, *costs): all that a value may be differentiated in."""
        return self.a, self.b, self.x, self.y


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
    def tensors(self) -> tuple[Tensor, ...]:
        """(a, b, *costs)."""
        return self.a, self.b, self.C


def check_samples(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, balanced: bool = True
) -> Samples:
    """Check two weighted samples and bring them into batched form.

    Args:
        x: points, (n, d) or (B, n, d).
        y: points, (m, d) or (B, m, d), of x's dtype and device.
        a: weights of x, (n,) or (B, n); uniform of mass 1 if omitted.
        b: weights of y, (m,) or (B, m); uniform of mass 1 if omitted.
        balanced: whether the two masses must agree (`MASS_TOLERANCE`).

    Raises:
        ValueError: naming the argument, what it is and what was expected.
    """
    (samples,) = _verified([_shaped(x, y, a, b)], balanced, listed=False)
    return samples


def _shaped(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Samples:
    """Two samples whose numbers are still to be checked."""
    _check_array("x", x, dims=(2, 3), layout="(n, d) or (B, n, d)")
    check_transforms(x, y, a, b)
    _check_array("y", y, dims=(x.ndim,), layout="(m, d)" if x.ndim == 2 else "(B, m, d)")
    _check_companion("y", y, "x", x)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x and y must have the same dimension d: x is {_shape(x)} and y is {_shape(y)}, so {x.shape[-1]} is not "
            f"{y.shape[-1]}"
        )
    if x.ndim == 3 and x.shape[0] != y.shape[0]:
        raise ValueError(f"x and y must hold the same number of problems B: x is {_shape(x)}, y is {_shape(y)}")
    batched = x.ndim == 3
    points_x = _batched(x, batched)
    points_y = points_x if y is x else _batched(y, batched)
    weights_a = _weights("a", a, "x", points_x, batched)
    self_problem = y is x and b is a
    weights_b = weights_a if self_problem else _weights("b", b, "y", points_y, batched)
    unit_masses = a is None and b is None
    return Samples(points_x, points_y, weights_a, weights_b, batched, x.dtype, unit_masses, positive=unit_masses)


def is_list_of_clouds(x: Any) -> bool:
    """Whether x is a list of tensors, one for each of several problems."""
    return isinstance(x, (list, tuple)) and all(isinstance(one, Tensor) for one in x)


def check_any(x: Any, y: Any, a: Any, b: Any, *, balanced: bool) -> list[Samples]:
    """Check one problem or batch (`check_samples`), or, if x is a list, one problem for each entry (`check_ragged`)."""
    if is_list_of_clouds(x):
        return check_ragged(x, y, a, b, balanced=balanced)
    return [check_samples(x, y, a, b, balanced=balanced)]


def check_ragged(x: Sequence[Tensor], y: Any, a: Any = None, b: Any = None, *, balanced: bool = True) -> list[Samples]:
    """Check problems of different sizes: lists of clouds (n_k, d_k) and (m_k, d_k) and, if given, of their weights.

    Raises:
        ValueError: naming the problem and the argument.
    """
    lists = {"x": x, "y": y, "a": a, "b": b}
    for name, given in lists.items():
        if given is not None and not (isinstance(given, (list, tuple)) and len(given) == len(x)):
            kind = f"a list of {len(given)}" if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(f"{name} must be a list of {len(x)} tensors, one for each of x, not {kind}")
    if not x:
        raise ValueError("x is an empty list: there is no problem to solve")
    checked: list[Samples] = []
    for k in range(len(x)):
        with _problem(k):
            one = _shaped(x[k], y[k], a[k] if a else None, b[k] if b else None)
        if one.batched:
            raise ValueError(f"problem {k} of the list: x must have shape (n, d), not {_shape(x[k])}")
        first = checked[0] if checked else one
        if (one.dtype, one.x.device) != (first.dtype, first.x.device):
            raise ValueError(f"problem {k} of the list: x must have the dtype and device of the first, {x[0].dtype}")
        checked.append(one)
    return _verified(checked, balanced, listed=True)


def check_features(features: Tensor, count: int) -> None:
    """Check what a learned cost's module made of ``count`` points.

    Raises:
        ValueError: naming the cost.
    """
    name = "what the module of the cost returned"
    _check_floating(name, features)
    check_transforms(features)
    if features.ndim < 2 or features.shape[0] != count:
        raise ValueError(f"{name} must have shape ({count}, ...), one row for each point, not {_shape(features)}")
    _check_finite(name, features)


def check_cost_values(C: Tensor, shape: tuple[int, ...]) -> None:
    """Check what a cost function returned for two clouds.

    Raises:
        ValueError: naming the cost.
    """
    name = "what the cost function returned"
    _check_floating(name, C)
    check_transforms(C)
    if tuple(C.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, not {_shape(C)}")
    _check_finite(name, C)


def check_matrix(C: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, balanced: bool = True) -> CostMatrix:
    """Check a cost matrix (n, m) or (B, n, m) and its weights; see `check_samples`. Costs of +∞ forbid a pair.

    Raises:
        ValueError: naming the argument; also if weight lies where all pairs with weight are forbidden.
    """
    _check_array("C", C, dims=(2, 3), layout="(n, m) or (B, n, m)")
    check_transforms(C, a, b)
    batched = C.ndim == 3
    cost = _batched(C, batched)
    weights_a = _weights("a", a, "the rows of C", cost, batched)
    weights_b = _weights("b", b, "the columns of C", cost.mT, batched)
    unit_masses = a is None and b is None
    given = CostMatrix(cost, weights_a, weights_b, batched, C.dtype, unit_masses, forbids=False)
    if is_captured(C):  # nobody can look
        return replace(given, forbids=True)
    if all(_read([_good(given, balanced)])):
        return given
    forbids = _check_costs(C)
    _check_weight_values(given, balanced)
    if forbids:
        _check_reachable(cost.detach(), weights_a.detach(), weights_b.detach())
    return replace(given, forbids=forbids)


def is_captured(tensor: Tensor) -> bool:
    """Whether what is done with this tensor is being captured into a CUDA graph, where nobody can wait for a number."""
    return tensor.is_cuda and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype a problem is computed in: half types in float32, float32 and float64 natively."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def mass(weights: Tensor) -> Tensor:
    """Total mass (B,) of weights (B, n), summed in float64 and returned in the weights' dtype."""
    return weights.sum(-1, dtype=torch.float64).to(weights.dtype)


def equalised(b: Tensor, a: Tensor) -> Tensor:
    """b (B, m) scaled to the mass of a (B, n): they agree to the door's tolerance, a balanced problem needs them equal.

    The factor has no derivative: that would be one in a direction in which the problem does not exist.
    """
    return b * (mass(a) / mass(b)).detach()[:, None]


def check_finite_tensor(name: str, tensor: Tensor) -> None:
    """Check an operand that is no sample: a floating-point tensor without NaN or inf.

    Raises:
        ValueError: naming the argument.
        NotImplementedError: if it is batched by `torch.func.vmap`.
    """
    _check_floating(name, tensor)
    check_transforms(tensor)
    _check_finite(name, tensor)


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join(str(size) for size in tensor.shape) + ")"


def _batched(tensor: Tensor, batched: bool) -> Tensor:
    tensor = tensor.to(compute_dtype(tensor.dtype))
    return tensor if batched else tensor.unsqueeze(0)


def _check_array(name: str, tensor: Tensor, dims: tuple[int, ...], layout: str) -> None:
    _check_floating(name, tensor, f" of shape {layout}")
    if tensor.ndim not in dims:
        raise ValueError(f"{name} must have shape {layout}, not {_shape(tensor)}")
    if tensor.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {_shape(tensor)}")


def _check_floating(name: str, tensor: Tensor, layout: str = "") -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor{layout}, not {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, not {tensor.dtype}")


def _verified(samples: list[Samples], balanced: bool, *, listed: bool) -> list[Samples]:
    """The samples, if their numbers are good: one read tells for all of them."""
    if is_captured(samples[0].x):
        return samples
    weighted = [one for one in samples if not one.unit_masses]
    flags = _read([_good(one, balanced) for one in samples] + [_least(one) > 0 for one in weighted])
    if not all(flags[: len(samples)]):
        for k, one in enumerate(samples):
            with _problem(k) if listed else nullcontext():
                _check_values(one, balanced)
    positive = iter(flags[len(samples) :])
    return [one if one.unit_masses else replace(one, positive=next(positive)) for one in samples]


@contextmanager
def _problem(k: int) -> Iterator[None]:
    """Says in what is raised which problem of a list it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"problem {k} of the list: {error}") from None


def _read(flags: list[Tensor]) -> list[bool]:
    """Flags (0-d), in one transfer from their device."""
    values: list[bool] = torch.stack(flags).tolist()
    return values


def _least(given: Samples | CostMatrix) -> Tensor:
    """The least weight, 0-d; NaN if one is."""
    return torch.minimum(given.a.detach().amin(), given.b.detach().amin())


def _good(given: Samples | CostMatrix, balanced: bool) -> Tensor:
    """Whether the numbers are beyond doubt, 0-d: where they are in doubt, which is rare, each is looked at alone.

    A finite sum has finite terms, and is all that a good input costs; finite terms may overflow in their sum.
    """
    costs = given.tensors[2:]
    good = torch.stack([cost.detach().sum() for cost in costs]).abs().amax() < torch.inf
    if given.unit_masses:
        return good
    mass_a, mass_b = mass(given.a.detach()), mass(given.b.detach())
    larger, smaller = torch.maximum(mass_a, mass_b), torch.minimum(mass_a, mass_b)
    good = good & (_least(given) >= 0) & ((smaller > 0) & (larger < torch.inf)).all()
    return good & (larger - smaller <= MASS_TOLERANCE[given.a.dtype] * larger).all() if balanced else good


def _check_values(samples: Samples, balanced: bool) -> None:
    """Refuse numbers that are not finite, and weights that are no measures, or of masses that differ."""
    for name, points in (("x", samples.x), ("y", samples.y)):
        _check_finite(name, points if samples.batched else points.squeeze(0))
    _check_weight_values(samples, balanced)


def _check_weight_values(given: Samples | CostMatrix, balanced: bool) -> None:
    for name, weights in (("a", given.a), ("b", given.b)):
        _check_weights(name, weights if given.batched else weights.squeeze(0))
    if balanced and not given.unit_masses:
        _check_masses(given.a, given.b)


def _check_finite(name: str, tensor: Tensor) -> None:
    if is_captured(tensor):
        return
    tensor = tensor.detach()
    # A finite sum has finite terms, and is all that a good input costs; finite terms may overflow in their sum.
    if not math.isfinite(float(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} holds NaN or infinite entries (its shape is {_shape(tensor)})")


def _check_costs(C: Tensor) -> bool:
    """Refuse NaN and −∞; tells whether there are entries +∞."""
    C = C.detach()
    if math.isfinite(float(C.sum())):
        return False
    if bool((torch.isnan(C) | torch.isneginf(C)).any()):
        raise ValueError(
            f"C holds NaN or infinite entries other than +inf, a forbidden pair (its shape is {_shape(C)})"
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


def _check_companion(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.dtype != other.dtype:
        raise ValueError(f"{name} must have {other_name}'s dtype {other.dtype}, not {tensor.dtype}")
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on {other_name}'s device {other.device}, not {tensor.device}")


def _weights(name: str, weights: Tensor | None, owner: str, points: Tensor, batched: bool) -> Tensor:
    """Weights (B, n) in the dtype of ``points`` (B, n, ·), uniform where none are given."""
    batch, count = points.shape[:2]
    if weights is None:
        return points.new_full((batch, count), 1.0 / count)
    expected = f"({batch}, {count})" if batched else f"({count},)"
    _check_floating(name, weights, f" of shape {expected}")
    if weights.shape != points.shape[:2][not batched :]:
        raise ValueError(f"{name} must have shape {expected}, one weight for each of {owner}, not {_shape(weights)}")
    if weights.device != points.device:
        raise ValueError(f"{name} must be on the device {points.device} of {owner}, not {weights.device}")
    weights = weights.to(points.dtype)  # before the checks: a float64 weight may overflow in float32
    return weights if batched else weights.unsqueeze(0)


def _check_weights(name: str, weights: Tensor) -> None:
    """Refuse weights (n,) or (B, n) that are no measures."""
    _check_finite(name, weights)
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
