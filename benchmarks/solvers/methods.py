"""The solvers that are compared: the library's, itself with other constants, and the rejected ones."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.solvers import candidates
from benchmarks.solvers.candidates import History, Solver
from sinkdiv.solvers import Limits, Problem, accelerated, symmetric


def library(problem: Problem, limits: Limits) -> History:
    return list((symmetric if problem.symmetric else accelerated)(problem, limits).history)


def from_gaussians(problem: Problem, limits: Limits) -> History:
    if problem.geometry.cost.exponent != 2:  # type: ignore[attr-defined]
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


def variant(**constants: float) -> Solver:
    def solve(problem: Problem, limits: Limits) -> History:
        with changed(**constants):
            return library(problem, limits)

    return solve


METHODS: dict[str, Solver] = {
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

VARIANTS: dict[str, Solver] = {
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

SELVES: dict[str, Solver] = {"sinkdiv": library, "annealed averages": candidates.averaged}
BOTH: dict[str, Solver] = {"sinkdiv": library, "alternating": candidates.alternating}
