"""The sections of the speed benchmark: which workloads, which methods, which limits. Each returns plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sinkdiv
from benchmarks.frame import racing, references
from benchmarks.frame.book import Section
from benchmarks.frame.clock import say
from benchmarks.frame.methods import Method, named_like
from benchmarks.frame.processes import child
from benchmarks.frame.racing import Limits, race
from benchmarks.frame.workloads import Workload, cubes, gaussians, images, spheres
from benchmarks.speed import passes
from benchmarks.speed.methods import (
    geomloss_method,
    ott_method,
    pot_batched,
    pot_method,
    sinkdiv_certified,
    sinkdiv_method,
)

#: Lines of the cost matrix at a time for OTT's online mode.
LINES = 1024
PROBLEMS = 64


@dataclass(frozen=True)
class Sizes:
    """How much is measured: the full benchmark, one that shows in minutes that all works, and one for a test."""

    large: int
    small: tuple[int, int]
    batch: tuple[int, ...]
    accuracy: int
    curve: tuple[int, ...]
    passes: tuple[int, int]
    memory: tuple[int, ...]
    product: int
    checked: int
    repetitions: int


FULL = Sizes(
    large=10_000, small=(128, 256), batch=(256, 32), accuracy=1500,
    curve=tuple(round(10 ** (k / 2)) for k in range(4, 13)), passes=(10_000, 4000),
    memory=(10_000, 100_000, 1_000_000), product=4096, checked=10_000, repetitions=30,
)  # fmt: skip
QUICK = Sizes(
    large=1000, small=(128, 256), batch=(64, 32), accuracy=300, curve=(100, 316, 1000), passes=(2100, 2100),
    memory=(1000, 10_000), product=1024, checked=1000, repetitions=5,
)  # fmt: skip
TINY = Sizes(
    large=40, small=(16, 24), batch=(24,), accuracy=30, curve=(20, 40), passes=(60, 40), memory=(5000,), product=64,
    checked=20, repetitions=1,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Context(racing.Context):
    """What all sections share."""

    sizes: Sizes
    slow: bool = False
    """Also GeomLoss at scaling .9 on the large problems."""

    def race(self, title: str, methods: list[Method], workload: Workload, *, limits: Limits | None = None) -> dict:
        """One table: a workload, its reference and a row for each method."""
        say(f" {title}: {workload.title}")
        # Each digit costs three times the passes where ε is a small part of all costs, as in high dimension.
        tol = 1e-8 if workload.pairs * workload.x.shape[-1] < 1e9 else 1e-6
        checked = workload.x.shape[-2] <= self.sizes.checked
        exact = references.divergence(workload, self.cache, tol=tol) if checked else None
        rows = race(named_like(methods, self.methods), workload, limits or self.limits, exact)
        return {
            "title": f"{title}: {workload.title}",
            "n": workload.x.shape[-2],
            "reference": None if exact is None else references.described(exact),
            "rows": rows,
        }


def conventions(context: Context) -> dict[str, Any]:
    """Do all libraries compute the same number? A small problem, at their tightest settings in float32."""
    methods = [
        sinkdiv_method(1e-5), geomloss_method("tensorized", 0.99), geomloss_method("online", 0.99),
        geomloss_method("multiscale", 0.99), pot_method(1e-6), ott_method(1e-5), ott_method(1e-5, lines=LINES),
    ]  # fmt: skip
    limits = Limits(context.limits.call, 0.0, 1)
    workload = cubes(min(context.sizes.accuracy, 300), blur=0.1)
    return {"tables": [context.race("Tight settings", methods, workload, limits=limits)]}


def large_cubes(context: Context) -> dict[str, Any]:
    """The divergence of two large clouds in three dimensions."""
    methods = [
        sinkdiv_method(), sinkdiv_certified(), geomloss_method("online", 0.5), geomloss_method("multiscale", 0.5),
        geomloss_method("tensorized", 0.5), *slow(context, ("online", "multiscale")), pot_method(1e-4),
        ott_method(1e-3), ott_method(1e-3, lines=LINES),
    ]  # fmt: skip
    return {"tables": [context.race("Value and gradient", methods, cubes(context.sizes.large))]}


def large_gaussians(context: Context) -> dict[str, Any]:
    """The divergence of two large clouds in 64 dimensions."""
    methods = [
        sinkdiv_method(), sinkdiv_certified(), geomloss_method("online", 0.5), geomloss_method("tensorized", 0.5),
        *slow(context, ("tensorized",)), pot_method(1e-4), ott_method(1e-3), ott_method(1e-3, lines=LINES),
    ]  # fmt: skip
    return {"tables": [context.race("Value and gradient", methods, gaussians(context.sizes.large))]}


def slow(context: Context, backends: tuple[str, ...]) -> list[Method]:
    return [geomloss_method(backend, 0.9) for backend in backends] if context.slow else []


def training_step(context: Context) -> dict[str, Any]:
    """The loss of a mini-batch and its gradient."""
    methods = [
        sinkdiv_method(), sinkdiv_method(1e-2), geomloss_method("tensorized", 0.5), geomloss_method("tensorized", 0.9),
        pot_method(1e-4), pot_method(1e-5), ott_method(1e-2), ott_method(1e-3),
    ]  # fmt: skip
    limits = Limits(context.limits.call, context.limits.method, context.sizes.repetitions)
    first, second = context.sizes.small
    return {
        "tables": [
            context.race("A step", methods, workload, limits=limits) for workload in (spheres(first), images(second))
        ]
    }


def batches(context: Context) -> dict[str, Any]:
    """Many problems at once."""
    methods = [
        sinkdiv_method(suffix=", batched"), sinkdiv_method(loop=True, suffix=", a loop"),
        geomloss_method("tensorized", 0.5), geomloss_method("tensorized", 0.9), pot_method(1e-4, loop=True),
        pot_batched(1e-4), ott_method(1e-3, batched=True),
    ]  # fmt: skip
    count = min(PROBLEMS, context.sizes.large // 10)
    workloads = [cubes(n, batch=(count,)) for n in context.sizes.batch]
    return {"tables": [context.race("A batch", methods, workload) for workload in workloads]}


def single_passes(context: Context) -> dict[str, Any]:
    """One softmin pass and its floor."""
    rate = passes.product_rate(context.sizes.product)
    large, small = context.sizes.passes
    tables = []
    for workload in (cubes(large), gaussians(large), gaussians(small, d=784, blur=1.0)):
        say(f" one pass: {workload.title}")
        rows = passes.compare(workload, Limits(context.limits.call, context.limits.method, 7), rate)
        rows = [row for row in rows if context.methods.lower() in row["method"].lower()]
        tables.append({"title": workload.title, "floor_s": passes.floor_seconds(workload, rate), "rows": rows})
    return {"product_rate": rate, "slots": passes.EXPONENTIAL_SLOTS, "tables": tables}


def kinds_of_passes(context: Context) -> dict[str, Any]:
    """All passes over the same pairs, those of derivatives included."""
    tables = []
    for workload in (cubes(context.sizes.passes[0]), gaussians(context.sizes.passes[0])):
        say(f" kinds of passes: {workload.title}")
        tables.append(
            {"title": workload.title, "rows": passes.compare_kinds(workload, replace(context.limits, repetitions=15))}
        )
    return {"tables": tables}


def growth(context: Context) -> dict[str, Any]:
    """Time against the number of points; a method stops where its next point would exceed its limit."""
    roster = [
        (replace(sinkdiv_method(), details=None), 200.0), (geomloss_method("online", 0.5), 30.0),
        (geomloss_method("multiscale", 0.5), 60.0), (geomloss_method("tensorized", 0.5), 30.0),
        (pot_method(1e-4), 30.0), (ott_method(1e-3), 30.0), (ott_method(1e-3, lines=LINES), 30.0),
    ]  # fmt: skip
    ours = roster[0][0].name
    last: dict[str, float] = {}
    tables = []
    for n in context.sizes.curve:
        workload = cubes(n, blur=0.1)
        # The points of the curve are half a decade apart, so that the pairs grow by ten.
        alive = [method for method, limit in roster if last.get(method.name, 0.0) * 10 <= limit]
        table = context.race("Growth", alive, workload, limits=Limits(900.0, 10.0, 5))
        last |= {row["method"]: (row["seconds"] or [float("inf")])[0] for row in table["rows"]}
        if table["reference"] is None and any(row["seconds"] for row in table["rows"] if row["method"] == ours):
            bound_values(table, workload)
        tables.append(table)
    return {"tables": tables}


def bound_values(table: dict[str, Any], workload: Workload) -> None:
    """Where no float64 solve was affordable: the certified interval of our float32 solve bounds everybody's error."""
    lower, upper = map(float, sinkdiv.solve_divergence(workload.x, workload.y, blur=workload.blur).bounds)
    table["interval"] = {"lower": lower, "upper": upper}
    for row in table["rows"]:
        if row["seconds"]:
            row["errors"]["value_at_most"] = max(abs(row["value"] - lower), abs(row["value"] - upper)) / abs(lower)


def accuracy(context: Context) -> dict[str, Any]:
    """Error against time: every library at several of its tolerances."""
    methods = [
        *(sinkdiv_method(tol) for tol in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)),
        *(geomloss_method("tensorized", scaling) for scaling in (0.3, 0.5, 0.7, 0.9, 0.95, 0.99)),
        *(pot_method(tol) for tol in (1e-3, 1e-4, 1e-5, 1e-6)),
        *(ott_method(threshold) for threshold in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)),
    ]
    limits = Limits(context.limits.call, 8.0, 5)
    return {"tables": [context.race("Accuracy", methods, cubes(context.sizes.accuracy), limits=limits)]}


def memory(context: Context) -> dict[str, Any]:
    """Peak memory and time of one pass, each size in a process of its own."""
    rows = []
    for n in context.sizes.memory:
        say(f" memory: n = {n}")
        # The gradient's pass takes three times as long, and no more memory.
        wanted = ["--gradient"] if n <= 100_000 else []
        rows.append({"n": n} | child("benchmarks.speed.memory", n, *wanted, limit=3600))
    return {"rows": rows}


SECTIONS: dict[str, Section] = {
    "conventions": ("The same number from everybody", conventions),
    "T8": ("One pass over all pairs", single_passes),
    "kinds": ("Passes of every kind", kinds_of_passes),
    "T5": ("A training step's loss", training_step),
    "T6": ("A batch of problems", batches),
    "T1": ("Large clouds in three dimensions", large_cubes),
    "T2": ("Large clouds in 64 dimensions", large_gaussians),
    "accuracy": ("Error against time", accuracy),
    "growth": ("Time against the number of points", growth),
    "memory": ("Memory of one pass", memory),
}
