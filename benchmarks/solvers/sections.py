"""How many passes the solvers need, on problems easy and hard. Each section returns plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.frame.book import Results, Section
from benchmarks.frame.clock import say
from benchmarks.solvers.candidates import History, Solver
from benchmarks.solvers.methods import BOTH, METHODS, SELVES, VARIANTS
from benchmarks.solvers.suite import Case, cases, clusters, small_cases, with_itself
from sinkdiv.solvers import Limits, Problem, Start, accelerated, symmetric

#: The passes at which each tolerance was first met; None where it was not.
Counts = list[int | None]
TOLERANCES, SINGLE = (1e-2, 1e-3, 1e-6), (1e-2, 1e-3, 1e-4)
MOST, SMALL_MOST, SELF_MOST = 4000, 2000, 500
MOVES = (0.03, 0.1, 0.3, 1.0)
DTYPES = (torch.float64, torch.float32)


@dataclass(frozen=True)
class Context:
    """How much is measured: points a side of the suite and of the larger one, random clusters, small problems."""

    out: Path
    points: int = 400
    more_points: int = 1000
    clusters: int = 120
    small: int = 200
    cases: int | None = None
    """How many cases of the suite; all if None."""

    def suite(self, points: int) -> list[Case]:
        return cases(points)[: self.cases]


def suite(context: Context) -> Results:
    """Every solver on every problem of the suite, to `TOLERANCES`."""
    problems = context.suite(context.points)
    methods: dict[str, dict[str, Counts]] = {}
    for method, solver in METHODS.items():
        methods[method] = {
            case.name: count(solver, [case.problem()], TOLERANCES, MOST)[0]
            for case in problems
            if applies(method, case)
        }
        say(f" {method}")
    return {"points": context.points, "torch": torch.__version__, "methods": methods}


def applies(method: str, case: Case) -> bool:
    return method != "Newton-CG" or case.rho[0] == float("inf")


def variants(context: Context) -> Results:
    groups = {
        "clusters": [case.problem() for case in clusters(context.clusters)],
        "suite": [case.problem() for case in context.suite(context.points)],
    }
    return compare(VARIANTS, groups, TOLERANCES, MOST)


def small(context: Context) -> Results:
    tiny = small_cases(context.small)
    groups = {f"small, {dtype}": [case.problem(dtype) for case in tiny] for dtype in DTYPES}
    return compare(BOTH, groups, SINGLE, SMALL_MOST)


def float32(context: Context) -> Results:
    problems = [case.problem(torch.float32) for case in context.suite(context.more_points)]
    return compare(BOTH, {f"suite, {context.more_points} points, float32": problems}, SINGLE, SMALL_MOST)


def selves(context: Context) -> Results:
    """Every cloud against itself."""
    kinds = {
        "suite": context.suite(context.points),
        "clusters": clusters(context.clusters),
        "small": small_cases(context.small),
    }
    groups = {
        f"{name} with itself, {dtype}": [case.problem(dtype) for case in with_itself(group)]
        for name, group in kinds.items()
        for dtype in DTYPES
    }
    return compare(SELVES, groups, SINGLE, SELF_MOST)


def compare(
    solvers: dict[str, Solver], groups: dict[str, list[Problem]], tolerances: tuple[float, ...], most: int
) -> Results:
    found: dict[str, dict[str, list[Counts]]] = {}
    for group, problems in groups.items():
        for name, solver in solvers.items():
            found.setdefault(group, {})[name] = count(solver, problems, tolerances, most)
            say(f" {group}, {name}")
    return {"tolerances": tolerances, "most": most, "groups": found}


def count(solver: Solver, problems: list[Problem], tolerances: tuple[float, ...], most: int) -> list[Counts]:
    limits = Limits(min(tolerances), most)
    return [first_below(solver(problem, limits), tolerances) for problem in problems]


def first_below(history: History, tolerances: tuple[float, ...]) -> Counts:
    return [next((passes for passes, error in history if error <= tol), None) for tol in tolerances]


def warm_starts(context: Context) -> Results:
    """The potentials of a problem used for one whose points have moved by a fraction of the length of ε."""
    limits, rows = Limits(1e-3, MOST), []
    cross = context.suite(context.points)
    for kind, solve, group in (("cross", accelerated, cross), ("self", symmetric, with_itself(cross))):
        for move in MOVES:
            cold = warm = 0
            for case in group:
                before = solve(case.problem(), limits)
                problem = moved(case, move).problem()
                cold += int(solve(problem, limits).passes)
                warm += int(solve(problem, limits, Start(before.g)).passes)
            rows.append({"kind": kind, "move": move, "problems": len(group), "cold": cold, "warm": warm})
            say(f" {rows[-1]}")
    return {"rows": rows}


def moved(case: Case, move: float) -> Case:
    length = (case.eps / 2) ** 0.5 if case.cost == "sqeuclidean" else case.eps
    generator = torch.Generator().manual_seed(5)
    x = case.x + move * length * torch.randn(case.x.shape, generator=generator, dtype=torch.float64)
    if case.y is case.x:
        return dataclasses.replace(case, x=x, y=x)
    y = case.y + move * length * torch.randn(case.y.shape, generator=generator, dtype=torch.float64)
    return dataclasses.replace(case, x=x, y=y)


SECTIONS: dict[str, Section] = {
    "suite": ("The suite, float64: passes to 1e-2 / 1e-3 / 1e-6", suite),
    "variants": ("What each part is for", variants),
    "small": ("Problems of 1 to 12 points, ε from 1e-4 to 1e3 of the spread", small),
    "float32": ("float32", float32),
    "self": ("The self problem", selves),
    "warm": ("Warm starts, to 1e-3", warm_starts),
}
