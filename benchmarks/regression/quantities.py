"""What is computed of each problem: everything that a user can ask a solved problem, and its derivatives.

A quantity is a tensor, or a list of words or numbers that must agree exactly. A quantity that a problem refuses is the
name of the error, which must agree too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sinkdiv
from benchmarks.regression.faces import how, unrolled
from benchmarks.regression.problems import Clouds, Losses, Matrix, generator, tensor

#: Matrices of at most this many entries are kept whole.
ENTRIES = 10_000

Quantities = dict[str, Any]


def quantities(problem: Clouds | Matrix | Losses) -> Quantities:
    """All quantities of a problem, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what did not converge says so in its status
        if isinstance(problem, Clouds):
            return between_clouds(problem)
        return of_matrix(problem) if isinstance(problem, Matrix) else of_losses(problem)


# Problems between points.


def between_clouds(problem: Clouds) -> Quantities:
    return {
        **renamed("transport", transport_between(problem)),
        **renamed("divergence", divergence_between(problem)),
    }


def transport_between(problem: Clouds) -> Quantities:
    samples, leaves, ground = prepared(problem)
    t = sinkdiv.solve(*samples, cost=ground, **problem.what, **solving(problem))
    moved = tensor(generator(problem.name + " elsewhere").random((*samples[0].shape[:-2], 7, problem.d)), problem.dtype)
    found = {
        **of_transport(t, problem.n * problem.m),
        "barycentric map": attempt(t.barycentric_map),
        "f elsewhere": attempt(lambda: t.potentials_at(moved, 0)),
        "g elsewhere": attempt(lambda: t.potentials_at(moved, 1)),
        **gradients("value", lambda: t.value, leaves),
        **gradients("sharp", lambda: t.sharp, leaves),
    }
    if problem.second:
        found |= second_derivatives("value", lambda: t.value, leaves, problem.name)
        found |= second_derivatives("sharp", lambda: t.sharp, leaves, problem.name)
        found |= gradients("barycentric map", t.barycentric_map, leaves)
        found |= gradients("f elsewhere", lambda: t.potentials_at(moved, 0), leaves)
    return found


def divergence_between(problem: Clouds) -> Quantities:
    samples, leaves, ground = prepared(problem)
    d = sinkdiv.solve_divergence(*samples, cost=ground, **problem.what, **solving(problem))
    found: Quantities = {
        "value": d.value,
        "sharp": attempt(lambda: d.sharp),
        "bounds": torch.stack(d.bounds),
        "converged": listed(d.converged),
    }
    for name in ("ab", "aa", "bb"):
        part = getattr(d, name)
        found |= {f"{name} value": part.value, f"{name} marginal error": part.marginal_error}
        found |= {f"{name} passes": listed(part.passes), f"{name} status": statuses(part)}
    found |= gradients("value", lambda: d.value, leaves)
    found |= gradients("sharp", lambda: d.sharp, leaves)
    if problem.second:
        found |= second_derivatives("value", lambda: d.value, leaves, problem.name)
    return found


def prepared(problem: Clouds) -> tuple[tuple[Tensor | None, ...], dict[str, Tensor], Any]:
    """(x, y, a, b), those of them that are differentiated with the parameters of the cost, and the cost."""
    x, y = problem.points()
    a, b = problem.weights()
    if problem.itself:
        y, b = x, a
    samples, ground = (x, y, a, b), problem.ground()
    leaves = {name: one.requires_grad_() for name, one in zip("xyab", samples, strict=True) if one is not None}
    if problem.itself:
        del leaves["y"], leaves["b"]
    module = getattr(ground, "module", ground)
    if isinstance(module, torch.nn.Module):
        leaves |= {name.replace(".", " "): one for name, one in module.named_parameters()}
    return samples, leaves, ground


# Problems of a cost matrix.


def of_matrix(problem: Matrix) -> Quantities:
    a, b = problem.weights()
    leaves = {"C": problem.costs().requires_grad_(), "a": a.requires_grad_(), "b": b.requires_grad_()}
    t = sinkdiv.solve_matrix(
        leaves["C"], leaves["a"], leaves["b"], **problem.what, **solving(problem, method=problem.method)
    )
    found = {
        **of_transport(t, problem.n * problem.m),
        **gradients("value", lambda: t.value, leaves),
        **gradients("sharp", lambda: t.sharp, leaves),
    }
    if problem.n * problem.m <= ENTRIES:
        found |= second_derivatives("value", lambda: t.value, leaves, problem.name)
        found |= second_derivatives("sharp", lambda: t.sharp, leaves, problem.name)
    return found


# Any solved problem.


def of_transport(t: Any, entries: int) -> Quantities:
    found: Quantities = {
        "value": t.value,
        "sharp": t.sharp,
        "f": t.f,
        "g": t.g,
        "bounds": torch.stack(t.bounds),
        "unregularised bounds": torch.stack(t.unregularised_bounds),
        "marginal error": t.marginal_error,
        "converged": listed(t.converged),
        "status": statuses(t),
        "passes": listed(t.passes),
        "history passes": [passes for passes, _ in t.history],
        "history errors": torch.tensor([error for _, error in t.history], dtype=torch.float64),
        "rows": t.marginals()[0],
        "columns": t.marginals()[1],
        "product": t.apply(torch.linspace(-1, 1, t.g.shape[-1], dtype=t.g.dtype).expand(t.g.shape)),
        "transposed product": t.apply_transpose(
            torch.linspace(-1, 1, t.f.shape[-1], dtype=t.f.dtype).expand(t.f.shape)
        ),
    }
    if entries <= ENTRIES:
        found["plan"] = t.plan()
    return found


def statuses(t: Any) -> list[str]:
    return [status.name for status in (t.status if isinstance(t.status, tuple) else (t.status,))]


def listed(value: Any) -> list[Any]:
    return torch.as_tensor(value).flatten().tolist()


def solving(problem: Clouds | Matrix, method: str = "auto") -> dict[str, Any]:
    options: dict[str, Any] = {"max_passes": problem.max_passes}
    if problem.watched:
        options["callback"] = lambda _: None
    return {"tol": problem.tol, **how(method, **options)}


# Losses.


def of_losses(problem: Losses) -> Quantities:
    return LOSSES[problem.kind](problem)


def of_function(problem: Losses) -> Quantities:
    (xs, ys), (first, second) = problem.points(), problem.weights()
    every = [one.requires_grad_() for one in (*xs, *ys, *first, *second)]
    samples = (xs, ys, first, second) if len(xs) > 1 else (xs[0], ys[0], first[0], second[0])
    values = sinkdiv.sinkhorn_divergence(*samples, **problem.what, **problem.options, tol=1e-6)
    return {"values": values, **gradients("values", lambda: values, numbered(every))}


def of_cost(problem: Losses) -> Quantities:
    samples = single(problem)
    value = sinkdiv.transport_cost(*samples.values(), **problem.what, **problem.options, tol=1e-6)
    module = sinkdiv.TransportCost(**problem.what, **problem.options, tol=1e-6)
    return {"value": value, "module": module(*samples.values()), **gradients("value", lambda: value, samples)}


def of_unrolled(problem: Losses) -> Quantities:
    found: Quantities = {}
    for function in (sinkdiv.sinkhorn_divergence, sinkdiv.transport_cost):
        samples = single(problem)
        value = function(*samples.values(), **problem.what, **problem.options, **unrolled(12))
        found |= {function.__name__: value, **gradients(function.__name__, lambda value=value: value, samples)}
    return found


def of_warm_starts(problem: Losses) -> Quantities:
    """Four calls of a module that begins where the last one ended: the values show how far each went."""
    found: Quantities = {}
    for module in (sinkdiv.SinkhornDivergence, sinkdiv.TransportCost):
        loss = module(**problem.what, tol=1e-3, **how(warm_start=True))
        for call in range(4):
            (x,), (y,) = problem.points(call)
            value = loss(x.requires_grad_(), y)
            name = f"{module.__name__} {call}"
            found |= {name: value, **gradients(name, lambda value=value: value, {"x": x})}
    return found


def of_mmd(problem: Losses) -> Quantities:
    samples = single(problem)
    value = sinkdiv.mmd(*samples.values(), **problem.what)
    module = sinkdiv.MMD(**problem.what)
    return {"value": value, "module": module(*samples.values()), **gradients("value", lambda: value, samples)}


def single(problem: Losses) -> dict[str, Tensor]:
    (xs, ys), (first, second) = problem.points(), problem.weights()
    named = {"x": xs[0], "y": ys[0], "a": first[0], "b": second[0]}
    return {name: one.requires_grad_() for name, one in named.items()}


LOSSES: dict[str, Callable[[Losses], Quantities]] = {
    "function": of_function,
    "cost": of_cost,
    "unrolled": of_unrolled,
    "warm": of_warm_starts,
    "mmd": of_mmd,
}


# Derivatives.


def gradients(name: str, value: Callable[[], Tensor], leaves: dict[str, Tensor]) -> Quantities:
    """The gradient of a value's sum, each entry counting a little differently, in each of the leaves."""

    def found() -> tuple[Tensor | None, ...]:
        numbers = value()
        counted = numbers * torch.linspace(1, 2, numbers.numel(), dtype=numbers.dtype).view(numbers.shape)
        return torch.autograd.grad(counted.sum(), [*leaves.values()], retain_graph=True, allow_unused=True)

    return named_parts(f"d {name} / d", leaves, found)


def second_derivatives(name: str, value: Callable[[], Tensor], leaves: dict[str, Tensor], seed: str) -> Quantities:
    """Products of the Hessian of a value's sum with a random direction of all leaves at once."""
    random = generator(seed + " direction")
    directions = [torch.tensor(random.normal(size=tuple(one.shape)), dtype=one.dtype) for one in leaves.values()]
    directions = [one - one.mean(-1, keepdim=True) for one in directions]  # of weights, that keep their mass

    def found() -> tuple[Tensor | None, ...]:
        first = torch.autograd.grad(value().sum(), [*leaves.values()], create_graph=True, allow_unused=True)
        pairs = zip(first, directions, strict=True)
        along = torch.stack([(one * direction).sum() for one, direction in pairs if one is not None]).sum()
        return torch.autograd.grad(along, [*leaves.values()], retain_graph=True, allow_unused=True)

    return named_parts(f"Hessian product of {name} in", leaves, found)


def named_parts(prefix: str, leaves: dict[str, Tensor], found: Callable[[], tuple[Tensor | None, ...]]) -> Quantities:
    parts = attempt(found)
    if isinstance(parts, str):
        return {f"{prefix} all": parts}
    return {f"{prefix} {name}": "none" if part is None else part for name, part in zip(leaves, parts, strict=True)}


def attempt(function: Callable[[], Any]) -> Any:
    """What the function returns, or the name of the error that it raises."""
    try:
        return function()
    except (ValueError, NotImplementedError) as error:
        return type(error).__name__


def numbered(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {f"input {i}": one for i, one in enumerate(tensors)}


def renamed(prefix: str, found: Quantities) -> Quantities:
    return {f"{prefix}: {name}": value for name, value in found.items()}
