"""How fast is entropic transport with an explicit cost matrix, beside regot, POT and OTT-JAX on the same inputs?

    pip install -c constraints.txt -r benchmarks/requirements.txt regot -e .
    OMP_NUM_THREADS=1 python benchmarks/matrices.py --out benchmarks/results

writes matrices.json (every time) and matrices.md. float64; n = m = 1000; costs uniform in [0, 1], and squared distances
between uniform points of the square, divided by their largest; ε from 0.1 to 1e-4.

Everybody is asked for an L1 marginal error of 1e-6, rows and columns added up. Where a library's tolerance is another
norm, the loosest of `TOLERANCES` is taken whose plan has that error; a method that meets it with none, within its
iterations, is reported as not reached. Every plan is judged outside the timing: its marginal error, and <P, C> against
that of a solve to 1e-12. Forward: until the potentials or the plan are there. With ``--gradient`` also the sharp value
and its gradient in C: ours and OTT-JAX's implicit, POT's by differentiating its iterations.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, quartiles, say, seconds
from speed import bind_threads

import sinkdiv

TOL = 1e-6
TOLERANCES = (1e-6, 3e-7, 1e-7, 3e-8)
EPS = (0.1, 0.01, 0.001, 0.0001)
#: A method that takes longer than this once is not repeated, and not tried at smaller ε if it takes `LONGEST`.
LONG, LONGEST = 3.0, 20.0
REPETITIONS = 7

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """Costs C (n, m), or (B, n, m), and uniform weights."""

    name: str
    C: Array
    eps: float

    @property
    def weights(self) -> tuple[Array, Array]:
        n, m = self.C.shape[-2:]
        return np.full(n, 1 / n), np.full(m, 1 / m)


@dataclass(frozen=True)
class Method:
    """``prepare(problem, tol)`` makes the call that is timed; ``plan`` turns what that returned into P, untimed."""

    name: str
    package: str
    prepare: Callable[[Problem, float], Callable[[], Any]]
    plan: Callable[[Any], Array]
    exact_tolerance: bool = False


def costs(kind: str, n: int, batch: tuple[int, ...] = ()) -> Array:
    generator = np.random.default_rng(0)
    if kind == "uniform":
        return generator.random((*batch, n, n))
    x, y = generator.random((*batch, n, 2)), generator.random((*batch, n, 2))
    C = np.square(x[..., :, None, :] - y[..., None, :, :]).sum(-1)
    return C / C.max((-2, -1), keepdims=True)


def sinkdiv_method(name: str) -> Method:
    def prepare(problem: Problem, tol: float) -> Callable[[], Any]:
        C = torch.tensor(problem.C)
        return lambda: sinkdiv.solve_matrix(C, eps=problem.eps, tol=tol, max_passes=20_000, method=name)

    return Method(f"sinkdiv {name}", "sinkdiv", prepare, lambda t: t.plan().numpy(), exact_tolerance=True)


def regot_method(name: str, iterations: int) -> Method:
    def prepare(problem: Problem, tol: float) -> Callable[[], Any]:
        import regot

        C, (a, b) = np.asfortranarray(problem.C), problem.weights
        solve = getattr(regot, f"sinkhorn_{name}")
        return lambda: solve(C, a, b, problem.eps, tol=tol, max_iter=iterations)

    return Method(f"regot {name}", "regot", prepare, lambda result: np.asarray(result.plan))


def pot_method(name: str) -> Method:
    def prepare(problem: Problem, tol: float) -> Callable[[], Any]:
        import ot

        a, b = problem.weights
        return lambda: ot.sinkhorn(a, b, problem.C, problem.eps, method=name, numItermax=5000, stopThr=tol)

    return Method(f"POT {name}", "ot", prepare, np.asarray)


def ott_method() -> Method:
    def prepare(problem: Problem, tol: float) -> Callable[[], Any]:
        import jax

        jax.config.update("jax_enable_x64", True)
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn

        solver = sinkhorn.Sinkhorn(threshold=tol, max_iterations=20_000)
        solve = jax.jit(lambda C: solver(linear_problem.LinearProblem(geometry.Geometry(C, epsilon=problem.eps))))
        C = jax.numpy.asarray(problem.C)
        return lambda: jax.block_until_ready(solve(C))

    return Method("OTT-JAX, jitted", "ott", prepare, lambda out: np.asarray(out.matrix))


METHODS = [
    *(sinkdiv_method(name) for name in ("auto", "sinkhorn", "lbfgs", "newton")),
    *(pot_method(name) for name in ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized")),
    ott_method(),
    *(
        regot_method(name, iterations)
        for name, iterations in (
            ("bcd", 3000), ("apdagd", 1000), ("lbfgs_dual", 3000), ("newton", 100), ("sparse_newton", 200),
            ("ssns", 200), ("splr", 1000),
        )
    ),
]  # fmt: skip


# The sharp value and its gradient in C.


def sinkdiv_gradient(problem: Problem) -> Callable[[], tuple[float, Array]]:
    C = torch.tensor(problem.C, requires_grad=True)

    def run() -> tuple[float, Array]:
        value = sinkdiv.solve_matrix(C, eps=problem.eps, tol=TOL, max_passes=20_000).sharp
        (gradient,) = torch.autograd.grad(value, C)
        return float(value), gradient.numpy()

    return run


def pot_gradient(problem: Problem) -> Callable[[], tuple[float, Array]]:
    import ot

    C = torch.tensor(problem.C, requires_grad=True)
    a, b = (torch.tensor(w) for w in problem.weights)

    def run() -> tuple[float, Array]:
        value = ot.sinkhorn2(a, b, C, problem.eps, numItermax=20_000, stopThr=3e-8)
        (gradient,) = torch.autograd.grad(value, C)
        return float(value), gradient.numpy()

    return run


def ott_gradient(problem: Problem) -> Callable[[], tuple[float, Array]]:
    import jax

    jax.config.update("jax_enable_x64", True)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import implicit_differentiation, sinkhorn

    solver = sinkhorn.Sinkhorn(
        threshold=TOL, max_iterations=20_000, implicit_diff=implicit_differentiation.ImplicitDiff()
    )

    def sharp(C: Any) -> Any:
        out = solver(linear_problem.LinearProblem(geometry.Geometry(C, epsilon=problem.eps)))
        return (out.matrix * C).sum()

    both, C = jax.jit(jax.value_and_grad(sharp)), jax.numpy.asarray(problem.C)

    def run() -> tuple[float, Array]:
        value, gradient = jax.block_until_ready(both(C))
        return float(value), np.asarray(gradient)

    return run


GRADIENTS = {
    "sinkdiv auto, implicit": ("sinkdiv", sinkdiv_gradient),
    "POT, autograd": ("ot", pot_gradient),
    "OTT-JAX, implicit": ("ott", ott_gradient),
}


# Measuring.


def marginal_error(P: Array, problem: Problem) -> float:
    """The L1 errors of both marginals, added up; of a batch the largest."""
    a, b = problem.weights
    return float(np.max(np.abs(P.sum(-1) - a).sum(-1) + np.abs(P.sum(-2) - b).sum(-1)))


def reference(problem: Problem) -> Array:
    """The sharp values of a solve to 1e-12."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the assertion shows if it is not reached
        t = sinkdiv.solve_matrix(
            torch.tensor(problem.C), eps=problem.eps, tol=1e-12, max_passes=50_000, method="newton"
        )
    assert float(t.marginal_error.max()) < 1e-10, "the reference is not exact"
    return t.sharp.numpy()


def timed(call: Callable[[], Any], repetitions: int) -> tuple[list[float], Any]:
    """The seconds of a call, the first of which is a warm-up unless it takes long, and what it returned."""
    results: list[Any] = []
    first = seconds(lambda: results.append(call()))
    if first > LONG:
        return [first], results[0]
    return [seconds(call) for _ in range(repetitions)], results[0]


def measured(method: Method, problem: Problem, exact: Array, repetitions: int) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method.name, "problem": problem.name, "eps": problem.eps}
    if find_spec(method.package) is None:
        return row | {"note": "not installed"}
    try:
        for tol in (TOL,) if method.exact_tolerance else TOLERANCES:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                times, result = timed(method.prepare(problem, tol), repetitions)
            P = method.plan(result)
            row |= {"seconds": times, "tol": tol, "marginal_error": marginal_error(P, problem)}
            row["value_error"] = float(np.max(np.abs((P * problem.C).sum((-2, -1)) - exact) / exact))
            if row["marginal_error"] <= TOL * (1 + 1e-6) or times[0] > LONGEST:
                break
    except Exception as error:  # a peer's failure is a result, whatever its type
        row["note"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    return row


def forward(problems: list[Problem], methods: list[Method], repetitions: int) -> list[dict[str, Any]]:
    rows, slow = [], set()
    for problem in problems:
        say(f"{problem.name}, eps {problem.eps:g}")
        exact = reference(problem)
        for method in methods:
            if (method.name, problem.name) in slow:
                row = {"method": method.name, "problem": problem.name, "eps": problem.eps, "note": "not run: too slow"}
            else:
                row = measured(method, problem, exact, repetitions)
            if row.get("seconds", [0.0])[0] > LONGEST:
                slow.add((method.name, problem.name))
            say(f"  {method.name}: {cell(row)}")
            rows.append(row)
    return rows


def gradients(problems: list[Problem], repetitions: int) -> list[dict[str, Any]]:
    """Seconds of value and gradient together; errors against the gradient of a solve to 1e-10."""
    rows = []
    for problem in problems:
        C = torch.tensor(problem.C, requires_grad=True)
        exact = sinkdiv.solve_matrix(C, eps=problem.eps, tol=1e-10, max_passes=50_000, method="newton").sharp
        (gradient,) = torch.autograd.grad(exact, C)
        for name, (package, prepare) in GRADIENTS.items():
            row: dict[str, Any] = {"method": name, "problem": problem.name, "eps": problem.eps}
            if find_spec(package) is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    row["seconds"], (_, found) = timed(prepare(problem), repetitions)
                row["gradient_error"] = float(np.linalg.norm(found - gradient.numpy()) / gradient.norm())
            say(f"  {name}: {row}")
            rows.append(row)
    return rows


# Reporting.


def cell(row: dict[str, Any]) -> str:
    """Median milliseconds; × if the marginal error was not reached, with what was."""
    if "seconds" not in row:
        return row.get("note", "–")
    median = f"{1e3 * quartiles(row['seconds'])[1]:.3g}"
    error = row.get("marginal_error", 0.0)
    return median if error <= TOL * (1 + 1e-6) else f"× ({median}; {error:.0e})"


def table(rows: list[dict[str, Any]], shown: Callable[[dict[str, Any]], str]) -> list[str]:
    problems = list(dict.fromkeys((row["problem"], row["eps"]) for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {(row["method"], row["problem"], row["eps"]): shown(row) for row in rows}
    lines = [
        "| method | " + " | ".join(f"{name}, {eps:g}" for name, eps in problems) + " |",
        "|---" * (1 + len(problems)) + "|",
    ]
    return lines + [
        f"| {method} | " + " | ".join(cells.get((method, *problem), "") for problem in problems) + " |"
        for method in methods
    ]


def markdown(results: dict[str, Any]) -> str:
    where = results["machine"]
    lines = [
        "# Cost matrices beside other libraries", "",
        "Written by `python benchmarks/matrices.py` from `matrices.json`. Median milliseconds until an L1 marginal "
        "error of 1e-6 (both sides added up), float64; ×: not reached, with the error that was. Columns: cost, ε.", "",
        f"{where['cpu']}, {where['torch_threads']} thread(s), load {where['load']}, {where['date']}, "
        f"commit {where['commit']}.", "",
    ]  # fmt: skip
    for title, key in (("n = m = 1000", "forward"), ("64 problems, n = m = 128", "batch")):
        if key in results:
            worst = max(row.get("value_error", 0.0) for row in results[key] if row["method"].startswith("sinkdiv"))
            lines += [f"## {title}", "", *table(results[key], cell), ""]
            lines += [f"Largest relative error of our <P, C>: {worst:.1e}.", ""]
    if "gradient" in results:
        lines += ["## The sharp value and its gradient in C", "", *table(results["gradient"], with_error), ""]
    return "\n".join(lines)


def with_error(row: dict[str, Any]) -> str:
    return f"{cell(row)} ({row['gradient_error']:.0e})" if "gradient_error" in row else cell(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    parser.add_argument("--n", type=int, default=1000, help="rows and columns")
    parser.add_argument("--methods", default="", help="only methods whose name contains one of these, comma-separated")
    parser.add_argument("--without", default="none", help="no methods whose name contains one of these")
    parser.add_argument("--eps", default=",".join(map(str, EPS)), help="regularisations, comma-separated")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--gradient", action="store_true", help="also the sharp value's gradient in C")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    wanted = options.methods.split(",")
    unwanted = options.without.split(",")
    methods = [
        method
        for method in METHODS
        if any(part in method.name for part in wanted) and not any(part in method.name for part in unwanted)
    ]
    kinds, regularisations = ("uniform", "cloud"), [float(eps) for eps in options.eps.split(",")]
    problems = [Problem(kind, costs(kind, options.n), eps) for kind in kinds for eps in regularisations]
    results: dict[str, Any] = {"machine": machine()}
    results["forward"] = forward(problems, methods, options.repetitions)
    save(results, options.out)
    if options.gradient:
        results["gradient"] = gradients(problems, options.repetitions)
        save(results, options.out)
    batches = [Problem(kind, costs(kind, 128, (64,)), eps) for kind in kinds for eps in regularisations]
    ours = [method for method in methods if method.package == "sinkdiv"]
    results["batch"] = forward(batches, ours, options.repetitions)
    save(results, options.out)


def save(results: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "matrices.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "matrices.md").write_text(markdown(results))


if __name__ == "__main__":
    bind_threads()
    main()
