"""What is measured of cost matrices: whole solves, value and gradient, and batches. Each returns plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sinkdiv
from benchmarks.frame.book import Results, Section
from benchmarks.frame.clock import say, seconds
from benchmarks.frame.methods import Method
from benchmarks.frame.racing import quiet
from benchmarks.frame.rows import Row, attempted
from benchmarks.matrices.methods import GRADIENTS, TOL, Array, Problem, costs
from benchmarks.matrices.report import cell

#: A method that takes longer than this once is not repeated, and not tried at smaller ε if it takes `LONGEST`.
LONG, LONGEST = 3.0, 20.0
KINDS = ("uniform", "cloud")
REFERENCE = sinkdiv.Newton(max_passes=50_000)


@dataclass(frozen=True)
class Context:
    """What all sections share."""

    out: Path
    methods: list[Method]
    n: int
    batch: tuple[int, int]
    """Problems, and rows of each."""
    eps: tuple[float, ...]
    repetitions: int

    def problems(self, n: int, batch: tuple[int, ...] = ()) -> list[Problem]:
        return [Problem(kind, costs(kind, n, batch), eps) for kind in KINDS for eps in self.eps]


def forward(context: Context) -> Results:
    return {"rows": solved(context.problems(context.n), context.methods, context.repetitions)}


def gradient(context: Context) -> Results:
    """Seconds of value and gradient together; errors against the gradient of a solve to 1e-10."""
    rows = []
    for problem in context.problems(context.n):
        C = torch.tensor(problem.C, requires_grad=True)
        exact = sinkdiv.solve_matrix(C, eps=problem.eps, tol=1e-10, solver=REFERENCE).sharp
        (expected,) = torch.autograd.grad(exact, C)
        for method in GRADIENTS:
            rows.append(differentiated(method, problem, expected.numpy(), context.repetitions))
            say(f"  {method.name}: {rows[-1]}")
    return {"rows": rows}


def batch(context: Context) -> Results:
    """Of ours only."""
    count, n = context.batch
    ours = [method for method in context.methods if method.package == "sinkdiv"]
    return {"rows": solved(context.problems(n, (count,)), ours, context.repetitions)}


def solved(problems: list[Problem], methods: list[Method], repetitions: int) -> list[Row]:
    rows, slow = [], set()
    for problem in problems:
        say(f"{problem.name}, eps {problem.eps:g}")
        exact = reference(problem)
        for method in methods:
            if (method.name, problem.name) in slow:
                row = head(method, problem) | {"note": "not run: too slow"}
            else:
                row = measured(method, problem, exact, repetitions)
            if row.get("seconds", [0.0])[0] > LONGEST:
                slow.add((method.name, problem.name))
            say(f"  {method.name}: {cell(row)}")
            rows.append(row)
    return rows


def reference(problem: Problem) -> Array:
    """The sharp values of a solve to 1e-12."""
    with quiet():  # the assertion shows if it is not reached
        t = sinkdiv.solve_matrix(torch.tensor(problem.C), eps=problem.eps, tol=1e-12, solver=REFERENCE)
    assert float(t.marginal_error.max()) < 1e-10, "the reference is not exact"
    return t.sharp.numpy()


def head(method: Method, problem: Problem) -> Row:
    return {"method": method.name, "problem": problem.name, "eps": problem.eps}


def measured(method: Method, problem: Problem, exact: Array, repetitions: int) -> Row:
    """The loosest tolerance that meets the error asked for, or the last."""
    row = head(method, problem)
    if note := method.obstacle():
        return row | {"note": note}
    for tol in method.settings:
        row = attempted(row, lambda tol=tol: solve_to(tol, method, problem, exact, repetitions))
        if "note" in row or row["marginal_error"] <= TOL * (1 + 1e-6) or row["seconds"][0] > LONGEST:
            break
    return row


def solve_to(tol: float, method: Method, problem: Problem, exact: Array, repetitions: int) -> Row:
    with quiet(), np.errstate(all="ignore"):
        prepared = method.prepare(problem, tol)
        times, result = timed(prepared.run, repetitions)
    P = prepared.read(result)
    error = float(np.max(np.abs((P * problem.C).sum((-2, -1)) - exact) / exact))
    return {"seconds": times, "tol": tol, "marginal_error": marginal_error(P, problem), "value_error": error}


def differentiated(method: Method, problem: Problem, expected: Array, repetitions: int) -> Row:
    row = head(method, problem)
    if method.obstacle():
        return row
    with quiet():
        row["seconds"], (_, found) = timed(method.prepare(problem).run, repetitions)
    return row | {"gradient_error": float(np.linalg.norm(found - expected) / np.linalg.norm(expected))}


def marginal_error(P: Array, problem: Problem) -> float:
    """The L1 errors of both marginals, added up; of a batch the largest."""
    a, b = problem.weights
    return float(np.max(np.abs(P.sum(-1) - a).sum(-1) + np.abs(P.sum(-2) - b).sum(-1)))


def timed(call: Callable[[], Any], repetitions: int) -> tuple[list[float], Any]:
    """The seconds of a call, the first of which is a warm-up unless it takes long, and what it returned."""
    results: list[Any] = []
    first = seconds(lambda: results.append(call()))
    if first > LONG:
        return [first], results[0]
    return [seconds(call) for _ in range(repetitions)], results[0]


SECTIONS: dict[str, Section] = {
    "forward": ("n = m = 1000", forward),
    "batch": ("64 problems, n = m = 128", batch),
    "gradient": ("The sharp value and its gradient in C", gradient),
}
