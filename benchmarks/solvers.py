"""How many passes does a solver need? The library's and the rejected ones, on problems easy and hard.

    python benchmarks/solvers.py --out benchmarks/results

A pass is one softmin over all pairs. Its count does not depend on the machine (but roundings may change it a little),
so nothing is timed. Writes solvers.md, solvers.json and solvers.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import candidates
import torch
from suite import Case, cases, clusters, small_cases, with_itself

from sinkdiv.solvers import Limits, Problem, Start, accelerated, symmetric

History = list[tuple[int, float]]
Counts = list[int | None]
TOLERANCES = (1e-2, 1e-3, 1e-6)
MOST = 4000
SMALL_MOST = 2000
CELLS = "Cells: mean / largest / number that failed, over the problems; a failure counts with the limit."


def library(problem: Problem, limits: Limits) -> History:
    return list((symmetric if problem.symmetric else accelerated)(problem, limits).history)


def from_gaussians(problem: Problem, limits: Limits) -> History:
    if problem.geometry.cost.name != "sqeuclidean":  # type: ignore[attr-defined]
        return library(problem, limits)
    return list(accelerated(problem, limits, candidates.gaussian_start(problem)).history)


@contextmanager
def changed(**constants: float) -> Iterator[None]:
    """The library's solver with other constants, named file_CONSTANT."""
    old = {}
    for name, value in constants.items():
        module, constant = name.split("_", 1)
        old[name] = vars(sys.modules[f"sinkdiv.solvers.{module}"])[constant]
        setattr(sys.modules[f"sinkdiv.solvers.{module}"], constant, value)
    try:
        yield
    finally:
        for name, value in old.items():
            module, constant = name.split("_", 1)
            setattr(sys.modules[f"sinkdiv.solvers.{module}"], constant, value)


def variant(**constants: float) -> candidates.Solver:
    def solve(problem: Problem, limits: Limits) -> History:
        with changed(**constants):
            return library(problem, limits)

    return solve


METHODS: dict[str, candidates.Solver] = {
    "sinkdiv": library,
    "alternating": candidates.alternating,
    "alternating, translated": functools.partial(candidates.alternating, translate=True),
    "SOR, ω = 1.8": functools.partial(candidates.over_relaxed, omega=1.8),
    "SOR, adaptive": candidates.over_relaxed,
    "Anderson 4": functools.partial(candidates.textbook_anderson, depth=4),
    "Anderson 5": functools.partial(candidates.textbook_anderson, depth=5),
    "Anderson 8": functools.partial(candidates.textbook_anderson, depth=8),
    "Anderson 10": functools.partial(candidates.textbook_anderson, depth=10),
    "L-BFGS 8": candidates.lbfgs,
    "Newton-CG": candidates.newton_cg,
    "sinkdiv from Gaussians": from_gaussians,
}

VARIANTS: dict[str, candidates.Solver] = {
    "sinkdiv": library,
    "without the judgement of the dual value": variant(accelerated_FALL=float("inf")),
    "without the cap on steps": variant(accelerated_CAP=float("inf")),
    "with neither": variant(accelerated_FALL=float("inf"), accelerated_CAP=float("inf")),
    "one step a level": variant(annealing_LEVEL_STEPS=1),
    "no annealing": variant(annealing_FIRST=1e-30),
    "first ε = spread": variant(annealing_FIRST=1.0),
    "blur falls by 1/√2 a level": variant(annealing_FACTOR=0.5),
    "sliding window": variant(anderson_KEPT=7),
    "mixing 1": variant(accelerated_MIXING=1.0),
    "depth 5": variant(anderson_DEPTH=5),
    "depth 10": variant(anderson_DEPTH=10),
}


def first_below(history: History, tolerances: tuple[float, ...]) -> Counts:
    """The passes at which each tolerance was first met; None where it was not."""
    return [next((passes for passes, error in history if error <= tol), None) for tol in tolerances]


def count(solver: candidates.Solver, problems: list[Problem], tolerances: tuple[float, ...], most: int) -> list[Counts]:
    limits = Limits(min(tolerances), most)
    return [first_below(solver(problem, limits), tolerances) for problem in problems]


def summary(counts: list[Counts], most: int) -> list[str]:
    """For each tolerance: mean, largest, number that failed; a failure counts with the limit."""
    cells = []
    for column in zip(*counts, strict=True):
        filled = [most if passes is None else passes for passes in column]
        failures = sum(passes is None for passes in column)
        cells.append(f"{sum(filled) / len(filled):.1f} / {max(filled)} / {failures}")
    return cells


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def say(*words: str) -> None:
    sys.stderr.write("  ".join(words) + "\n")


def cell(counts: Counts) -> str:
    return " / ".join("–" if passes is None else str(passes) for passes in counts)


def applies(method: str, case: Case) -> bool:
    return method != "Newton-CG" or case.rho[0] == float("inf")


def compare_methods(size: int, results: dict[str, Any]) -> str:
    problems = cases(size)
    counts: dict[str, dict[str, Counts]] = {}
    for method, solver in METHODS.items():
        counts[method] = {
            case.name: count(solver, [case.problem()], TOLERANCES, MOST)[0]
            for case in problems
            if applies(method, case)
        }
        say(method, *summary(list(counts[method].values()), MOST))
    results["methods"] = counts
    return methods_tables(counts, problems)


def methods_tables(counts: dict[str, dict[str, Counts]], problems: list[Case]) -> str:
    rows = [
        [case.name, *(cell(counts[method][case.name]) if applies(method, case) else "" for method in METHODS)]
        for case in problems
    ]
    totals = [[method, *summary(list(counts[method].values()), MOST)] for method in METHODS]
    head = ["method", *(f"{tol:g}" for tol in TOLERANCES)]
    return f"{table(['problem', *METHODS], rows)}\n{CELLS} Newton-CG: balanced problems only.\n\n{table(head, totals)}"


def compare(
    solvers: dict[str, candidates.Solver], groups: dict[str, list[Problem]], tolerances: tuple[float, ...], most: int,
    results: dict[str, Any],
) -> str:  # fmt: skip
    rows = []
    for group, problems in groups.items():
        for name, solver in solvers.items():
            counts = count(solver, problems, tolerances, most)
            results.setdefault(group, {})[name] = counts
            rows.append([group, name, *summary(counts, most)])
            say(*rows[-1])
    return table(["problems", "solver", *(f"{tol:g}" for tol in tolerances)], rows)


def lost(counts: dict[str, dict[str, list[Counts]]]) -> str:
    """In how many problems, at any tolerance, alternating succeeded and the library did not."""
    pairs = [
        (ours, theirs)
        for group in counts.values()
        for our_row, their_row in zip(group["sinkdiv"], group["alternating"], strict=True)
        for ours, theirs in zip(our_row, their_row, strict=True)
    ]
    failures = sum(ours is None and theirs is not None for ours, theirs in pairs)
    return f"Pairs of problem and tolerance that only alternating solved: {failures} of {len(pairs)}.\n"


def warm_starts(size: int, results: dict[str, Any]) -> str:
    """The potentials of a problem used for one whose points have moved by a fraction of the length of ε."""
    limits, rows = Limits(1e-3, MOST), []
    moves = (0.03, 0.1, 0.3, 1.0)
    for group in (cases(size), with_itself(cases(size))):
        solve = symmetric if group[0].y is group[0].x else accelerated
        for move in moves:
            cold = warm = 0
            for case in group:
                before = solve(case.problem(), limits)
                problem = moved(case, move).problem()
                cold += int(solve(problem, limits).passes)
                warm += int(solve(problem, limits, Start(before.f, before.g)).passes)
            kind = "self" if solve is symmetric else "cross"
            results[f"{kind}, moved by {move}"] = {"cold": cold, "warm": warm}
            rows.append([kind, f"{move:g}", f"{cold / len(group):.1f}", f"{warm / len(group):.1f}"])
    return table(["problems", "points moved by (lengths of ε)", "passes, cold", "passes, warm"], rows)


def moved(case: Case, move: float) -> Case:
    length = (case.eps / 2) ** 0.5 if case.cost == "sqeuclidean" else case.eps
    generator = torch.Generator().manual_seed(5)
    x = case.x + move * length * torch.randn(case.x.shape, generator=generator, dtype=torch.float64)
    if case.y is case.x:
        return dataclasses.replace(case, x=x, y=x)
    y = case.y + move * length * torch.randn(case.y.shape, generator=generator, dtype=torch.float64)
    return dataclasses.replace(case, x=x, y=y)


def draw(counts: dict[str, dict[str, Counts]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = ["alternating", "SOR, adaptive", "L-BFGS 8", "Newton-CG", "Anderson 8", "sinkdiv"]
    colours = ["#9a9a9a", "#c49c6b", "#7b9e87", "#8a7fb5", "#6b8fc4", "#c0392b"]
    names = sorted(counts["alternating"], key=lambda name: counts["alternating"][name][1] or MOST)
    figure, axes = plt.subplots(figsize=(9, 7), layout="constrained")
    for method, colour in zip(shown, colours, strict=True):
        passes = [(counts[method].get(name, [None, None])[1], row) for row, name in enumerate(names)]
        met = [(count, row) for count, row in passes if count is not None]
        axes.scatter(*zip(*met, strict=True), s=60 if method == "sinkdiv" else 34, color=colour, label=method, zorder=3)
        missed = [
            row for (count, row), name in zip(passes, names, strict=True) if count is None and name in counts[method]
        ]
        axes.scatter([1.25 * MOST] * len(missed), missed, marker="x", color=colour, zorder=3)
    axes.set(xscale="log", xlabel=f"passes to a marginal error of 1e-3 (×: not within {MOST})")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory, e.g. benchmarks/results")
    parser.add_argument("--size", type=int, default=400, help="points a side of the suite, e.g. 400")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}

    def part(name: str, measure: Callable[[dict[str, Any]], str]) -> str:
        return measure(results.setdefault(name, {}))

    both = {"sinkdiv": library, "alternating": candidates.alternating}
    own = {"sinkdiv": library, "annealed averages": candidates.averaged}
    single, tight = (1e-2, 1e-3, 1e-4), [case.problem() for case in clusters(120)]
    suite, tiny = cases(arguments.size), small_cases(200)
    small = {f"small, {dtype}": [case.problem(dtype) for case in tiny] for dtype in (torch.float64, torch.float32)}
    large = {"suite, 1000 points, float32": [case.problem(torch.float32) for case in cases(1000)]}
    selves = {
        f"{name} with itself, {dtype}": [case.problem(dtype) for case in with_itself(group)]
        for name, group in (("suite", suite), ("clusters", clusters(120)), ("small", tiny))
        for dtype in (torch.float64, torch.float32)
    }
    sections = [
        "# Passes to a marginal error\n",
        f"torch {torch.__version__}; {arguments.size} points a side unless said otherwise.\n",
        f"## The suite, float64: passes to 1e-2 / 1e-3 / 1e-6 (–: not within {MOST})\n",
        part("suite", lambda r: compare_methods(arguments.size, r)),
        f"## What each part is for\n\n{CELLS} Limit {MOST}. Clusters: 2 to 6, 60 points a side, 120 problems.\n",
        part("variants", lambda r: compare(VARIANTS, {"clusters": tight}, TOLERANCES, MOST, r)),
        part("variants", lambda r: compare(VARIANTS, {"suite": [c.problem() for c in suite]}, TOLERANCES, MOST, r)),
        f"## 200 problems of 1 to 12 points, ε from 1e-4 to 1e3 of the spread\n\n{CELLS} Limit {SMALL_MOST}.\n",
        part("small", lambda r: compare(both, small, single, SMALL_MOST, r)),
        lost(results["small"]),
        f"## float32\n\n{CELLS} Limit {SMALL_MOST}.\n",
        part("float32", lambda r: compare(both, large, single, SMALL_MOST, r)),
        lost(results["float32"]),
        f"## The self problem\n\n{CELLS} Limit 500.\n",
        part("self", lambda r: compare(own, selves, single, 500, r)),
        "## Warm starts, to 1e-3\n",
        part("warm", lambda r: warm_starts(arguments.size, r)),
        "![Passes to 1e-3](solvers.png)\n",
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "solvers.md").write_text("\n".join(sections))
    (arguments.out / "solvers.json").write_text(json.dumps(results))
    draw(results["suite"]["methods"], arguments.out / "solvers.png")


if __name__ == "__main__":
    main()
