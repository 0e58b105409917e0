"""Weighted samples, checked once at the door.

Everything behind this file may assume: batched shapes, one floating dtype (float32 or float64), one device, finite
entries, nonnegative weights of positive mass, and, for balanced problems, equal masses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sinkdiv import checks
from sinkdiv.checks import check_array, check_companion, check_finite, shape_text
from sinkdiv.measures.forms import batched_form
from sinkdiv.measures.weights import are_good, are_positive, check_weights, read, weights_of
from sinkdiv.transforms import check_transforms

#: Points or weights as a user gives them: a tensor, or a list of tensors for problems of different sizes.
Clouds: TypeAlias = Tensor | Sequence[Tensor]

#: What all functions of two samples say of them.
SAMPLES = (
    "x: points (n, d), or a batch (B, n, d) of equally many; or a list of B clouds (n_k, d_k), for B problems of "
    "different sizes.\n"
    "y: points (m, d) or (B, m, d), of x's dtype and device; or a list like x.\n"
    "a: weights of x, (n,) or (B, n), or a list of (n_k,); uniform of mass 1 if omitted.\n"
    "b: weights of y, (m,) or (B, m), or a list of (m_k,); uniform of mass 1 if omitted."
)


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
    def costs(self) -> tuple[Tensor, ...]:
        """What the costs are made of: the points."""
        return self.x, self.y

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """(a, b, *costs): all that a value may be differentiated in."""
        return self.a, self.b, *self.costs

    def detached(self) -> Samples:
        """The same without a graph."""
        x, y, a, b = (one.detach() for one in (self.x, self.y, self.a, self.b))
        return replace(self, x=x, y=y, a=a, b=b)


def is_list_of_clouds(x: Any) -> bool:
    """Whether x is a list of tensors, one for each of several problems."""
    return isinstance(x, (list, tuple)) and all(isinstance(one, Tensor) for one in x)


def check_any(x: Any, y: Any, a: Any, b: Any, *, balanced: bool) -> list[Samples]:
    """Check one problem or batch (`check_samples`), or, if x is a list, one problem for each entry (`check_ragged`)."""
    if is_list_of_clouds(x):
        return check_ragged(x, y, a, b, balanced=balanced)
    return [check_samples(x, y, a, b, balanced=balanced)]


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
            raise ValueError(f"problem {k} of the list: x must have shape (n, d), not {shape_text(x[k])}")
        first = checked[0] if checked else one
        if (one.dtype, one.x.device) != (first.dtype, first.x.device):
            raise ValueError(f"problem {k} of the list: x must have the dtype and device of the first, {x[0].dtype}")
        checked.append(one)
    return _verified(checked, balanced, listed=True)


def _shaped(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Samples:
    """Two samples whose numbers are still to be checked."""
    check_array("x", x, dims=(2, 3), layout="(n, d) or (B, n, d)")
    check_transforms(x, y, a, b)
    check_array("y", y, dims=(x.ndim,), layout="(m, d)" if x.ndim == 2 else "(B, m, d)")
    check_companion("y", y, "x", x)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x and y must have the same dimension d: x is {shape_text(x)} and y is {shape_text(y)}, so {x.shape[-1]} "
            f"is not {y.shape[-1]}"
        )
    if x.ndim == 3 and x.shape[0] != y.shape[0]:
        raise ValueError(f"x and y must hold the same number of problems B: x is {shape_text(x)}, y is {shape_text(y)}")
    batched = x.ndim == 3
    points_x = batched_form(x, batched)
    points_y = points_x if y is x else batched_form(y, batched)
    weights_a = weights_of("a", a, "x", points_x, batched)
    self_problem = y is x and b is a
    weights_b = weights_a if self_problem else weights_of("b", b, "y", points_y, batched)
    unit_masses = a is None and b is None
    return Samples(points_x, points_y, weights_a, weights_b, batched, x.dtype, unit_masses, positive=unit_masses)


def _verified(samples: list[Samples], balanced: bool, *, listed: bool) -> list[Samples]:
    """The samples, if their numbers are good: one read tells for all of them."""
    if checks.is_captured(samples[0].x):
        return samples
    weighted = [one for one in samples if not one.unit_masses]
    good = [are_good(s.costs, s.a, s.b, unit_masses=s.unit_masses, balanced=balanced) for s in samples]
    flags = read(good + [are_positive(one.a, one.b) for one in weighted])
    if not all(flags[: len(samples)]):
        for k, one in enumerate(samples):
            with _problem(k) if listed else nullcontext():
                _check_values(one, balanced)
    positive = iter(flags[len(samples) :])
    return [one if one.unit_masses else replace(one, positive=next(positive)) for one in samples]


def _check_values(samples: Samples, balanced: bool) -> None:
    """Refuse numbers that are not finite, and weights that are no measures, or of masses that differ."""
    for name, points in (("x", samples.x), ("y", samples.y)):
        check_finite(name, points if samples.batched else points.squeeze(0))
    equal_masses = balanced and not samples.unit_masses
    check_weights(samples.a, samples.b, batched=samples.batched, equal_masses=equal_masses)


@contextmanager
def _problem(k: int) -> Iterator[None]:
    """Says in what is raised which problem of a list it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"problem {k} of the list: {error}") from None
