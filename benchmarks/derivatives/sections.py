"""The sections of the benchmark of derivatives. Each returns plain data."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.derivatives import matrices
from benchmarks.derivatives.methods import (
    Pair,
    geomloss_pair,
    ott_pair,
    ott_product,
    pot_pair,
    sinkdiv_pair,
    sinkdiv_product,
    unrolled_pair,
)
from benchmarks.derivatives.references import exact_points, exact_product
from benchmarks.frame import racing
from benchmarks.frame.book import Section
from benchmarks.frame.clock import say
from benchmarks.frame.processes import child, memory_limit
from benchmarks.frame.racing import race
from benchmarks.frame.references import Exact
from benchmarks.frame.workloads import Workload, cubes, images, spheres


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    matrix: int
    every: int
    """Of the settings on cost matrices, every so many."""
    steps: tuple[int, int, int]
    unrolled: tuple[int, ...]
    """Numbers of iterations; for the large problem only the first."""
    large: int
    memory: tuple[int, ...]
    products: tuple[int, ...]
    repetitions: int


FULL = Sizes(
    matrix=200, every=1, steps=(128, 256, 1000), unrolled=(10, 50, 100), large=10_000, memory=(1000, 3000, 10_000),
    products=(1000, 10_000), repetitions=7,
)  # fmt: skip
QUICK = Sizes(
    matrix=20, every=3, steps=(16, 24, 30), unrolled=(10, 20), large=40, memory=(200,), products=(30,), repetitions=1,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Context(racing.Context):
    """What all sections share."""

    sizes: Sizes
    memory: float = 12.0
    """GB that a method may take."""

    def chosen(self, pairs: list[Pair]) -> list[Pair]:
        return [pair for pair in pairs if self.methods.lower() in pair.full.name.lower()]

    def race(self, title: str, pairs: list[Pair], workload: Workload, exact: Exact) -> dict[str, Any]:
        """One table: each method's two calls in one row, the errors those of the full one."""
        with memory_limit(self.memory):
            rows = race([method for pair in pairs for method in pair], workload, self.limits, exact)
        described = {key: exact[key] for key in ("kind", "converged", "uncertainty") if key in exact}
        return {
            "title": f"{title}: {workload.title}",
            "reference": described | {"value": float(exact["value"])},
            "rows": [full | {"before": before["seconds"]} for before, full in zip(rows[::2], rows[1::2], strict=True)],
        }


def errors(context: Context) -> dict[str, Any]:
    """The gradient's error against the forward solve's."""
    sizes = context.sizes
    with memory_limit(context.memory):
        return {"tables": matrices.compare(sizes.matrix, sizes.every, context.methods, context.limits.call)}


def times(context: Context) -> dict[str, Any]:
    """The value alone, and with its gradient."""
    sphere, image, square = context.sizes.steps
    small = [spheres(sphere), images(image), cubes(square, d=2, blur=0.1)]
    unrolled = context.sizes.unrolled
    workloads = [(workload, unrolled) for workload in small] + [(cubes(context.sizes.large), unrolled[:1])]
    tables = []
    for workload, iterations in workloads:
        for value, everything in (("sharp", sharp_pairs(iterations)), ("entropic", entropic_pairs())):
            pairs = context.chosen(everything)
            if not pairs:
                continue
            say(f" {value}: {workload.title}")
            exact = exact_points(workload, value, context.cache)
            tables.append(context.race(f"{value.capitalize()} value", pairs, workload, exact))
    return {"tables": tables}


def sharp_pairs(iterations: tuple[int, ...]) -> list[Pair]:
    return [
        *(sinkdiv_pair(f"implicit, L1 tol {tol:.0e}", tol, value="sharp") for tol in (1e-3, 1e-5)),
        *(unrolled_pair(count) for count in iterations), pot_pair("sharp", "autodiff"), ott_pair("sharp"),
    ]  # fmt: skip


def entropic_pairs() -> list[Pair]:
    return [
        sinkdiv_pair("envelope, L1 tol 1e-03"), pot_pair("entropic", "envelope"), pot_pair("entropic", "autodiff"),
        ott_pair("entropic"), geomloss_pair(0.5), geomloss_pair(0.9),
    ]  # fmt: skip


def memory(context: Context) -> dict[str, Any]:
    """Peak memory of the sharp value's gradient, each method and size in a process of its own."""
    names = {
        "implicit": "sinkdiv implicit, L1 tol 1e-03", "unrolled": "sinkdiv unrolled, L = 10",
        "pot": "POT autograd, L = 10", "loop": "PyTorch loop on autograd's tape, L = 10",
    }  # fmt: skip
    rows = []
    for method, name in names.items():
        for n in context.sizes.memory:
            if context.methods.lower() not in name.lower():
                continue
            say(f" {name}: n = {n}")
            absent = method == "pot" and find_spec("ot") is None
            given = (method, n, "--limit", context.memory)
            module = "benchmarks.derivatives.memory"
            found = {"note": "not installed"} if absent else child(module, *given, limit=context.limits.call)
            rows.append({"method": name, "n": n} | found)
    return {"rows": rows}


def hessian(context: Context) -> dict[str, Any]:
    """The debiased value and its gradient, and with them a Hessian-vector product."""
    tables = []
    for n in context.sizes.products:
        workload = cubes(n)
        say(f" {workload.title}")
        direction = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        pairs = [
            sinkdiv_product(direction, torch.float32, 1e-3), sinkdiv_product(direction, torch.float32, 1e-5),
            sinkdiv_product(direction, torch.float64, 1e-8),
        ]  # fmt: skip
        if n <= 1000:
            pairs += [ott_product(direction, 1e-3, danskin=danskin) for danskin in (True, False)]
            pairs += [ott_product(direction, 1e-8, danskin=False, double=True)]
        exact = exact_product(workload, direction, context.cache)
        tables.append(context.race("Debiased entropic value", context.chosen(pairs), workload, exact))
    return {"tables": tables}


SECTIONS: dict[str, Section] = {
    "errors": ("The gradient's error against the forward solve's", errors),
    "times": ("Time of a gradient", times),
    "memory": ("Memory of the sharp value's gradient", memory),
    "hessian": ("Hessian-vector products", hessian),
}
